"""The supervised browser: replaced when it dies or hangs, and gone without a trace at the end."""

import asyncio
import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.worker.conftest import job, made
from tests.worker.jobs import eventually
from tests.worker.pools import computing
from tests.worker.processes import children, command, environment, started_since
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine, NoBrowser
from worker.browser.faults import Fault
from worker.browser.kinds import handlers
from worker.browser.launching import Launch
from worker.browser.targets import Targets
from worker.browser.visit import Visitor
from worker.handlers import Context, Done, Outcome, Postpone

HTML = "<body style='background: red'>"

Left = Callable[[], set[int]]


@pytest.fixture
def left() -> Left:
    """What the test has started and is still there."""
    before = children()
    return lambda: started_since(before)


async def shoot(engine: Engine, **payload: Any) -> Outcome:
    async def progress(*_: object, **__: object) -> None: ...

    visitor = Visitor(engine, Egress(Targets()), 10, computing=computing())
    handle = handlers(visitor)["browser.screenshot"]
    return await handle(job({"html": HTML, **payload}), Context(Path, progress))


async def test_a_killed_browser_costs_no_job_an_attempt(left: Left) -> None:
    starts: list[None] = []
    async with Engine.running(Launch(), lambda: starts.append(None)) as engine:
        first = engine.pid
        hit = [asyncio.create_task(shoot(engine, delayMs=9000)) for _ in range(2)]
        await eventually(lambda: engine.contexts == 2)
        os.kill(first, signal.SIGKILL)
        for outcome in await asyncio.gather(*hit):
            assert isinstance(outcome, Postpone)
            assert outcome.reason == "browser_crashed"
            assert outcome.checkpoint["wasThere"] is True
        assert isinstance(await shoot(engine), Done)
        await eventually(lambda: engine.ready)
        assert engine.pid != first
        assert len(starts) == 2
    await eventually(lambda: not left())


async def test_a_browser_that_does_not_answer_is_replaced(
    monkeypatch: pytest.MonkeyPatch, left: Left
) -> None:
    monkeypatch.setattr("worker.browser.engine._PROBE_SECONDS", 0.1)
    monkeypatch.setattr("worker.browser.running._PROBE_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("worker.browser.running._CLOSE_SECONDS", 0.5)
    async with Engine.running(Launch()) as engine:
        first = engine.pid
        os.kill(first, signal.SIGSTOP)
        await eventually(lambda: engine.pid != first)
        assert isinstance(await shoot(engine), Done)
        await eventually(lambda: first not in children())
    await eventually(lambda: not left())


async def test_a_browser_that_answers_but_opens_no_page_is_replaced(
    monkeypatch: pytest.MonkeyPatch, left: Left
) -> None:
    monkeypatch.setattr("worker.browser.engine._PROBE_SECONDS", 0.1)
    monkeypatch.setattr("worker.browser.engine._PROBE_PAGE_SECONDS", 0.1)
    monkeypatch.setattr("worker.browser.running._PROBE_PAGE_SECONDS", 1.0)
    monkeypatch.setattr("worker.browser.running._CLOSE_SECONDS", 0.5)
    async with Engine.running(Launch()) as engine:
        first = engine.pid
        for pid in children(first):
            if "--type=zygote" in command(pid):
                os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: engine.pid != first)
        assert isinstance(await shoot(engine), Done)
        await eventually(lambda: first not in children())
    await eventually(lambda: not left())


