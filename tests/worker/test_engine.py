"""The supervised browser: replaced when it dies or hangs, and gone without a trace at the end."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import job
from tests.worker.jobs import eventually
from tests.worker.processes import children, command, environment
from worker.browser.engine import Engine, NoBrowser
from worker.browser.faults import Fault
from worker.browser.launching import Launch
from worker.browser.screenshot import Screenshot
from worker.browser.targets import Targets
from worker.handlers import Context, Done, Outcome, RetryLater

HTML = "<body style='background: red'>"


async def shoot(engine: Engine, **payload: Any) -> Outcome:
    async def progress(*_: object) -> None: ...

    handler = Screenshot(engine, Targets(), 10)
    return await handler.handle(job({"html": HTML, **payload}), Context(Path, progress))


async def test_a_killed_browser_costs_its_jobs_an_attempt_and_the_next_ones_nothing() -> None:
    starts: list[None] = []
    before = children()
    async with Engine.running(Launch(), lambda: starts.append(None)) as engine:
        first = engine.pid
        hit = [asyncio.create_task(shoot(engine, delayMs=9000)) for _ in range(2)]
        await eventually(lambda: engine.contexts == 2)
        os.kill(first, signal.SIGKILL)
        for outcome in await asyncio.gather(*hit):
            assert isinstance(outcome, RetryLater)
            assert outcome.error.code == "browser_crashed"
        assert isinstance(await shoot(engine), Done)
        await eventually(lambda: engine.ready)
        assert engine.pid != first
        assert len(starts) == 2
    assert children() <= before


async def test_a_browser_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.browser.engine._PROBE_SECONDS", 0.1)
    monkeypatch.setattr("worker.browser.engine._PROBE_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("worker.browser.engine._CLOSE_SECONDS", 0.5)
    before = children()
    async with Engine.running(Launch()) as engine:
        first = engine.pid
        os.kill(first, signal.SIGSTOP)
        await eventually(lambda: engine.pid != first)
        assert isinstance(await shoot(engine), Done)
        await eventually(lambda: first not in children())
    assert children() <= before


async def test_a_dead_driver_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.browser.engine._PROBE_SECONDS", 0.1)
    monkeypatch.setattr("worker.browser.engine._PROBE_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("worker.browser.engine._CLOSE_SECONDS", 0.5)
    before = children()
    async with Engine.running(Launch()) as engine:
        (driver,) = (pid for pid in children() - before if "run-driver" in command(pid))
        os.kill(driver, signal.SIGKILL)
        first = engine.pid
        await eventually(lambda: engine.pid != first)
        assert isinstance(await shoot(engine), Done)
    assert children() <= before


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


async def test_without_a_browser_the_error_says_what_to_do() -> None:
    before = children()
    with pytest.raises(NoBrowser, match="BROWSER_EXECUTABLE"):
        async with Engine.running(Launch(executable="/bin/false")):
            pass
    assert children() <= before
    with pytest.raises(Fault, match="browser_unavailable"):
        async with Engine(Launch(executable="/bin/false")).context():
            pass


async def test_the_browser_does_not_know_the_workers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_PASSWORD", "hunter2-in-the-environment")
    async with Engine.running(Launch()) as engine:
        assert "hunter2" not in environment(engine.pid)


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
