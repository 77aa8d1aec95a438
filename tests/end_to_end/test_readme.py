"""The first calls of the README, and the ways to follow a job of docs/events.md, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import Stack

ROOT = Path(__file__).parents[2]


def block(document: str, language: str, containing: str) -> str:
    text = (ROOT / document).read_text()
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def run(command: list[str], stack: Stack, script: str, cwd: Path = ROOT) -> str:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **stack.env}
    ran = subprocess.run(
        command, input=script, env=environment, cwd=cwd,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="the README's commands need curl and jq"
)
def test_the_first_calls_with_curl_end_in_a_signed_url_of_the_picture(stack: Stack) -> None:
    env_file = os.environ["SIDEJOB_TEST_ENV"]
    script = block("README.md", "sh", "task-assign").replace(". .local/env", f". {env_file}")
    url = run(["bash", "-euo", "pipefail"], stack, script).splitlines()[-1]
    picture = stack.http.get(url).content
    assert picture.startswith(b"\x89PNG")
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (400, 300)


def node(script: str, stack: Stack) -> str:
    own = ROOT / ".local" / "venv" / "bin" / "node"
    command = [str(own) if own.exists() else "node", "--input-type=module", "-"]
    return run(command, stack, script, cwd=ROOT / "local")


def test_the_first_calls_with_supabase_js_show_the_job(stack: Stack) -> None:
    script = block("README.md", "js", "createClient").replace("hello-1", f"hello-{os.getpid()}")
    assert re.search(r"status: '(queued|assigned|running|succeeded)'", node(script, stack))


def test_the_first_calls_with_supabase_py_show_the_events(stack: Stack) -> None:
    script = block("README.md", "python", "create_client")
    assert "'event_type': 'job.queued'" in run([sys.executable, "-"], stack, script)


LIFE = ["1 job.queued", "2 job.claimed", "3 job.started", "4 job.succeeded"]


def test_a_job_is_followed_with_supabase_py(stack: Stack) -> None:
    assert run([sys.executable, "-"], stack, block("docs/events.md", "python", "watch(")).splitlines() == LIFE


def test_a_job_is_followed_with_supabase_js(stack: Stack) -> None:
    assert node(block("docs/events.md", "js", "watch("), stack).splitlines() == LIFE
