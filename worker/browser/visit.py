"""Opens a page as the options say and brings it to rest: what every browser job does before its own work."""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from playwright.async_api import BrowserContext, Page, Response
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from worker.browser import identity
from worker.browser.asking import Line
from worker.browser.budget import Budget
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine
from worker.browser.faults import Fault, invalid, of_driver, of_status
from worker.browser.options.page import PageOptions
from worker.browser.settling import SLACK_SECONDS, Settling
from worker.browser.shown import short, shown_url, storable
from worker.browser.trace import Trace
from worker.browser.watch import Watch
from worker.computing.pool import Pool

log = logging.getLogger(__name__)

_CONTEXT_SECONDS = 10.0
_ORIGIN_SECONDS = 0.5  # more for each origin of a storage state, which is visited
_STAMP = 0.05  # of its size
_BEST_ATTEMPT_PART = 0.5  # of a job's time for the load, when its picture is wanted in any case


@dataclass(slots=True)
class Visit:
    """A page at rest."""

    context: BrowserContext
    page: Page
    line: Line
    response: Response | None  # None for html
    watch: Watch
    settling: Settling
    scale: float  # device pixels a CSS pixel
    mobile: bool
    view: dict[str, int]  # CSS pixels, as the job opened it
    computing: Pool  # for what is to be computed of the page
    cut_short: bool = False  # the load was not waited for to its end

    async def result(self, action: str, url: str | None) -> dict[str, Any]:
        """What every browser job's result says."""
        response = self.response
        return {
            "action": action,
            "url": shown_url(url) if url else None,
            "finalUrl": shown_url(self.page.url),
            "status": response.status if response else None,
            "title": storable(self.settling.title)[:1000],
            "redirects": await _redirects(response),
            "contentType": short(response.headers.get("content-type", "")) or None if response else None,
            "partial": self.cut_short or bool(self.settling.late),
            "late": [*(["load"] if self.cut_short else []), *self.settling.late],
            "fallback": False,
            **self.watch.report(),
        }


class Visitor:
    """Makes visits. `nav_seconds`: the longest that a page may load."""

    def __init__(
        self,
        engine: Engine,
        egress: Egress,
        nav_seconds: float,
        allow_insecure_tls: bool = False,
        *,
        computing: Pool,
    ) -> None:
        self.nav_seconds = nav_seconds
        self._engine = engine
        self._egress = egress
        self._computing = computing
        self._allow_insecure_tls = allow_insecure_tls

    @property
    def ready(self) -> bool:
        """Whether there is a browser now."""
        return self._engine.ready

    @asynccontextmanager
    async def visit(
        self,
        options: PageOptions,
        budget: Budget,
        trace: Trace,
        *,
        scroll: bool = False,
        everywhere: bool = False,
        drawn: bool = True,
        alone: bool = False,
    ) -> AsyncIterator[Visit]:
        """Raises Faults, of the block as well. `everywhere`: the whole page will be seen, not just the view;
        `drawn`: as it is on the screen; `alone`: in a browser of its own."""
        if options.ignore_tls_errors and not self._allow_insecure_tls:
            raise invalid("ignoreTlsErrors", "is not allowed on this worker (BROWSER_ALLOW_INSECURE_TLS)")
        async with self._egress.door() as door:
            target = await door.enter(options.url) if options.url is not None else None
            watch = Watch(options, door)
            try:
                chosen = await identity.of(options, target, self._engine)
                # The second name keeps Chromium from reaching loopback past the proxy, as it would by itself.
                proxy = {"server": door.url, "bypass": "<-loopback>"}
                async with (
                    self._engine.context(alone=alone, proxy=proxy, **chosen) as context,
                    trace.of(context),
                    watch.while_there(),
                ):
                    seconds = _CONTEXT_SECONDS + _ORIGIN_SECONDS * options.stored_origins
                    async with budget.stage(
                        "context", seconds, "browser_unavailable", "The browser is stuck."
                    ):
                        page = await self._page(context, watch, options)
                        line = Line(context, page)
                        await identity.emulate(page, line, options)
                        if not (drawn or options.click or options.trace or chosen.get("is_mobile")):
                            await _draw_small(line, chosen["viewport"], chosen.get("device_scale_factor", 1))
                    settling = Settling(page, line, watch, options, budget)
                    visit = Visit(
                        context,
                        page,
                        line,
                        None,
                        watch,
                        settling,
                        chosen.get("device_scale_factor", 1),
                        chosen.get("is_mobile", False),
                        chosen["viewport"],
                        self._computing,
                    )
                    with watch.loading():
                        await self._navigate(visit, options, budget)
                    await settling.settle(scroll=scroll, everywhere=everywhere)
                    watch.verify()
                    yield visit
            except Exception as error:
                fault = of_driver(error)
                if fault is None and not isinstance(error, Fault):
                    raise
                if fault is not None:
                    log.info("the browser says: %s", str(error)[:500])
                trace.note(watch.report())
                raise await watch.explain(fault or error) from error  # type: ignore[arg-type]

    @staticmethod
    async def _page(context: BrowserContext, watch: Watch, options: PageOptions) -> Page:
        await identity.add_cookies(context, options)
        try:
            return await watch.attach(context)
        except PlaywrightError as error:
            raise identity.of_page_error(error, options) from error

    async def _navigate(self, visit: Visit, options: PageOptions, budget: Budget) -> None:
        # The driver's own limit comes first: it stops the navigation. Ours is for a driver that is stuck, as
        # one is whose page opens one dialog after the other.
        seconds = max(0.05, budget.left(self.nav_seconds + SLACK_SECONDS) - SLACK_SECONDS)
        if options.best_attempt:
            seconds *= _BEST_ATTEMPT_PART
        until = "load" if options.wait_until == "networkidle" else options.wait_until
        page, limit_ms, late = visit.page, seconds * 1000, f"The page did not load within {seconds:.1f} s."
        async with budget.stage("navigate", seconds + SLACK_SECONDS, "navigation_timeout", late):
            try:
                if options.html is not None:
                    await page.set_content(options.html, wait_until=until, timeout=limit_ms)
                    return
                visit.response = await page.goto(options.url or "", wait_until=until, timeout=limit_ms)
            except PlaywrightTimeout as error:
                if not options.best_attempt or (options.html is None and visit.watch.response is None):
                    raise Fault("navigation_timeout", late) from error
                visit.cut_short, visit.response = True, visit.watch.response
                with contextlib.suppress(PlaywrightError):
                    await visit.line.send("Page.stopLoading")
                if options.html is not None:
                    return
        if visit.response is None:
            raise Fault("not_a_page", "The address gave no page.")
        if options.fails_on(visit.response.status):
            raise of_status(visit.response.status, visit.response.headers)


async def _draw_small(line: Line, view: Mapping[str, int], scale: float) -> None:
    """Shows the page on a stamp: what it says of itself stays the same, but Chromium has a sixth less to do.
    Only clicks would miss."""
    width, height = view["width"], view["height"]
    await line.send(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        screenWidth=width,
        screenHeight=height,
        deviceScaleFactor=scale,
        mobile=False,
        scale=_STAMP,
    )


async def _redirects(response: Response | None) -> list[dict[str, Any]]:
    """From the first address to the last but one."""
    chain: list[dict[str, Any]] = []
    request = response.request.redirected_from if response else None
    while request is not None and len(chain) < 20:
        answer = await request.response()
        chain.append({"url": shown_url(request.url), "status": answer.status if answer else None})
        request = request.redirected_from
    return chain[::-1]
