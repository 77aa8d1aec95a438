"""One page's doing, and what it costs the jobs beside it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError

from tests.worker.conftest import Camera, job, made
from tests.worker.jobs import eventually
from tests.worker.pools import computing
from tests.worker.processes import children, command, started_since
from worker.browser import home, memory, relay
from worker.browser.budget import Budget
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine
from worker.browser.faults import Fault, invalid, of_driver
from worker.browser.kinds import handlers
from worker.browser.launching import Launch
from worker.browser.options.screenshot import ScreenshotOptions
from worker.browser.targets import Targets
from worker.browser.trace import Trace
from worker.browser.visit import Visitor
from worker.handlers import Context, Done, GiveUp, Outcome, Postpone, RetryLater
from worker.payloads import read

MB = 1024 * 1024
LONG = 6_000_000  # characters: more than a page may log in all, and little enough for a test
WORKER = "new Worker(URL.createObjectURL(new Blob([`{}`])))"


def page(script: str, **more: Any) -> dict[str, Any]:
    return {"html": f"<!doctype html><title>x</title><script>{script}</script>", "delayMs": 8000, **more}


async def run(engine: Engine, payload: dict[str, Any], checkpoint: Any = None) -> Outcome:
    async def progress(*_: object, **__: object) -> None: ...

    handle = handlers(Visitor(engine, Egress(Targets()), 20, computing=computing()))["browser.screenshot"]
    return await handle(job(payload, checkpoint=checkpoint), Context(Path, progress))


def listed(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


def driver_of(engine: Engine) -> int:
    return next(pid for pid in children() if "run-driver" in command(pid) and engine.pid in children(pid))


@pytest.fixture
async def small() -> AsyncIterator[Engine]:
    """A browser whose pages may take little memory."""
    async with Engine.running(Launch(page_bytes=300 * MB), most_bytes=2000 * MB) as engine:
        yield engine


@pytest.mark.parametrize(
    "script",
    [
        f"console.log('x'.repeat({LONG}))",
        f"console.error({{}}, 'x'.repeat({LONG}))",
        f"console.log(new Error('x'.repeat({LONG})))",
        f"for (let i = 0; i < 70; i++) console.log('x'.repeat({LONG // 60}))",
        f"throw new Error('x'.repeat({LONG}))",
        f"setTimeout(() => {{ throw 'x'.repeat({LONG}) }})",
        f"Promise.reject(new Error('x'.repeat({LONG})))",
        WORKER.format(f"console.log('x'.repeat({LONG}))"),
        WORKER.format(f"throw new Error('x'.repeat({LONG}))"),
        f"document.write(`<iframe srcdoc=\"<script>console.log('x'.repeat({LONG}))<\\/script>\">`)",
    ],
)
async def test_a_page_that_says_too_much_at_once_is_ended(camera: Camera, script: str) -> None:
    code, outcome = await camera.fault(page(script))
    assert code == "page_error", outcome
    assert "characters" in outcome.error.message


async def test_a_long_message_counts_as_what_it_was(camera: Camera) -> None:
    long = f"'x'.repeat({2 * relay.MAX_EVENT})"
    failing = {"delayMs": 300, "failOnConsoleError": True}
    for script in (f"console.error({long})", f"throw {long}"):
        code, outcome = await camera.fault(page(script, **failing))
        assert code == "page_error"
        assert outcome.error.details["console"]["total"] == 1
        assert "x" * 1000 not in str(outcome.error)
    shot = await camera.shoot(page("console.error('x'.repeat(200000))", delayMs=0))
    assert shot.result["console"]["items"] == [{"text": "(a long message)"}]
    for script in (f"console.log({long})", WORKER.format(f"console.info({long})")):
        (shot,) = await camera.shoot_all(page(script, **failing))
        assert shot.result["console"]["total"] == 0


async def test_a_pages_own_console_still_works(camera: Camera) -> None:
    script = (
        "document.title = String(console.log) + typeof console.error; console.error('short', 7, {a: 1});"
        "console.group('g'); console.table([1]); console.assert(false, 'no'); null.x"
    )
    shot = await camera.shoot(page(script, delayMs=0))
    assert "native code" in shot.result["title"]
    texts = [item["text"] for item in shot.result["console"]["items"]]
    assert "short 7 {a: 1}" in texts
    assert len(texts) == 2, "an assertion is no error, and what throws is one"


async def test_what_comes_out_of_a_page_is_cut_in_the_page(camera: Camera) -> None:
    long = f"'x'.repeat({LONG})"
    shot = await camera.shoot(page(f"document.title = {long}", delayMs=0))
    assert len(shot.result["title"]) <= 1000
    await camera.shoot({"html": "x", "js": f"return {long}"})
    code, outcome = await camera.fault({"html": "x", "js": f"throw new Error({long})"})
    assert code == "script_error"
    assert len(outcome.error.message) < 1000
    script = f"const m = document.createElement('meta'); m.name = 'author'; m.content = {long};"
    script += " document.head.append(m); document.write('<a>x</a>');"
    script += f" const a = document.links[0] || document.querySelector('a'); a.rel = {long};"
    script += f" a.href = 'https://example.com/' + {long}"
    wished = {**page(script, delayMs=0), "format": ["links", "metadata"]}
    read = await camera.outcome(wished, kind="browser.content")
    assert isinstance(read, Done), read
    assert read.result["links"] == 1
    assert all(isinstance(file.content, bytes) and len(file.content) < 30_000 for file in made(read))


def test_an_answer_that_the_relay_replaced_means_that_the_page_is_too_large() -> None:
    fault = of_driver(PlaywrightError(f"Protocol error (Runtime.evaluate): {relay.TOO_LARGE}"))
    assert fault is not None
    assert fault.code == "page_too_large"


async def test_a_job_that_finds_no_browser_is_handed_back() -> None:
    engine = Engine(Launch(executable="/bin/false"))
    outcome = await run(engine, page(""))
    assert isinstance(outcome, Postpone), outcome
    assert outcome.reason == "browser_unavailable"


async def test_a_dead_driver_costs_nobody_and_is_replaced_at_once() -> None:
    async with Engine.running(Launch()) as engine:
        folder = next(iter(engine._running))._home.folder
        browser, driver = engine.pid, driver_of(engine)
        assert (folder / "lock").exists()
        hit = [asyncio.create_task(run(engine, page("", delayMs=9000))) for _ in range(2)]
        await eventually(lambda: engine.contexts == 2)
        os.kill(driver, signal.SIGKILL)
        await eventually(lambda: not engine.ready)
        for outcome in await asyncio.gather(*hit):
            assert isinstance(outcome, Postpone), outcome
            assert outcome.checkpoint["wasThere"] is True
        assert isinstance(await run(engine, page("", delayMs=0)), Done)
        assert engine.ready
        await eventually(lambda: browser not in children())
        await eventually(lambda: not folder.exists())
    await eventually(lambda: browser not in children() and driver not in children())


async def test_nothing_is_ready_between_the_end_of_a_driver_and_the_next_browser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Engine.running(Launch()) as engine:
        start, may_start = engine._start, asyncio.Event()

        async def later() -> Any:
            await may_start.wait()
            return await start()

        monkeypatch.setattr(engine, "_start", later)
        os.kill(driver_of(engine), signal.SIGKILL)
        await eventually(lambda: not engine.ready)
        waiting = asyncio.create_task(run(engine, page("", delayMs=0)))
        await asyncio.sleep(0)
        assert not engine.ready
        may_start.set()
        assert isinstance(await waiting, Done)
        assert engine.ready


async def test_a_job_that_was_there_at_a_crash_runs_alone_and_pays_only_for_its_own() -> None:
    async with Engine.running(Launch()) as engine:
        first = await _crash(engine, None, alone=False)
        assert isinstance(first, Postpone)
        await eventually(lambda: engine.ready)
        second = await _crash(engine, first.checkpoint, alone=True)
        assert isinstance(second, RetryLater)
        assert second.error.code == "browser_crashed"
        third = await _crash(engine, {"crashes": 2, "crashesAlone": 1, "wasThere": True}, alone=True)
        assert isinstance(third, GiveUp)
        assert engine.ready


async def _crash(engine: Engine, checkpoint: Any, *, alone: bool) -> Outcome:
    """Ends the browser that a job is in."""
    shared, before = engine.pid, children()
    running = asyncio.create_task(run(engine, page("", delayMs=9000), checkpoint))
    if not alone:
        await eventually(lambda: engine.contexts == 1)
        os.kill(shared, signal.SIGKILL)
        return await running
    await eventually(lambda: any(each.contexts for each in engine._running))
    (own,) = (each.pid for each in engine._running if each.contexts)
    assert own != shared
    assert own in started_since(before)
    assert engine.contexts == 0, "it is in no browser that others use"
    os.kill(own, signal.SIGKILL)
    return await running


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    "script",
    [
        "const kept = []; setInterval(() => kept.push(new Uint8Array(2e7).fill(1)), 10)",
        WORKER.format("const kept = []; setInterval(() => kept.push(new Uint8Array(2e7).fill(1)), 10)"),
    ],
)
async def test_a_page_that_takes_too_much_memory_is_ended_and_nobody_else(small: Engine, script: str) -> None:
    first = small.pid
    neighbour = asyncio.create_task(run(small, page("", delayMs=5000)))
    outcome = await run(small, page(script, delayMs=10_000, timeoutMs=60_000))
    assert isinstance(outcome, GiveUp), outcome
    assert outcome.error.code == "memory_limit"
    assert isinstance(await neighbour, Done)
    assert small.pid == first


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_a_browser_that_takes_too_much_memory_is_ended_and_its_jobs_are_handed_back() -> None:
    script = "const kept = []; setInterval(() => kept.push(new Uint8Array(2e7).fill(1)), 10)"
    greedy = page(script, delayMs=10_000, timeoutMs=60_000)
    async with Engine.running(Launch(), most_bytes=600 * MB) as engine:
        both = await asyncio.gather(run(engine, greedy), run(engine, page("", delayMs=10_000)))
        for outcome in both:
            assert isinstance(outcome, Postpone), outcome
        last = await run(engine, greedy, {"wasThere": True})
        assert isinstance(last, GiveUp), last
        assert last.error.code == "memory_limit"
        assert engine.ready


async def test_a_job_that_is_late_while_the_browser_does_not_answer_is_handed_back() -> None:
    async with Engine.running(Launch()) as engine:
        running = asyncio.create_task(run(engine, page("", delayMs=9000, timeoutMs=8000)))
        await eventually(lambda: engine.contexts == 1)
        stopped = engine.pid
        os.kill(stopped, signal.SIGSTOP)
        try:
            outcome = await running
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert isinstance(outcome, Postpone), outcome
        assert outcome.reason in ("browser_stalled", "browser_crashed")


async def test_a_page_that_crashes_ends_whatever_waits_for_it(engine: Engine) -> None:
    options = read(ScreenshotOptions, {"html": "x"}, invalid)
    visitor, trace = Visitor(engine, Egress(Targets()), 20, computing=computing()), Trace(False, Path)
    others = {weight.pid for weight in memory.weigh(engine.pid)}

    async def wait_in_vain() -> None:
        async with asyncio.timeout(60), visitor.visit(options, Budget(50), trace) as visit:
            waiting.append(asyncio.create_task(_end_pages(engine, others)))
            await visit.line.evaluate("() => new Promise(() => {})")

    waiting = list[asyncio.Task[None]]()
    with pytest.raises(Fault, match="page_crashed"):
        await wait_in_vain()
    await asyncio.gather(*waiting)


async def _end_pages(engine: Engine, others: set[int]) -> None:
    for weight in memory.weigh(engine.pid):
        if weight.page and weight.pid not in others:
            os.kill(weight.pid, signal.SIGKILL)


async def test_a_page_that_closes_itself_is_no_crash_of_the_browser(camera: Camera) -> None:
    code, outcome = await camera.fault(page("setTimeout(() => close(), 200)"))
    assert code == "page_closed"
    assert isinstance(outcome, RetryLater)


async def test_a_browsers_folder_is_gone_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with Engine.running(Launch()) as engine:
        (folder,) = listed(tmp_path)
        assert str(folder) in command(engine.pid), "its profile lies there"
        await run(engine, page("", delayMs=0))
    assert not listed(tmp_path)


def test_the_folder_of_a_worker_that_was_killed_is_removed_at_the_next_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = """
        import tempfile
        from worker.browser.home import Home
        tempfile.tempdir = %r
        made = Home.make()
        print(made.folder, flush=True)
        input()
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program % str(tmp_path))]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        home.sweep()
        assert folder.exists(), "its process lives"
        other.kill()
    made = home.Home.make()
    assert not folder.exists()
    made.remove()
    assert not list(tmp_path.iterdir())
