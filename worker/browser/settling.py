"""Brings a loaded page to rest: the job's own changes, its waits, then fonts, pictures and animations."""

import asyncio
import contextlib
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page
from playwright.async_api import TimeoutError as PlaywrightTimeout
from pydantic import Field

from worker.browser import nuisances, scripts
from worker.browser.asking import Answer, Line, ask
from worker.browser.budget import Budget
from worker.browser.faults import Fault, invalid
from worker.browser.options.page import PageOptions
from worker.browser.watch import Watch

WAIT_SECONDS = 30.0  # all waits together
SLACK_SECONDS = 0.3  # between a limit of the driver and ours
_CALM_MS = 3000  # for fonts, and for pictures; then the page is taken as it is
_SCROLL_SECONDS = 10.0
_SCROLL_STEPS = 50
_SCROLL_PAUSE_SECONDS = 0.05  # lets an observer fire and its picture be asked for
# The driver's errors that say nothing of a job's script: what it throws may hold the single words.
_OF_THE_PAGE = ("has been closed", "Target closed", "Page crashed", "Target crashed", "was destroyed")
_FRAME_SECONDS = 1.0  # for what is done in a frame; one that is busy is taken as it is


class _Rested(Answer):
    late: list[str]
    title: str = ""
    timings: dict[str, int] = Field(default={})


