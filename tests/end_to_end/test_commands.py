"""The commands that the README names, on the stack under test: what they print, and what they leave."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.stack import Stack

LEAF = (0x1D, 0x7A, 0x53)  # --leaf of local/demo/index.html
LIFE = ["job.queued", "job.claimed", "job.started", "job.succeeded"]


def local(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def said(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_demo_tells_a_jobs_life_in_order_and_leaves_the_picture_of_its_page(
    stack: Stack, tmp_path: Path
) -> None:
    told = said(local(tmp_path, "demo"))
    assert re.findall(r"^ +[\d.]+ s  (\S+)", told, re.MULTILINE) == LIFE
    (url,) = re.findall(r"^signed +(\S+)", told, re.MULTILINE)
    picture = tmp_path / "sidejob-demo.png"
    assert stack.http.get(url).content == picture.read_bytes()
    with Image.open(picture) as image:
        assert (image.format, image.size) == ("PNG", (1280, 720))
        colours = {colour: n for n, colour in image.convert("RGB").getcolors(1280 * 720) or []}
    assert colours[LEAF] > 1000, "it is another page's"


def test_a_demo_of_a_page_that_may_not_be_opened_ends_with_1_and_says_why(tmp_path: Path) -> None:
    ran = local(tmp_path, "demo", "http://127.0.0.1:9/")
    assert ran.returncode == 1
    assert "The job failed" in ran.stderr
    assert "blocked_address" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_the_figma_demo_leaves_a_picture_a_node(tmp_path: Path) -> None:
    told = said(local(tmp_path, "demo-figma"))
    events = re.findall(r"^ +[\d.]+ s  (\S+)", told, re.MULTILINE)
    assert [event for event in events if event != "job.progress"] == LIFE
    pictures = sorted((tmp_path / "sidejob-demo-figma").iterdir())
    assert len(pictures) == 3
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.format == "PNG"


def test_status_names_every_process(stack: Stack, tmp_path: Path) -> None:
    told = said(local(tmp_path, "status"))
    for process in ("postgres", "gateway", "realtime", "objects", "function-collab", "worker-0"):
        assert re.search(rf"^{process} +\d+", told, re.MULTILINE), told
    assert f"ready: {stack.env['SUPABASE_URL']}" in told


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["status"], {141}),
        (["logs"], {141}),
        (["demo"], {141}),
        (["--help"], {0, 141}),  # argparse passes over what it could not print
        (["psql", "-Atc", "select generate_series(1, 100000)"], {-signal.SIGPIPE}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_command_whose_output_nobody_reads_ends_without_a_word(
    tmp_path: Path, words: list[str], codes: set[int]
) -> None:
    """As in `./local.sh status | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    module = "local.setup" if words == ["--help"] else "local"
    try:
        ran = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (ran.stderr, ran.returncode in codes) == ("", True)


def test_psql_is_the_databases_superuser(tmp_path: Path) -> None:
    asked = "select current_user, rolsuper from pg_roles where rolname = current_user"
    assert said(local(tmp_path, "psql", "-Atc", asked)) == "postgres|t\n"


def test_logs_are_found_by_a_functions_name_and_of_nobody_refused_with_all_names(tmp_path: Path) -> None:
    assert said(local(tmp_path, "logs", "collab")).startswith("== function-collab\n")
    ran = local(tmp_path, "logs", "nobody")
    assert ran.returncode == 1
    assert "'nobody'" in ran.stderr
    assert "worker-0" in ran.stderr


def test_they_run_on_the_stack_that_is_up() -> None:
    assert Path(os.environ["SIDEJOB_HOME"]) == Path(os.environ["SIDEJOB_TEST_ENV"]).parent