async def test_a_dead_driver_is_replaced(monkeypatch: pytest.MonkeyPatch, left: Left) -> None:
    monkeypatch.setattr("worker.browser.engine._PROBE_SECONDS", 0.1)
    monkeypatch.setattr("worker.browser.running._PROBE_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("worker.browser.running._CLOSE_SECONDS", 0.5)
    async with Engine.running(Launch()) as engine:
        (driver,) = _drivers(left())
        os.kill(driver, signal.SIGKILL)
        first = engine.pid
        await eventually(lambda: engine.pid != first)
        assert isinstance(await shoot(engine), Done)
    await eventually(lambda: not left())


async def test_an_old_browser_is_replaced_without_a_job_noticing(left: Left) -> None:
    starts: list[None] = []
    async with Engine.running(Launch(), lambda: starts.append(None), restart_jobs=3) as engine:
        first = engine.pid
        long = asyncio.create_task(shoot(engine, delayMs=10_000, timeoutMs=60_000))
        await eventually(lambda: engine.contexts == 1)
        for _ in range(2):
            assert isinstance(await shoot(engine), Done)
        await eventually(lambda: engine.pid != first)
        assert first in children(), "it still has a job"
        assert isinstance(await shoot(engine), Done)
        assert isinstance(await long, Done)
        await eventually(lambda: first not in children())
        assert len(starts) == 2
    await eventually(lambda: not left())


async def test_a_browser_that_takes_too_much_memory_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.browser.engine._PROBE_SECONDS", 0.1)
    async with Engine.running(Launch(), restart_bytes=1024 * 1024) as engine:
        first = engine.pid
        await eventually(lambda: engine.pid != first)
        assert isinstance(await shoot(engine), Done)


async def test_a_job_alone_has_a_browser_of_its_own(left: Left) -> None:
    async with Engine.running(Launch()) as engine:
        async with engine.context(alone=True) as context:
            assert context.browser is not engine.browser
            assert engine.contexts == 0
            assert len(_drivers(left())) == 2
        await eventually(lambda: len(_drivers(left())) == 1)


def _drivers(started: set[int]) -> list[int]:
    return [pid for pid in started if "run-driver" in command(pid)]


async def test_a_way_around_the_proxy_is_no_way_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYWRIGHT_DISABLE_FORCED_CHROMIUM_PROXIED_LOOPBACK", "1")
    with pytest.raises(NoBrowser, match="PROXIED_LOOPBACK"):
        async with Engine.running(Launch()):
            pass


async def test_many_first_users_start_one_browser() -> None:
    starts: list[None] = []
    engine = Engine(Launch(), lambda: starts.append(None))
    try:
        assert all(
            isinstance(outcome, Done) for outcome in await asyncio.gather(*(shoot(engine) for _ in range(4)))
        )
        assert len(starts) == 1
    finally:
        await engine.close()


async def test_a_job_that_is_cancelled_while_its_context_is_made_leaves_none() -> None:
    async with Engine.running(Launch()) as engine:  # of its own: another's may be trying whether pages open
        shooting = asyncio.create_task(shoot(engine))
        while not engine.contexts:  # noqa: ASYNC110  what comes next must be the very next thing
            await asyncio.sleep(0)
        assert not engine.browser.contexts, "it is still being made"
        shooting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shooting
        assert not engine.browser.contexts
        assert engine.contexts == 0


async def test_a_start_comes_to_its_end_though_all_who_asked_are_cancelled(left: Left) -> None:
    starts = list[None]()
    engine = Engine(Launch(), lambda: starts.append(None))
    try:
        for alone in (True, False):
            asked = asyncio.create_task(_enter(engine, alone=alone))
            await eventually(lambda: bool(_drivers(left())))
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        assert isinstance(await shoot(engine), Done)
        assert len(starts) == 2, "one for the job alone, and one that the next job found"
    finally:
        await engine.close()
    await eventually(lambda: not left())


async def _enter(engine: Engine, *, alone: bool) -> None:
    async with engine.context(alone=alone):
        pass


async def test_without_a_browser_the_error_says_what_to_do(left: Left) -> None:
    with pytest.raises(NoBrowser, match="BROWSER_EXECUTABLE"):
        async with Engine.running(Launch(executable="/bin/false")):
            pass
    await eventually(lambda: not left())
    with pytest.raises(Fault, match="browser_unavailable"):
        async with Engine(Launch(executable="/bin/false")).context():
            pass


async def test_the_browser_does_not_know_the_workers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_PASSWORD", "hunter2-in-the-environment")
    async with Engine.running(Launch()) as engine:
        assert "hunter2" not in environment(engine.pid)


@pytest.mark.soak
@pytest.mark.skipif(
    not shutil.which("Xvfb") or Launch(headless=False).program() is None,
    reason="needs Xvfb, and a Chromium that can open windows",
)
async def test_a_browser_with_a_window_takes_the_same_picture(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    display = await asyncio.create_subprocess_exec("Xvfb", "-displayfd", str(write), pass_fds=[write])
    try:
        number = (await asyncio.to_thread(os.read, read, 10)).decode().strip()
        monkeypatch.setenv("DISPLAY", f":{number}")
        async with Engine.running(Launch(headless=False)) as windowed:
            assert "--headless" not in command(windowed.pid)
            taken = [await shoot(each, viewport={"width": 900, "height": 500}) for each in (engine, windowed)]
    finally:
        display.terminate()
        await display.wait()
        os.close(read)
        os.close(write)
    with_shell, with_window = (_pixels(outcome) for outcome in taken)
    assert with_shell == with_window


def _pixels(outcome: Outcome) -> bytes:
    assert isinstance(outcome, Done), outcome
    (file,) = made(outcome)
    assert isinstance(file.content, bytes)
    image = Image.open(io.BytesIO(file.content))
    assert image.size == (900, 500)
    return image.convert("RGB").tobytes()


def test_the_program_is_looked_for_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("google-chrome", "chromium", "chromium-headless-shell"):
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
        assert Launch().program() == str(tmp_path / name)
    assert Launch(headless=False).program() == str(tmp_path / "chromium")
    assert Launch(channel="chrome").program() is None
    assert Launch(channel="chrome", executable="/opt/x").program() == "/opt/x"
    for path in tmp_path.iterdir():
        path.unlink()
    assert Launch().program() is None
