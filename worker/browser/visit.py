"""Opens a page as the options say and brings it to rest: what every browser job does before its own work."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import BrowserContext, Page, Response
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from worker.browser import scripts
from worker.browser.budget import Budget
from worker.browser.engine import Engine
from worker.browser.faults import Fault, of_driver, of_status
from worker.browser.guard import Guard, shown_url, storable
from worker.browser.options import PageOptions, invalid
from worker.browser.targets import Target, Targets

log = logging.getLogger(__name__)

_CONTEXT_SECONDS = 10.0
_WAIT_SECONDS = 30.0  # all waits together
_CALM_MS = 3000  # for fonts, and for pictures; then the page is taken as it is
_SLACK_SECONDS = 0.3  # between a limit of the driver and ours
_SCROLL_SECONDS = 10.0
_SCROLL_STEPS = 50
_SCROLL_PAUSE_SECONDS = 0.05  # lets an observer fire and its picture be asked for


@dataclass(slots=True)
class Visit:
    """A page at rest."""

    context: BrowserContext
    page: Page
    response: Response | None  # None for html
    guard: Guard
    scale: float  # device pixels a CSS pixel
    mobile: bool
    title: str = ""
    late: list[str] = field(default_factory=list)  # what was not waited for to its end: fonts, images
    timings: dict[str, int] = field(default_factory=dict)  # the browser's own, ms after the navigation began

    async def result(self, action: str, url: str | None) -> dict[str, Any]:
        """What every browser job's result says."""
        response = self.response
        return {
            "action": action,
            "url": shown_url(url) if url else None,
            "finalUrl": shown_url(self.page.url),
            "status": response.status if response else None,
            "title": storable(self.title)[:1000],
            "redirects": await _redirects(response),
            "contentType": response.headers.get("content-type") if response else None,
            "partial": bool(self.late),
            "fallback": False,
            **self.guard.report(),
        }


