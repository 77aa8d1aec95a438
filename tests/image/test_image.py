"""The worker's image: what is in it, and that it works as it is meant to be run."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from deploy import pins
from local.setup import REPOSITORY
from tests.image import building
from tests.stack import Person
from tests.worker.jobs import Jobs, eventually
from tests.worker.processes import children, command
from worker import VERSION

pytestmark = pytest.mark.soak

CANARY = "canary-that-must-stay-outside"
_MOST_MB = 1800  # both Chromiums, their libraries, fonts for the scripts of the world
# One line each: a glyph of its own for a script or a picture, and what is drawn for a character that nobody has.
LINES = {
    "Han": "漢字",
    "Kana": "かな",
    "Hangul": "한글",
    "emoji": "😀🚀",
    "Arabic": "عرب",
    "Thai": "ไทย",
    "Hindi": "हिन्दी",
}
TOFU = "\U000effff\U000effff"
_ROW = 60
PAGE = "<body style='margin:0;font:40px/60px sans-serif'>" + "".join(
    f"<div style='height:{_ROW}px'>{text}</div>" for text in [TOFU, *LINES.values()]
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Built from a checkout in which secrets lie about."""
    building.need_tools()
    context = tmp_path_factory.mktemp("context")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in listed.splitlines():
        if (REPOSITORY / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, context / name)
    for name in (
        ".env",
        "worker.env",
        "worker/.env",
        "worker/key.pem",
        "sidejob/.env.local",
        "supabase/.env",
    ):
        (context / name).write_text(f"WORKER_PASSWORD={CANARY}\n")
    said = building.build(context)
    assert CANARY not in said
    return building.IMAGE


@pytest.fixture(scope="module")
def files(image: str) -> Iterator[Path]:
    assert image
    with building.mounted() as root:
        yield root


def test_the_image_is_configured_to_be_run_by_anybody(image: str) -> None:
    assert image
    config = building.inspected()["config"]
    assert config["User"] == f"{building.USER}:{building.USER}"
    assert config["Entrypoint"] == ["tini", "--", "/opt/sidejob/worker/entry.sh"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "worker.probe"]
    assert list(config["ExposedPorts"]) == ["3200/tcp"]
    told = dict(entry.split("=", 1) for entry in config["Env"])
    assert told["HEALTH_HOST"] == "0.0.0.0"  # noqa: S104  that is what a container listens on
    assert not [name for name in told if re.search("KEY|TOKEN|PASSWORD|SECRET|EMAIL|SUPABASE", name)]


def test_the_image_holds_the_pinned_packages_and_the_compiled_worker(files: Path) -> None:
    installed = {
        pins.normalised(name): version
        for name, version in (
            path.name.removesuffix(".dist-info").split("-", 1)
            for path in (files / "opt/packages").glob("*.dist-info")
        )
    }
    lines = re.findall(r"^([\w.-]+)==([^ \\]+)", pins.WORKER.read_text(), re.MULTILINE)
    assert {name for name, _ in lines} == set(installed)
    assert set(installed.items()) <= set(lines)
    there = files / "opt/sidejob"
    for package in ("sidejob", "worker"):
        ours = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / package).rglob("*.py")}
        assert ours == {path.relative_to(there).as_posix() for path in (there / package).rglob("*.py")}
        for name in ours:
            path = there / name
            assert list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")), f"{name} is not compiled"
    assert {path.name for path in there.iterdir()} == {"sidejob", "worker"}


