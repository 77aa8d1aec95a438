"""Nothing inside can be reached, whatever way a page or a payload tries; and each way is one: it works in a browser
without the guard."""

import asyncio
import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, async_playwright
from playwright.async_api import Error as PlaywrightError

from tests.worker.guard.servers import Inside, Site, inside, site
from tests.worker.guard.vectors import WAYS
from tests.worker.pools import computing
from worker.browser.addresses import IPAddress
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine
from worker.browser.kinds import handlers
from worker.browser.launching import Launch
from worker.browser.targets import Targets
from worker.browser.visit import Visitor
from worker.handlers import Context, Done, GiveUp, Job, Outcome

# Not tried by this browser, or not each time, when nobody hinders it: little would be shown by refusing them.
NOT_LIVE = {"css-svg-filter", "img-attributionsrc", "link-preconnect", "worker-module"}
# A few of each kind; all of them take a minute and more.
QUICK = (
    "img", "css-import", "frame-redirect", "go-location", "redirect-307", "fetch", "beacon-pagehide", "web-socket",
    "worker", "rtc-stun", "payload-js", "print-css", "spelled-2130706433", "named-moving.test",
)  # fmt: skip
PUBLIC = "93.184.215.14"
ANSWERS: dict[str, list[list[str]]] = {  # one after the other, the last for ever
    "inside.test": [["127.0.0.1"]],
    "mixed.test": [[PUBLIC, "127.0.0.1"]],
    "mapped.test": [["::ffff:127.0.0.1"]],
    "moving.test": [[PUBLIC], ["127.0.0.1"]],
    "nat64.test": [["64:ff9b::7f00:1"]],
}
AT_ONCE = 3
LIVE_SECONDS = 30.0


class Resolver:
    """Answers as `ANSWERS` has it; remembers how often it was asked."""

    def __init__(self) -> None:
        self.asked: defaultdict[str, int] = defaultdict(int)

    async def __call__(self, host: str) -> list[IPAddress]:
        turns = ANSWERS[host]
        answer = turns[min(self.asked[host], len(turns) - 1)]
        self.asked[host] += 1
        return [ipaddress.ip_address(address) for address in answer]


@pytest.fixture(scope="module")
def place() -> Iterator[Inside]:
    with inside() as served:
        yield served


@pytest.fixture(scope="module")
def pages(place: Inside) -> Iterator[Site]:
    with site(place) as served:
        yield served


async def guarded(engine: Engine, place: Inside, pages: Site, name: str) -> tuple[Outcome, dict[str, int]]:
    """The job's outcome, and what it counted."""
    counted: dict[str, int] = {}
    egress = Egress(
        Targets(frozenset({pages.origin}), Resolver()),
        count=lambda key, amount: counted.update({key: int(amount)}),
    )
    way = WAYS[name]
    words = {**place.address(name), "site": pages.origin}
    payload = {
        key: value.format(**words) if isinstance(value, str) else value for key, value in way.payload.items()
    }
    if "html" not in payload:
        payload["url"] = f"{pages.origin}/way/{quote(name)}"
    payload |= {"delayMs": 500, "timeoutMs": 60_000}
    now = datetime.now(UTC)
    handle = handlers(Visitor(engine, egress, 60, computing=computing()))[way.kind]
    outcome = await handle(Job("job", way.kind, payload, "w", 1, False, now, now), Context(Path, _quiet))
    return outcome, counted


async def _quiet(*_: object, **__: object) -> None: ...


async def try_all(engine: Engine, place: Inside, pages: Site, names: list[str]) -> list[str]:
    """What went wrong, in sentences."""
    wrong: list[str] = []
    left = iter(names)

    async def slot() -> None:
        for name in left:
            way = WAYS[name]
            outcome, counted = await guarded(engine, place, pages, name)
            if way.kills_page and not (
                isinstance(outcome, GiveUp) and outcome.error.code in ("blocked_address", "not_a_page")
            ):
                wrong.append(f"{name}: a page that went inside ended as {outcome}"[:300])
            if not way.kills_page and not isinstance(outcome, Done):
                wrong.append(f"{name}: the page itself failed: {outcome}"[:300])
            if "html" not in way.payload and quote(name) not in pages.seen:
                wrong.append(f"{name}: the page did not run")
            if name in COUNTED and not counted["browser_refused_requests_total"]:
                wrong.append(f"{name}: nothing was refused")

    await asyncio.gather(*(slot() for _ in range(AT_ONCE)))
    return wrong


# Refused by the proxy, and not before by the browser itself.
COUNTED = {
    "img",
    "css-import",
    "frame-redirect",
    "redirect-307",
    "fetch",
    "web-socket",
    "worker",
    "payload-js",
}


async def test_nothing_inside_is_reached_in_a_few_ways(engine: Engine, place: Inside, pages: Site) -> None:
    before = place.connections
    assert await try_all(engine, place, pages, list(QUICK)) == []
    assert place.connections == before, {name: count for name, count in place.hits.items() if count}


@pytest.mark.soak
async def test_nothing_inside_is_reached_in_any_way(engine: Engine, place: Inside, pages: Site) -> None:
    before = place.connections
    assert await try_all(engine, place, pages, list(WAYS)) == []
    assert place.connections == before, {name: count for name, count in place.hits.items() if count}
    assert len(WAYS) - len(NOT_LIVE) >= 110


@pytest.mark.soak
async def test_each_way_works_without_the_guard(place: Inside, pages: Site) -> None:
    launch = Launch()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=launch.program(), args=["--host-resolver-rules=MAP *.test 127.0.0.1"]
        )
        place.hits.clear()
        left = iter(WAYS)

        async def slot() -> None:
            for name in left:
                await unguarded(browser, place, pages, name)

        await asyncio.gather(*(slot() for _ in range(AT_ONCE)))
        for name in WAYS:
            if name not in NOT_LIVE and not place.hits[quote(name)]:
                await unguarded(browser, place, pages, name)  # once more, with the browser to itself
        await browser.close()
    dead = {name for name in WAYS if not place.hits[quote(name)]}
    assert dead <= NOT_LIVE


async def unguarded(browser: Browser, place: Inside, pages: Site, name: str) -> None:
    way = WAYS[name]
    words: dict[str, Any] = {**place.address(name), "site": pages.origin}
    context = await browser.new_context()
    page = await context.new_page()
    try:
        if "html" in way.payload:
            await page.set_content(way.payload["html"].format(**words), wait_until="commit")
        else:
            await page.goto(f"{pages.origin}/way/{quote(name)}", wait_until="commit")
            await page.wait_for_load_state("domcontentloaded")
        if "css" in way.payload:
            await page.add_style_tag(content=way.payload["css"].format(**words))
        if "js" in way.payload:
            await page.evaluate(f"async () => {{ {way.payload['js'].format(**words)} }}")
        if way.kind == "browser.pdf":
            await page.wait_for_load_state()
            await page.pdf()
        if name == "beacon-pagehide":
            await page.goto("about:blank")
        async with asyncio.timeout(LIVE_SECONDS if name not in NOT_LIVE else 0.5):
            while not place.hits[quote(name)]:  # noqa: ASYNC110  counted by threads of the servers
                await asyncio.sleep(0.02)
    except (PlaywrightError, TimeoutError):
        pass  # the page may be on its way elsewhere; what counts is who came
    finally:
        await context.close()
