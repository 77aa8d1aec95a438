"""Watches a job's page: what failed in it, whether it crashed, whether it went where no page may be."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, Response, Route
from playwright.async_api import Error as PlaywrightError

from worker.browser import nuisances, scripts
from worker.browser.egress.door import Door
from worker.browser.faults import Fault
from worker.browser.globs import Globs
from worker.browser.options.page import PageOptions
from worker.browser.relay import LEFT_OUT
from worker.browser.scripts import MAX_MESSAGES
from worker.browser.shown import FirstFew, short, shown_url

_NOWHERE_SECONDS = 3.0  # for a page that loads no further since it went to an app, or by mail
_NEWS_SECONDS = 0.3  # what failed is told on a way of its own, a little after the failure
# Each costs the driver, and with it every other page, some work: a page that goes on beyond is ended.
_MOST_SAID = 5_000_000  # characters of all messages
_MOST_POPUPS = 50
_LEFT_OUT = re.compile(f"(?:Error: )?{LEFT_OUT} ([A-Za-z]{{1,20}}) ([0-9]{{1,12}})")
_PAGES = ("http", "https", "about", "data", "blob", "chrome-error", "")  # schemes that a page may have


class Watch:
    """One a job. The proxy is the wall; what is blocked here is what the job itself does not want."""

    def __init__(self, options: PageOptions, door: Door) -> None:
        self._door = door
        self._options = options
        self._types = frozenset(options.block_resources)
        self._globs = Globs(options.block_urls)
        self._page: Page | None = None
        self._console = FirstFew()
        self._failed = FirstFew()
        self._wanted = 0  # requests that the job itself blocked
        self._resources_failed = 0
        self._lost_url: str | None = None  # where the page itself last failed to go
        self._lost = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()
        self._messages = 0
        self._said = 0
        self._popups = 0
        self._over: Fault | None = None  # the page was ended
        self._loading = False
        self._crash = asyncio.Event()
        self._closed_itself = False  # before the job was done with it
        self.response: Response | None = None  # the page's own, as far as it was heard of

    async def attach(self, context: BrowserContext) -> Page:
        """Opens the context's one page, watched."""
        if self._types or self._globs or self._options.block_ads:
            await context.route("**/*", self._route)
        await context.add_init_script(scripts.QUIET)
        context.on("requestfailed", self._on_failed)
        self._page = page = await context.new_page()
        context.on("page", self._on_popup)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._hear(error.message, is_error=True))
        page.on("crash", self._on_crash)
        page.on("close", lambda _: self._gone.set())
        self._door.on_over = lambda: self._end(self._door.over)
        if self._options.best_attempt:
            page.on("response", self._on_response)
        return page

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        self._loading = True
        try:
            yield
        finally:
            self._loading = False

    @asynccontextmanager
    async def while_there(self) -> AsyncIterator[None]:
        """Ends the block at once when the page crashes: one that crashed answers nothing. Raises Fault
        `page_crashed`."""

        async def end(life: asyncio.Timeout) -> None:
            await self._crash.wait()
            life.reschedule(asyncio.get_running_loop().time())

        life = asyncio.timeout(None)
        try:
            async with life:
                ending = asyncio.create_task(end(life))
                try:
                    yield
                finally:
                    ending.cancel()
                    self._closed_itself = self._page is not None and self._page.is_closed()
        except TimeoutError as error:
            if life.expired():
                raise Fault("page_crashed", "The page's process crashed.") from error
            raise

    def verify(self) -> None:
        """When the page is seen, before and after: raises Fault if it is not what may be shown."""
        if self._ended is not None:
            raise self._ended
        if self._page is None:
            return
        if self._page.url.startswith("chrome-error:"):
            raise self._refusal() or Fault("not_a_page", "The page went to an address that does not open.")
        for frame in self._page.frames:
            if not _is_page(frame.url):
                raise Fault("blocked_scheme", "The page holds a frame that is no web page.")

    def judge(self) -> None:
        """Raises Fault when the job asked to fail on errors of the page, and there were some."""
        if self._options.fail_on_console_error and self._console.total:
            raise Fault(
                "page_error",
                f"The page logged {self._console.total} errors.",
                console=self._console.as_json(),
            )
        if self._options.fail_on_resource_error and self._resources_failed:
            raise Fault(
                "page_error",
                f"{self._resources_failed} requests of the page failed.",
                failedRequests=self._failed.as_json(),
            )

    async def stays(self, seconds: float) -> bool:
        """Waits so long; False at once when the page crashes or closes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        return not self._gone.is_set()

    async def explain(self, fault: Fault) -> Fault:
        """The same failure with what the proxy knows of it."""
        if fault.code in ("browser_crashed", "browser_stalled", "browser_unavailable", "memory_limit"):
            return fault  # whatever befell the page was but a part of that
        if self._crash.is_set():
            return Fault("page_crashed", "The page's process crashed.")
        if self._ended is not None:
            return self._ended
        if self._closed_itself:
            return Fault("page_closed", "The page closed itself.")
        if fault.details.get("netError") is None and fault.code != "not_a_page":
            return fault
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NEWS_SECONDS):
                await self._lost.wait()
        return self._refusal() or fault

    def report(self) -> dict[str, Any]:
        refused = self._door.refused
        return {
            "console": self._console.as_json(),
            "failedRequests": self._failed.as_json(),
            "blockedRequests": {"total": refused.total(), "hosts": sorted(refused)[:20]},
        }

    @property
    def _ended(self) -> Fault | None:
        return self._over or self._door.over

    def _refusal(self) -> Fault | None:
        return self._door.fault_of(self._lost_url) if self._lost_url is not None else None

    async def _route(self, route: Route) -> None:
        request = route.request
        unwanted = (
            request.resource_type in self._types
            or self._globs.match(request.url)
            or (self._options.block_ads and nuisances.is_ad(request.url))
        )
        with contextlib.suppress(PlaywrightError):  # the page is gone, and the request with it
            if unwanted and not self._is_main(request):
                self._wanted += 1
                await route.abort("blockedbyclient")
            else:
                await route.continue_()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(PlaywrightError):  # the page is gone
                await work

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_main(self, request: Request) -> bool:
        return (
            request.is_navigation_request()
            and self._page is not None
            and request.frame == self._page.main_frame
        )

    def _on_response(self, response: Response) -> None:
        with contextlib.suppress(PlaywrightError):  # of a frame that is gone
            if self._is_main(response.request):
                self.response = response

    def _on_failed(self, request: Request) -> None:
        with contextlib.suppress(PlaywrightError):
            if self._is_main(request):
                self._lost_url = request.url
                self._lost.set()
                if self._loading and not _is_page(request.url):
                    self._keep(self._lead_nowhere())
        why = request.failure or ""
        if "ERR_BLOCKED_BY_CLIENT" not in why and "ERR_ABORTED" not in why:
            self._resources_failed += 1
        if "ERR_BLOCKED_BY_CLIENT" in why and self._wanted:
            return
        known = self._door.fault_of(request.url) if request.url.startswith("http") else None
        self._failed.add(
            {
                "url": shown_url(request.url),
                "errorText": known.code if known else short(why),
                "resourceType": request.resource_type,
            }
        )

    async def _lead_nowhere(self) -> None:
        """Chromium reads no further in a page that went to another program, and never says that it is loaded.
        Its scripts go on, and may still find a way."""
        if await self.stays(_NOWHERE_SECONDS) and self._loading and not self._options.best_attempt:
            self._end(Fault("blocked_scheme", "The page led to no web address."))

    def _end(self, why: Fault | None) -> None:
        """Closes the page: whatever the job waits for ends at once."""
        if self._over is None and self._page is not None:
            self._over = why
            self._keep(self._page.close())

    def _on_popup(self, popup: Page) -> None:
        self._keep(popup.close())
        self._popups += 1
        if self._popups > _MOST_POPUPS:
            self._end(Fault("page_error", f"The page opened more than {_MOST_POPUPS} windows."))

    def _on_crash(self, _: Page) -> None:
        self._crash.set()
        self._gone.set()

    def _on_console(self, message: ConsoleMessage) -> None:
        self._hear(message.text, is_error=message.type == "error")

    def _hear(self, text: str, *, is_error: bool) -> None:
        size = len(text)
        if left_out := _LEFT_OUT.fullmatch(text):
            text, size = "(a long message)", int(left_out[2])
            is_error = left_out[1] in ("error", "exception")
        self._messages += 1
        self._said += size
        if self._messages > MAX_MESSAGES:
            self._end(Fault("page_error", f"The page logged more than {MAX_MESSAGES} messages."))
        if self._said > _MOST_SAID:
            self._end(Fault("page_error", f"The page logged more than {_MOST_SAID:,} characters."))
        if is_error:
            self._console.add({"text": short(text)})


def _is_page(url: str) -> bool:
    return url.partition(":")[0] in _PAGES
