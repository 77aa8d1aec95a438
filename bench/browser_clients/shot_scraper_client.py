"""`shot-scraper multi`, its way to take many pictures: one browser a process, one picture after the other, and as many
processes as there are slots. `… multi <file>` is shot-scraper itself, told which browser to start."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHOTS_A_SECOND = 4  # about; a run is as long as its list


def multi(arguments: list[str]) -> None:
    from playwright.sync_api import BrowserType
    from shot_scraper.cli import cli  # type: ignore[import-not-found] # in the peers' own environment

    start = BrowserType.launch

    def launch(self: Any, **options: Any) -> Any:
        return start(self, executable_path=os.environ["BENCH_BROWSER"], **options)

    BrowserType.launch = launch  # type: ignore[method-assign]  # it has no option for this
    cli(["multi", *arguments, "--silent"])


def drive(slots: int, seconds: float) -> dict[str, Any]:
    count = max(1, round(SHOTS_A_SECOND * seconds / slots))
    with tempfile.TemporaryDirectory() as folder:
        for slot in range(slots):
            shots = [
                {"url": os.environ["BENCH_URL"], "width": 1280, "height": 720,
                 "output": f"{folder}/{slot}-{shot}.png"}
                for shot in range(count)
            ]  # fmt: skip
            Path(folder, f"{slot}.yml").write_text(json.dumps(shots))  # JSON is YAML
        began = time.monotonic()
        running = [
            subprocess.Popen([sys.executable, __file__, "multi", f"{folder}/{slot}.yml"], stdout=sys.stderr)
            for slot in range(slots)
        ]
        codes = [each.wait() for each in running]
        if any(codes):
            raise RuntimeError("shot-scraper failed")
        took = time.monotonic() - began
        picture = base64.b64encode(Path(folder, "0-0.png").read_bytes()).decode()
    return {"shots": slots * count, "seconds": took, "picture": picture}


if __name__ == "__main__":
    if sys.argv[1:2] == ["multi"]:
        multi(sys.argv[2:])
    for line in sys.stdin:
        print(json.dumps(drive(**json.loads(line))), flush=True)
