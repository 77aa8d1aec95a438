"""Ways to photograph a page: our handlers, a plain Playwright loop, and programs of the peers."""

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, ImageChops
from playwright.async_api import BrowserContext, Page, async_playwright

from bench.installing import TOOLS, install, node
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine
from worker.browser.kinds import handlers
from worker.browser.launching import Launch
from worker.browser.targets import Targets
from worker.browser.visit import Visitor
from worker.computing.pool import Pool
from worker.handlers import Context, Done, File, Job

PROGRAMS = Path(__file__).resolve().parent / "browser_clients"
LOOKS: Any = {"viewport": {"width": 1280, "height": 720}, "reduced_motion": "reduce"}  # of a plain context

Shoot = Callable[[], Awaitable[bytes]]


class Way(Protocol):
    async def drive(self, slots: int, seconds: float) -> float:
        """All slots busy for so long; answers shots a second."""

    @property
    def picture(self) -> Shoot: ...


@dataclass(frozen=True)
class Loop:
    """In this process."""

    picture: Shoot

    async def drive(self, slots: int, seconds: float) -> float:
        began, count = time.perf_counter(), 0

        async def slot() -> None:
            nonlocal count
            while time.perf_counter() < began + seconds:
                await self.picture()
                count += 1

        await asyncio.gather(*(slot() for _ in range(slots)))
        return count / (time.perf_counter() - began)


class Program:
    """A program of `browser_clients`."""

    def __init__(self, command: list[str], settings: Mapping[str, str]) -> None:
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
        )

    async def drive(self, slots: int, seconds: float) -> float:
        answer = await asyncio.to_thread(self._ask, slots, seconds)
        return float(answer["shots"]) / float(answer["seconds"])

    async def picture(self) -> bytes:
        return base64.b64decode((await asyncio.to_thread(self._ask, 1, 0.1))["picture"])

    def _ask(self, slots: int, seconds: float) -> dict[str, Any]:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps({"slots": slots, "seconds": seconds}) + "\n")
        self._popen.stdin.flush()
        answer: dict[str, Any] = json.loads(self._popen.stdout.readline() or "{}")
        assert answer, f"{self._popen.args!r} ended"
        return answer

    def stop(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        try:
            self._popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def ours(
    engine: Engine, computing: Pool, url: str, payload: Mapping[str, Any], kind: str = "browser.screenshot"
) -> Loop:
    """The handler of a job, through the guard."""
    origin = "/".join(url.split("/")[:3])
    handle = handlers(Visitor(engine, Egress(Targets(frozenset({origin}))), 30, computing=computing))[kind]

    async def quiet(*_: object, **__: object) -> None: ...

    async def shoot() -> bytes:
        now = datetime.now(UTC)
        job = Job("job", kind, {"url": url, **payload}, "workspace", 1, False, now, now)
        outcome = await handle(job, Context(Path, quiet))
        assert isinstance(outcome, Done), outcome
        (file,) = outcome.files
        assert isinstance(file, File)
        assert isinstance(file.content, bytes)
        return file.content

    return Loop(shoot)


def plain(context: BrowserContext, url: str, options: Mapping[str, Any]) -> Loop:
    """What anybody would write: a page a job in one context, page.screenshot."""

    async def shoot() -> bytes:
        page = await context.new_page()
        try:
            return await _taken(page, url, options)
        finally:
            await page.close()

    return Loop(shoot)


def plain_and_clean(shared: BrowserContext, url: str, options: Mapping[str, Any]) -> Loop:
    """The same in that browser, with a new context a job."""
    browser = shared.browser
    assert browser is not None

    async def shoot() -> bytes:
        context = await browser.new_context(**LOOKS)
        try:
            return await _taken(await context.new_page(), url, options)
        finally:
            await context.close()

    return Loop(shoot)


async def _taken(page: Page, url: str, options: Mapping[str, Any]) -> bytes:
    await page.goto(url)
    if options.get("pdf"):
        return await page.pdf(format="A4", print_background=True)
    if "selector" in options:
        return await page.locator(options["selector"]).first.screenshot(animations="disabled")
    return await page.screenshot(animations="disabled", **options)


class Unguarded(Engine):
    """With the same contexts, but past the proxy: what the guard costs is the difference."""

    @asynccontextmanager
    async def context(self, *, alone: bool = False, **options: Any) -> AsyncIterator[BrowserContext]:
        del options["proxy"]
        async with super().context(alone=alone, **options) as context:
            yield context


class UnguardedLaunch(Launch):
    def _options(self, sandboxed: bool) -> dict[str, Any]:
        return {**super()._options(sandboxed), "proxy": None}


@asynccontextmanager
async def plain_context(launch: Launch) -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=launch.program())
        yield await browser.new_context(**LOOKS)
        await browser.close()


@contextmanager
def peers(url: str) -> Iterator[dict[str, Program]]:
    python = install(PROGRAMS)
    cluster = [node(), str(TOOLS / "puppeteer_cluster.mjs")]
    shared = {"BENCH_URL": url, "BENCH_BROWSER": Launch().program() or ""}
    commands = {
        "puppeteer-cluster, context": (cluster, {"BENCH_MODE": "CONCURRENCY_CONTEXT"}),
        "puppeteer-cluster, page": (cluster, {"BENCH_MODE": "CONCURRENCY_PAGE"}),
        "capture-website": ([node(), str(TOOLS / "capture_website.mjs")], {}),
        "shot-scraper multi": ([str(python), str(PROGRAMS / "shot_scraper_client.py")], {}),
    }
    with ExitStack() as stack:
        started = {}
        for name, (command, settings) in commands.items():
            started[name] = Program(command, {**shared, **settings})
            stack.callback(started[name].stop)
        yield started


@contextmanager
def pages() -> Iterator[str]:
    """The origin of the served pages."""
    command = [sys.executable, "-m", "bench.browser_pages"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def difference(one: bytes, other: bytes) -> int:
    """The largest difference of any channel of any pixel."""
    first, second = (Image.open(io.BytesIO(data)).convert("RGB") for data in (one, other))
    assert first.size == second.size, f"{first.size} and {second.size}"
    return max(int(most) for _, most in ImageChops.difference(first, second).getextrema())  # type: ignore[misc]
