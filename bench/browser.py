"""A fresh context for each job, through the guard, beside a raw Playwright loop that shares one context.

Both loops run in this process with the same number of slots, each with a browser of its own, in alternating short
rounds; a figure is the median ratio of the rounds. The pictures of both are compared pixel by pixel first.
"""

import asyncio
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops
from playwright.async_api import BrowserContext, async_playwright

from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine
from worker.browser.kinds import handlers
from worker.browser.launching import Launch
from worker.browser.targets import Targets
from worker.browser.visit import Visitor
from worker.handlers import Context, Done, Job

ROUND_SECONDS = 2.5
ROUNDS = 6
SLOTS = (1, 2, 3)

# What a job asks for, and the same for the raw loop.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "viewport png": ({}, {}, "/text"),
    "viewport png, 30 requests": ({}, {}, "/many"),
    "viewport jpeg": ({"format": "jpeg"}, {"type": "jpeg", "quality": 80}, "/text"),
    "full page png": ({"fullPage": True, "scroll": False}, {"full_page": True}, "/text"),
    "element png": ({"selector": "p"}, {"selector": "p"}, "/text"),
    "pdf": ({}, {"pdf": True}, "/text"),
}

Shoot = Callable[[], Awaitable[bytes]]


@contextmanager
def pages():  # type: ignore[no-untyped-def]
    """The origin of the served pages."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.browser_pages"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def ours(engine: Engine, origin: str, options: dict[str, Any], path: str, kind: str) -> Shoot:
    handle = handlers(Visitor(engine, Egress(Targets(frozenset({origin}))), 30))[kind]
    payload = {"url": origin + path, **options}

    async def shoot() -> bytes:
        now = datetime.now(UTC)
        outcome = await handle(Job("j", kind, payload, "w", 1, False, now, now), Context(Path, _quiet))
        assert isinstance(outcome, Done), outcome
        content = outcome.files[0].content
        assert isinstance(content, bytes)
        return content

    return shoot


async def _quiet(*_: object, **__: object) -> None: ...


def raw(context: BrowserContext, origin: str, options: dict[str, Any], path: str) -> Shoot:
    async def shoot() -> bytes:
        page = await context.new_page()
        try:
            await page.goto(origin + path)
            if options.get("pdf"):
                return await page.pdf(format="A4", print_background=True)
            if "selector" in options:
                return await page.locator(options["selector"]).first.screenshot(animations="disabled")
            return await page.screenshot(animations="disabled", **options)
        finally:
            await page.close()

    return shoot


async def rate(shoot: Shoot, slots: int) -> float:
    """Jobs a second, all slots busy."""
    began, count = time.perf_counter(), 0
    ends = began + ROUND_SECONDS

    async def slot() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await shoot()
            count += 1

    await asyncio.gather(*(slot() for _ in range(slots)))
    return count / (time.perf_counter() - began)


def difference(one: bytes, other: bytes) -> int:
    """The largest difference of any channel of any pixel."""
    first, second = (Image.open(io.BytesIO(data)).convert("RGB") for data in (one, other))
    assert first.size == second.size, f"{first.size} and {second.size}"
    return max(most for _, most in ImageChops.difference(first, second).getextrema())  # type: ignore[misc]


async def compare(ways: dict[str, Shoot], slots: int, rounds: int = ROUNDS) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for shoot in ways.values():
        await asyncio.gather(*(shoot() for _ in range(slots)))
    for turn in range(rounds):
        names = list(ways) if turn % 2 == 0 else list(ways)[::-1]
        for name in names:
            rates[name].append(await rate(ways[name], slots))
    return rates


async def run(cases: list[str]) -> None:
    launch = Launch()
    with pages() as origin:
        async with Engine.running(launch) as engine, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=launch.program())
            context = await browser.new_context(
                viewport={"width": 1280, "height": 720}, reduced_motion="reduce"
            )
            print(f"{'':28}{'slots':>6}{'ours/s':>9}{'raw/s':>9}{'ratio':>8}   pixels")
            for name in cases:
                options, plain, path = CASES[name]
                kind = "browser.pdf" if plain.get("pdf") else "browser.screenshot"
                ways = {
                    "ours": ours(engine, origin, options, path, kind),
                    "raw": raw(context, origin, plain, path),
                }
                pixels = (
                    "-" if plain.get("pdf") else str(difference(await ways["ours"](), await ways["raw"]()))
                )
                for slots in SLOTS:
                    rates = await compare(ways, slots)
                    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["raw"], strict=True))
                    print(
                        f"{name:28}{slots:6}{statistics.median(rates['ours']):9.1f}"
                        f"{statistics.median(rates['raw']):9.1f}{ratio:8.2f}   {pixels}",
                        flush=True,
                    )
            await browser.close()


def measure() -> None:
    asyncio.run(run(list(CASES)))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:] or list(CASES)))