def test_no_secret_and_nothing_that_makes_somebody_else_of_one_is_in_the_image(
    files: Path, member: Person
) -> None:
    env = member.stack.env
    secrets = [CANARY, *(value for name, value in env.items() if re.search("KEY|PASSWORD|SECRET", name))]
    patterns = "".join(f"{secret}\n" for secret in secrets)
    found = subprocess.run(
        ["grep", "--recursive", "--fixed-strings", "--files-with-matches", "--file=-", files],
        input=patterns, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == ""
    assert found.returncode == 1, found.stderr
    for path in files.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            assert not status.st_mode & 0o6000, f"{path} runs as somebody else"
            assert status.st_uid != building.USER, f"{path} belongs to the worker"
    history = json.dumps(building.inspected())
    assert not [secret for secret in secrets if secret in history]


def test_the_image_is_no_larger_than_its_contents_explain(files: Path) -> None:
    """Prints what takes the room: shown with pytest -s."""
    parts = {
        "Chromium, both": "usr/lib/chromium", "fonts": "usr/share/fonts", "Python packages": "opt/packages",
        "libraries": f"usr/lib/{os.uname().machine}-linux-gnu", "worker": "opt/sidejob", "all": ".",
    }  # fmt: skip
    sizes = {
        part: int(building.run("du", "-xsm", files / path).stdout.split()[0]) for part, path in parts.items()
    }
    print("\n" + "\n".join(f"{part:18}{size:6} MB" for part, size in sizes.items()))
    assert sizes["all"] < _MOST_MB, sizes


class Running:
    """A container of the image at work for the stack under test."""

    def __init__(self, output: Path, member: Person, jobs: Jobs, **settings: str) -> None:
        env = member.stack.env
        told = {
            "SUPABASE_URL": env["SUPABASE_URL"], "SUPABASE_PUBLISHABLE_KEY": env["SUPABASE_PUBLISHABLE_KEY"],
            "WORKER_EMAIL": env["WORKER2_EMAIL"], "WORKER_PASSWORD": env["WORKER2_PASSWORD"],
            "FUNCTIONS_URL": env["FUNCTIONS_URL"], "EXECUTOR_ID": jobs.executor, "HEALTH_PORT": "0",
            "BROWSER_SANDBOX": "on", **settings,
        }  # fmt: skip
        listed = output.with_suffix(".env")
        listed.write_text("".join(f"{name}={value}\n" for name, value in told.items()))
        self._jobs = jobs
        self._output = output
        self._init = output.with_suffix(".pid")  # podman leaves its containers to a process of their own
        self.podman = building.started(f"--env-file={listed}", f"--pidfile={self._init}", output=output)

    def lines(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in self._output.read_text().splitlines() if line.startswith('{"ts"')
        ]

    async def ready(self) -> str:
        first = await eventually(
            lambda: next((line for line in self.lines() if line["message"] == f"worker {VERSION}"), False), 60
        )
        assert isinstance(first, dict)
        base = f"http://127.0.0.1:{first['healthPort']}"
        await eventually(
            lambda: httpx.get(f"{base}/readyz", trust_env=False, timeout=60).status_code == 200, 60
        )
        return base

    def processes(self) -> dict[int, str]:
        """What runs in the container, by the host's numbers."""
        if not self._init.exists():
            return {}
        init = int(self._init.read_text())
        found = {}
        for pid in {init, *children(init)}:
            with contextlib.suppress(OSError):  # it ended while we looked
                if re.search(
                    rf"^Uid:\t{building.USER}\b", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
                ):
                    found[pid] = command(pid)
        return found

    def worker(self) -> int:
        return next(pid for pid, text in self.processes().items() if text.startswith("python3 -m worker"))

    async def picture(self, **payload: object) -> Image.Image:
        job_id = self._jobs.ask("browser.screenshot", {"html": PAGE, **payload})
        row = await self._jobs.until(job_id, "succeeded", "failed", seconds=90)
        assert row["status"] == "succeeded", row["error"]
        (artifact,) = self._jobs.artifacts(job_id)
        return Image.open(io.BytesIO(self._jobs.bytes_of(artifact["id"])))

    async def drained(self) -> int:
        os.kill(self.worker(), signal.SIGTERM)
        await eventually(lambda: self.podman.poll() is not None, 30)
        return self.podman.returncode


@pytest.fixture
def start(image: str, member: Person, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    assert image
    building.need_podman()
    started: list[Running] = []

    def running(**settings: str) -> Running:
        started.append(Running(tmp_path / f"{len(started)}.log", member, Jobs(member), **settings))
        return started[-1]

    yield running
    for each in started:
        if each.podman.poll() is None:
            for pid in each.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            each.podman.wait(30)


@pytest.mark.parametrize("headless", ["true", "false"])
async def test_a_container_takes_a_picture_as_its_own_user_in_the_browsers_sandbox(
    start: Callable[..., Running], headless: str
) -> None:
    running = start(HEADLESS=headless)
    await running.ready()
    drawn = (await running.picture(viewport={"width": 300, "height": 600})).convert("RGB")
    rows = [drawn.crop((0, number * _ROW, 300, (number + 1) * _ROW)) for number in range(len(LINES) + 1)]
    boxes, *texts = (row.tobytes() for row in rows)
    assert len({boxes, *texts}) == len(LINES) + 1, (
        "each script has letters of its own, and none is drawn as boxes"
    )
    coloured = {name for name, row in zip(LINES, rows[1:], strict=True) if _saturation(row) > 100}
    assert coloured == {"emoji"}

    confined(running)
    assert ("Xvfb" in " ".join(running.processes().values())) == (headless == "false")
    assert await running.drained() == 0


def _saturation(row: Image.Image) -> int:
    """Of the most colourful pixel, 0 to 255."""
    return max(row.convert("HSV").getchannel("S").tobytes())


def confined(running: Running) -> None:
    """Nothing is left to the worker, and less to the pages: Chromium's sandbox is a user namespace of its own."""
    worker = running.worker()
    status = Path(f"/proc/{worker}/status").read_text()
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    browser = {pid: text for pid, text in running.processes().items() if "/chromium" in text}
    assert not [text for text in browser.values() if "--no-sandbox" in text]
    zygotes = [pid for pid, text in browser.items() if "--type=zygote" in text and "no-zygote" not in text]
    assert zygotes
    own = Path(f"/proc/{worker}/ns/user").readlink()
    assert all(Path(f"/proc/{pid}/ns/user").readlink() != own for pid in zygotes)


async def test_a_display_that_dies_comes_back_and_the_browser_with_it(start: Callable[..., Running]) -> None:
    running = start(HEADLESS="false")
    base = await running.ready()

    def answers(status: int) -> bool:
        return httpx.get(f"{base}/readyz", trust_env=False, timeout=60).status_code == status

    (display,) = [pid for pid, text in running.processes().items() if text.startswith("Xvfb")]
    os.kill(display, signal.SIGKILL)
    await eventually(lambda: answers(503), 30)
    await eventually(lambda: answers(200), 60)
    assert (await running.picture(viewport={"width": 2560, "height": 1600})).size == (2560, 1600)
    assert await running.drained() == 0


REFUSED = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER = 0x20000, 0x10000000
def refused(name, *arguments):
    ctypes.set_errno(0)
    return getattr(libc, name)(*arguments) == -1 and ctypes.get_errno() == 38
def no_socket(*kind):
    try: socket.socket(*kind).close()
    except OSError as error: return error.errno == 38
    return False
print(dict(
    mount=refused("mount", b"none", b"/tmp", b"tmpfs", 0, None), ptrace=refused("ptrace", 0, 0, 0, 0),
    mount_namespace=refused("unshare", NEWNS | NEWUSER), keys=refused("syscall", 250, 0, 0),
    netfilter=no_socket(16, 3, 12), packets=no_socket(17, 3, 0), crypto=no_socket(38, 5, 0), vsock=no_socket(40, 1, 0),
    io_uring=refused("syscall", 425, 1, 0), bpf=refused("syscall", 321, 0, 0, 0),
))
assert libc.unshare(NEWUSER) == 0 and not no_socket(2, 1, 0) and not no_socket(16, 3, 0)
"""


# The kernel itself would say EPERM; ENOSYS is the profile's own answer.
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_the_seccomp_profile_gives_a_user_namespace_and_none_of_what_it_could_be_misused_for(
    image: str,
) -> None:
    assert image
    building.need_podman()
    done = building.run(*building.container("--entrypoint=python3", command=("-c", REFUSED)))
    told: dict[str, bool] = eval(done.stdout)  # noqa: S307  what the lines above print
    assert len(told) == 10
    assert not [name for name, refused in told.items() if not refused]


def test_a_container_that_is_told_nothing_names_all_that_it_needs(image: str) -> None:
    assert image
    building.need_podman()
    done = subprocess.run(
        building.container(), capture_output=True, text=True, check=False,
        env={**os.environ, "CONTAINERS_STORAGE_CONF": str(building.HOME / "storage.conf")},
    )  # fmt: skip
    assert done.returncode == 2
    named = re.findall(r"^  (\w+) is not set", done.stderr, re.MULTILINE)
    assert named == ["SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "WORKER_EMAIL", "WORKER_PASSWORD"]