class Settling:
    """One a job. `late` collects what was not waited for to its end."""

    def __init__(self, page: Page, line: Line, watch: Watch, options: PageOptions, budget: Budget) -> None:
        self.late: list[str] = []
        self.title = ""
        self.timings: dict[str, int] = {}  # the browser's own, ms after the navigation began
        self._page = page
        self._line = line
        self._watch = watch
        self._options = options
        self._budget = budget

    async def settle(self, *, scroll: bool, everywhere: bool) -> None:
        """Raises Fault. `everywhere`: the whole page will be seen, not just the view."""
        options = self._options
        async with self._stage():
            if options.wait_until == "networkidle":
                await self._or_late(self._network_idle(), "network")
            await self._dress()
            await self._act()
            if options.wait_for_selector is not None:
                await self._or_late(
                    present(self._page, options.wait_for_selector, "waitForSelector", self._left), "selector"
                )
            if options.wait_for_function is not None:
                await self._or_late(self._function(options.wait_for_function), "function")
            if scroll:
                await self._scroll_through()
            if options.scroll_to is not None:
                target = await present(self._page, options.scroll_to, "scrollTo", self._left)
                await target.evaluate(scripts.SCROLL_TO)
            if options.delay_ms:
                await self._watch.stays(options.delay_ms / 1000)  # what comes next fails if it did not
            await self._rest(everywhere)

    async def rest(self, *, everywhere: bool) -> None:
        """Once more, after the page was given another size or look. Raises Fault."""
        async with self._stage():
            await self._rest(everywhere)

    def _stage(self) -> "contextlib.AbstractAsyncContextManager[None]":
        return self._budget.stage("wait", WAIT_SECONDS, "page_hung", "The page is busy and does not answer.")

    @property
    def _left(self) -> float:
        """Seconds; with `bestAttempt` a third of what is left, since there is still a picture to take."""
        left = self._budget.left(WAIT_SECONDS)
        return left / 3 if self._options.best_attempt else left

    async def _or_late(self, wait: Any, what: str) -> None:
        try:
            await wait
        except Fault as fault:
            if not self._options.best_attempt or fault.code not in ("wait_timeout", "selector_not_found"):
                raise
            self.late.append(what)

    async def _network_idle(self) -> None:
        try:
            await self._page.wait_for_load_state("networkidle", timeout=max(1.0, self._left * 1000 - 200))
        except PlaywrightTimeout as error:
            raise Fault("wait_timeout", "The page's network did not become idle.") from error

    async def _function(self, expression: str) -> None:
        try:
            await self._page.wait_for_function(
                expression, timeout=max(1.0, (self._left - SLACK_SECONDS) * 1000)
            )
        except PlaywrightTimeout as error:
            raise Fault("wait_timeout", "payload.waitForFunction did not become true.") from error
        except PlaywrightError as error:
            raise _script_fault(error, "waitForFunction") from error

    async def _dress(self) -> None:
        """Style and script of the job."""
        options, page = self._options, self._page
        for name, selectors in (("hide", options.hide), ("remove", options.remove)):
            if selectors and (wrong := await ask(self._line, scripts.WRONG_SELECTOR, int, selectors)) >= 0:
                raise invalid(f"{name}.{wrong}", "is no CSS selector")
        rules = [f"{selector} {{ visibility: hidden !important; }}" for selector in options.hide]
        removed = [*options.remove, *(nuisances.CONSENT_BOXES if options.cookie_banners == "hide" else ())]
        rules += [f"{selector} {{ display: none !important; }}" for selector in removed]
        if options.cookie_banners == "hide":
            rules.append(
                "html, body { overflow: visible !important; }"
            )  # consent boxes lock the page's scrolling
        if options.css is not None:
            rules.append(options.css)
        if rules:
            await self._line.evaluate(scripts.ADD_STYLE, "\n".join(rules))
        if options.js is not None:
            try:
                await page.evaluate(scripts.RUN.replace("<SCRIPT>", options.js))
            except PlaywrightError as error:
                raise _script_fault(error, "js") from error

    async def _act(self) -> None:
        for index, selector in enumerate(self._options.click):
            name = f"click.{index}"
            await present(self._page, selector, name, self._left)
            try:
                await self._page.click(selector, timeout=max(1.0, (self._left - SLACK_SECONDS) * 1000))
            except PlaywrightTimeout as error:
                raise Fault(
                    "selector_not_found",
                    f"payload.{name} finds what cannot be clicked.",
                    field=f"payload.{name}",
                ) from error

    async def _rest(self, everywhere: bool) -> None:
        options = self._options
        freeze = options.animations == "disabled"
        if freeze and len(self._page.frames) > 1:
            await asyncio.gather(*(self._freeze(frame) for frame in self._page.frames[1:]))
        wished = {
            "fonts": options.wait_for_fonts,
            "images": options.wait_for_images,
            "everywhere": everywhere,
            "freeze": freeze,
            "ms": min(_CALM_MS, max(1, round(self._left * 500))),
            "scripted": options.javascript,
        }
        try:
            state = await ask(self._line, scripts.SETTLE, _Rested, wished)
        except Fault:
            state = _Rested(late=["rest"])  # it can still be seen
        self.late += [what for what in state.late if what not in self.late]
        self.timings, self.title = state.timings, state.title

    @staticmethod
    async def _freeze(frame: Any) -> None:
        with contextlib.suppress(PlaywrightError, TimeoutError):
            async with asyncio.timeout(_FRAME_SECONDS):
                await frame.evaluate(scripts.FREEZE)

    async def _scroll_through(self) -> None:
        try:
            async with asyncio.timeout(_SCROLL_SECONDS):
                await ask(self._line, scripts.UNROLL, object)
                for step in range(1, _SCROLL_STEPS):
                    if not await ask(self._line, scripts.SCROLL_STEP, bool, step):
                        break
                    await asyncio.sleep(_SCROLL_PAUSE_SECONDS)
        except TimeoutError:
            pass  # a page that grows while it is read is taken as far as it came
        except Fault:
            self.late.append("scroll")
            return
        await self._line.evaluate(scripts.SCROLL_BACK)


async def present(page: Page, selector: str, name: str, seconds: float) -> Any:
    """The first element that `selector` finds, once it can be seen. Raises Fault `selector_not_found`, or
    `invalid_payload` when it is no selector."""
    try:
        limit_ms = max(1.0, (seconds - SLACK_SECONDS) * 1000)
        found = await page.wait_for_selector(selector, state="visible", timeout=limit_ms)
    except PlaywrightTimeout as error:
        raise Fault(
            "selector_not_found", f"payload.{name} finds nothing visible.", field=f"payload.{name}"
        ) from error
    except PlaywrightError as error:
        if "selector" in error.message.lower() and "closed" not in error.message:
            raise invalid(name, "is no selector") from error
        raise
    return found


def _script_fault(error: PlaywrightError, name: str) -> Exception:
    if any(words in error.message for words in _OF_THE_PAGE):
        return error
    reason = error.message.partition(": ")[2].split("\n")[0][:300]
    return Fault("script_error", f"payload.{name} failed: {reason}.", field=f"payload.{name}")