class Visitor:
    """Makes visits. `nav_seconds`: the longest that a page may load."""

    def __init__(self, engine: Engine, targets: Targets, nav_seconds: float) -> None:
        self._engine = engine
        self._targets = targets
        self._nav_seconds = nav_seconds

    @asynccontextmanager
    async def visit(
        self, options: PageOptions, budget: Budget, *, scroll: bool = False, everywhere: bool = False
    ) -> AsyncIterator[Visit]:
        """Raises Faults, of the block as well. `everywhere`: the whole page will be seen, not just the
        view."""
        target = await self._targets.check(options.url) if options.url is not None else None
        guard = Guard(self._targets, options)
        try:
            chosen = await self._context_options(options, target)
            async with self._engine.context(**chosen) as context:
                async with budget.stage(
                    "context", _CONTEXT_SECONDS, "browser_unavailable", "The browser is stuck."
                ):
                    page = await self._page(context, guard, options)
                response = await self._navigate(page, options, budget)
                visit = Visit(
                    context,
                    page,
                    response,
                    guard,
                    chosen.get("device_scale_factor", 1),
                    chosen.get("is_mobile", False),
                )
                await self._settle(visit, options, budget, scroll=scroll, everywhere=everywhere)
                await guard.verify()
                yield visit
        except Exception as error:
            fault = of_driver(error)
            if fault is None:
                raise
            log.info("the browser says: %s", str(error)[:500])
            if guard.crashed:
                fault = Fault("page_crashed", "The page's process crashed.")
            raise guard.refusal or fault from error

    async def _context_options(self, options: PageOptions, target: Target | None) -> dict[str, Any]:
        chosen: dict[str, Any] = {
            "viewport": {"width": 1280, "height": 720},
            "user_agent": await self._engine.user_agent(),
        }
        if options.device is not None:
            device = await self._engine.device(options.device)
            if device is None:
                raise invalid("device", "is not a device that the browser knows, such as 'iPhone 15'")
            chosen |= {
                key: value for key, value in device.items() if key not in ("default_browser_type", "screen")
            }
        if options.viewport is not None:
            chosen["viewport"] = options.viewport.model_dump()
        wished = {
            "device_scale_factor": options.scale,
            "user_agent": options.user_agent,
            "locale": options.locale,
            "timezone_id": options.timezone,
            "extra_http_headers": options.headers or None,
        }
        chosen |= {key: value for key, value in wished.items() if value is not None}
        if options.http_auth is not None and target is not None:
            chosen["http_credentials"] = {**options.http_auth.model_dump(), "origin": target.origin}
        return chosen | {
            "color_scheme": options.color_scheme,
            "reduced_motion": options.reduced_motion,
            "java_script_enabled": options.javascript,
            "accept_downloads": False,
            "service_workers": "block",
        }

    @staticmethod
    async def _page(context: BrowserContext, guard: Guard, options: PageOptions) -> Page:
        try:
            if options.cookies:
                await context.add_cookies(
                    [_cookie(cookie.model_dump(exclude_none=True)) for cookie in options.cookies]
                )
        except PlaywrightError as error:
            raise invalid("cookies", "the browser does not take one of them") from error
        try:
            page = await guard.attach(context)
        except PlaywrightError as error:
            # A locale or time zone is only looked at when a page is made.
            for name, word in (("timezone", "timezone"), ("locale", "locale")):
                if word in error.message.lower() and getattr(options, name) is not None:
                    raise invalid(name, "is not known to the browser") from error
            raise
        if options.media == "print":
            await page.emulate_media(media="print")
        return page

    async def _navigate(self, page: Page, options: PageOptions, budget: Budget) -> Response | None:
        # The driver's own limit comes first: it stops the navigation. Ours is for a driver that is stuck.
        seconds = max(0.05, budget.left(self._nav_seconds + _SLACK_SECONDS) - _SLACK_SECONDS)
        until = "load" if options.wait_until == "networkidle" else options.wait_until
        limit_ms = seconds * 1000
        async with budget.stage(
            "navigate", seconds + _SLACK_SECONDS, "page_hung", "The page does not answer."
        ):
            try:
                if options.html is not None:
                    await page.set_content(options.html, wait_until=until, timeout=limit_ms)
                    return None
                response = await page.goto(options.url or "", wait_until=until, timeout=limit_ms)
            except PlaywrightTimeout as error:
                raise Fault("navigation_timeout", f"The page did not load within {seconds:.1f} s.") from error
        if response is None:
            raise Fault("not_a_page", "The address gave no page.")
        if options.fails_on(response.status):
            raise of_status(response.status, response.headers.get("retry-after"))
        return response

    async def _settle(
        self, visit: Visit, options: PageOptions, budget: Budget, *, scroll: bool, everywhere: bool
    ) -> None:
        page, limit = visit.page, _WAIT_SECONDS
        async with budget.stage("wait", limit, "page_hung", "The page is busy and does not answer."):
            if options.wait_until == "networkidle":
                try:
                    await page.wait_for_load_state(
                        "networkidle", timeout=max(1.0, budget.left(limit) * 1000 - 200)
                    )
                except PlaywrightTimeout as error:
                    raise Fault("wait_timeout", "The page's network did not become idle.") from error
            await self._dress(page, options)
            if options.wait_for_selector is not None:
                await present(page, options.wait_for_selector, "waitForSelector", budget.left(limit))
            if scroll:
                await self._scroll_through(page)
            if options.delay_ms:
                await visit.guard.stays(options.delay_ms / 1000)  # what comes next fails if it did not
            state = await page.evaluate(
                scripts.SETTLE,
                {
                    "fonts": options.wait_for_fonts,
                    "images": options.wait_for_images,
                    "everywhere": everywhere,
                    "freeze": options.animations == "disabled",
                    "ms": _CALM_MS,
                    "scripted": options.javascript,
                },
            )
            visit.late, visit.timings, visit.title = state["late"], state["timings"], state["title"]

    @staticmethod
    async def _dress(page: Page, options: PageOptions) -> None:
        """Style and script of the job."""
        for name, selectors in (("hide", options.hide), ("remove", options.remove)):
            if selectors and (wrong := await page.evaluate(scripts.WRONG_SELECTOR, selectors)) >= 0:
                raise invalid(f"{name}.{wrong}", "is no CSS selector")
        rules = [f"{selector} {{ visibility: hidden !important; }}" for selector in options.hide]
        rules += [f"{selector} {{ display: none !important; }}" for selector in options.remove]
        if options.css is not None:
            rules.append(options.css)
        if rules:
            await page.evaluate(scripts.ADD_STYLE, "\n".join(rules))
        if options.js is not None:
            try:
                await page.evaluate(f"async () => {{\n{options.js}\n}}")
            except PlaywrightError as error:
                if "closed" in error.message or "crashed" in error.message or "destroyed" in error.message:
                    raise
                reason = error.message.removeprefix("Page.evaluate: ").split("\n")[0][:300]
                raise Fault("script_error", f"payload.js failed: {reason}.", field="payload.js") from error

    @staticmethod
    async def _scroll_through(page: Page) -> None:
        try:
            async with asyncio.timeout(_SCROLL_SECONDS):
                for step in range(1, _SCROLL_STEPS):
                    if not await page.evaluate(scripts.SCROLL_STEP, step):
                        break
                    await asyncio.sleep(_SCROLL_PAUSE_SECONDS)
        except TimeoutError:
            pass  # a page that grows while it is read is taken as far as it came
        await page.evaluate(scripts.SCROLL_BACK)


async def present(page: Page, selector: str, name: str, seconds: float) -> Any:
    """The first element that `selector` finds, once it can be seen. Raises Fault `selector_not_found`, or
    `invalid_payload` when it is no selector."""
    found = page.locator(selector).first
    try:
        await found.wait_for(state="visible", timeout=max(1.0, (seconds - _SLACK_SECONDS) * 1000))
    except PlaywrightTimeout as error:
        raise Fault(
            "selector_not_found", f"payload.{name} finds nothing visible.", field=f"payload.{name}"
        ) from error
    except PlaywrightError as error:
        if "selector" in error.message.lower() and "closed" not in error.message:
            raise invalid(name, "is no selector") from error
        raise
    return found


def _cookie(values: dict[str, Any]) -> Any:
    names = {"http_only": "httpOnly", "same_site": "sameSite"}
    cookie = {names.get(name, name): value for name, value in values.items()}
    return cookie if "url" in cookie else {"path": "/", **cookie}


async def _redirects(response: Response | None) -> list[dict[str, Any]]:
    """From the first address to the last but one."""
    chain: list[dict[str, Any]] = []
    request = response.request.redirected_from if response else None
    while request is not None and len(chain) < 20:
        answer = await request.response()
        chain.append({"url": shown_url(request.url), "status": answer.status if answer else None})
        request = request.redirected_from
    return chain[::-1]
