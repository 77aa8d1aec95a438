"""The README's first calls, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import Stack

ROOT = Path(__file__).parents[2]


def block(language: str, containing: str) -> str:
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def run(command: list[str], stack: Stack, script: str, cwd: Path = ROOT) -> str:
    ran = subprocess.run(
        command, input=script, env={"PATH": os.environ["PATH"], **stack.env}, cwd=cwd,
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="the README's commands need curl and jq"
)
def test_the_first_calls_with_curl_end_in_a_signed_url_of_the_picture(stack: Stack) -> None:
    script = block("sh", "task-assign").replace(". .local/env", f". {os.environ['SIDEJOB_TEST_ENV']}")
    url = run(["bash", "-euo", "pipefail"], stack, script).splitlines()[-1]
    picture = stack.http.get(url).content
    assert picture.startswith(b"\x89PNG")
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (400, 300)


def test_the_first_calls_with_supabase_js_show_the_job(stack: Stack) -> None:
    node = ROOT / ".local" / "venv" / "bin" / "node"
    script = block("js", "createClient").replace("hello-1", f"hello-{os.getpid()}")
    command = [str(node) if node.exists() else "node", "--input-type=module", "-"]
    assert re.search(
        r"status: '(queued|assigned|running|succeeded)'", run(command, stack, script, cwd=ROOT / "local")
    )


def test_the_first_calls_with_supabase_py_show_the_events(stack: Stack) -> None:
    assert "'event_type': 'job.queued'" in run([sys.executable, "-"], stack, block("python", "create_client"))
