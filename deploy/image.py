"""Stages what the worker's image is built from: the files that its Dockerfile copies, and nothing else.

    python -m deploy.image build/worker-image

Prints the folder's fingerprint: the same on every machine, another one when anything that is copied changes.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.pins import ROOT
from deploy.stage import fingerprint

DOCKERFILE = Path("worker") / "Dockerfile"


def stage_image(into: Path) -> None:
    """Make `into` anew. The Dockerfile stands at its top, where `gcloud builds submit` looks for it."""
    shutil.rmtree(into, ignore_errors=True)
    for source in [DOCKERFILE, *copied((ROOT / DOCKERFILE).read_text())]:
        for path in _files(source):
            _put(path, into / path.relative_to(ROOT))
    shutil.copyfile(ROOT / DOCKERFILE, into / "Dockerfile")


def copied(dockerfile: str) -> list[Path]:
    """What its COPY lines take from the repository, in order."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
    words = [[word for word in line.split() if not word.startswith("--")] for line in lines]
    return [Path(source) for line in words for source in line[:-1]]


def _files(source: Path) -> Iterator[Path]:
    top = ROOT / source
    found = [top] if top.is_file() else sorted(top.rglob("*"))
    return (path for path in found if path.is_file() and "__pycache__" not in path.parts)


def _put(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    shutil.copyfile(path, to)
    to.chmod(0o644)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m deploy.image <into>")
    stage_image(Path(sys.argv[1]))
    print(fingerprint(Path(sys.argv[1])))
