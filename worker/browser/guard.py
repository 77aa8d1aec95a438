"""Looks at every request of a job's context: may it go out, does the job want it, and what failed."""

import asyncio
import contextlib
import fnmatch
import re
from collections import Counter
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, Route
from playwright.async_api import Error as PlaywrightError

from worker.browser.faults import Fault
from worker.browser.options import PageOptions
from worker.browser.targets import Targets

_MOST = 20  # of console errors and failed requests
_LONGEST = 500  # characters of each


class Guard:
    """One a job. A refused request is cut and counted; a redirect that led inside cannot be cut here any
    more, so it fails the job: nothing of it may be seen."""

    def __init__(self, targets: Targets, options: PageOptions) -> None:
        self._targets = targets
        self._types = frozenset(options.block_resources)
        self._globs = [re.compile(fnmatch.translate(glob)) for glob in options.block_urls]
        self._page: Page | None = None
        self._checks: dict[str, asyncio.Task[Fault | None]] = {}  # by origin: a page asks the same few hosts
        self._redirects: set[asyncio.Task[None]] = set()
        self._refused: Counter[str] = Counter()  # by host
        self._violation: Fault | None = None
        self._console = _Log()
        self._failed = _Log()
        self._gone = asyncio.Event()
        self.crashed = False

    async def attach(self, context: BrowserContext) -> Page:
        """Opens the context's one page, watched."""
        await context.route("**/*", self._route)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_failed)
        self._page = page = await context.new_page()
        context.on("page", lambda popup: self._keep(popup.close()))
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._console.add({"text": _short(error.message)}))
        page.on("crash", self._on_crash)
        page.on("close", lambda _: self._gone.set())
        return page

    async def verify(self) -> None:
        """Before the page is seen, and after: raises Fault if anything in it is from where it may not be."""
        if self._redirects:
            await asyncio.wait(self._redirects)
        if self._violation is not None:
            raise self._violation
        if self._page is None:
            return
        if self._page.url.startswith("chrome-error:"):
            raise Fault("not_a_page", "The page went to an address that does not open.")
        for frame in self._page.frames:
            scheme = frame.url.partition(":")[0]
            if scheme in ("http", "https"):
                if fault := await self._check(frame.url):
                    raise fault
            elif scheme not in ("about", "data", "blob", "chrome-error", ""):
                raise Fault("blocked_scheme", "The page holds a frame that is no web page.")

    async def stays(self, seconds: float) -> bool:
        """Waits so long; False at once when the page crashes or closes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        return not self._gone.is_set()

    def report(self) -> dict[str, Any]:
        return {
            "console": self._console.as_json(),
            "failedRequests": self._failed.as_json(),
            "blockedRequests": {"total": self._refused.total(), "hosts": sorted(self._refused)[:_MOST]},
        }

    @property
    def refusal(self) -> Fault | None:
        """Why the page itself was refused, if it was."""
        return self._violation

    async def _route(self, route: Route) -> None:
        request = route.request
        try:
            if request.resource_type in self._types or any(glob.match(request.url) for glob in self._globs):
                return await route.abort("blockedbyclient")
            if fault := await self._check(request.url):
                if self._is_main(request):
                    self._violation = self._violation or fault
                self._refused[urlsplit(request.url).hostname or "?"] += 1
                return await route.abort("addressunreachable")
            await route.continue_()
        except PlaywrightError:
            pass  # the page is gone, and the request with it

    def _on_request(self, request: Request) -> None:
        if request.redirected_from is not None:  # the driver routes the first hop only
            self._keep(self._check_redirect(request))

    async def _check_redirect(self, request: Request) -> None:
        if fault := await self._check(request.url):
            self._refused[urlsplit(request.url).hostname or "?"] += 1
            if fault.code.startswith("blocked"):
                self._violation = self._violation or fault

    async def _check(self, url: str) -> Fault | None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return None  # data: and blob: never leave the page
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._checks:
            self._checks[origin] = asyncio.create_task(self._ask(origin))
        return await asyncio.shield(self._checks[origin])

    async def _ask(self, origin: str) -> Fault | None:
        try:
            await self._targets.check(origin + "/")
        except Fault as fault:
            return fault
        return None

    def _keep(self, work: Any) -> None:
        async def quietly() -> None:
            with contextlib.suppress(PlaywrightError):  # the page is gone
                await work

        task = asyncio.create_task(quietly())
        self._redirects.add(task)
        task.add_done_callback(self._redirects.discard)

    def _is_main(self, request: Request) -> bool:
        return (
            request.is_navigation_request()
            and self._page is not None
            and request.frame == self._page.main_frame
        )

    def _on_failed(self, request: Request) -> None:
        self._failed.add(
            {
                "url": shown_url(request.url),
                "errorText": _short(request.failure or ""),
                "resourceType": request.resource_type,
            }
        )

    def _on_crash(self, _: Page) -> None:
        self.crashed = True
        self._gone.set()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._console.add({"text": _short(message.text)})


class _Log:
    """The first few entries, and how many there were."""

    def __init__(self) -> None:
        self._items: list[dict[str, str]] = []
        self._total = 0

    def add(self, item: dict[str, str]) -> None:
        self._total += 1
        if len(self._items) < _MOST:
            self._items.append(item)

    def as_json(self) -> dict[str, Any]:
        return {"total": self._total, "items": self._items}


def storable(text: str) -> str:
    """Without what JSON in Postgres cannot hold: NUL and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _short(text: str) -> str:
    return storable(text)[:_LONGEST]


def shown_url(url: str) -> str:
    """Without user and password, and not longer than anybody reads."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _short(url)
    return _short(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
