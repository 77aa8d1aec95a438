"""One browser with a driver of its own."""

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable

from playwright.async_api import Browser, CDPSession, Playwright, async_playwright

from worker.browser import ending, memory
from worker.browser.home import Home
from worker.browser.launching import Launch

_PROBE_ANSWER_SECONDS = 2.0
_PROBE_PAGE_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 60.0
_STALL_SECONDS = 2.0  # an answer takes some thousandths of that
_CRASH_SECONDS = 15.0  # between the end of a page's process and the news of it
_UNPROXIED_LOOPBACK = "PLAYWRIGHT_DISABLE_FORCED_CHROMIUM_PROXIED_LOOPBACK"


class Running:
    """One browser with a driver of its own, so that a driver that died is replaced with it."""

    def __init__(
        self, home: Home, playwright: Playwright, browser: Browser, probe: CDPSession, pid: int, agent: str
    ) -> None:
        self.playwright = playwright
        self.browser = browser
        self.pid = pid
        self.agent = agent  # the browser's own user agent
        self.contexts = 0  # open now
        self.served = 0  # contexts handed out so far
        self.lives: set[asyncio.Timeout] = set()  # one for each context; ended when the browser is lost
        self.retired = False  # takes no new contexts; closed when the last one is gone
        self.lost = False  # it or its driver has ended, or answers no more
        self.too_heavy = False  # lost, since it took too much memory
        self._home = home
        self._probe = probe
        self._look: asyncio.Task[None] | None = None
        self._asked: float | None = None  # when the question was put that is not answered yet
        self._stalled_at = -math.inf  # when an answer last came late
        self._driver_ended = False
        self._ended_pages: list[float] = []  # when a page's process was ended for its memory
        self._stop_watching: Callable[[], None] = lambda: None
        self._tell: Callable[[], None] = lambda: None

    @classmethod
    async def start(cls, launch: Launch) -> "Running":
        # page.screenshot would wait for fonts a second time, without end; our own wait has a limit.
        os.environ["PW_TEST_SCREENSHOT_NO_FONTS_READY"] = "1"
        if os.environ.get(_UNPROXIED_LOOPBACK):
            raise OSError(
                f"{_UNPROXIED_LOOPBACK} is set, and would lead pages past the worker's proxy; unset it"
            )
        home = await asyncio.to_thread(Home.make)
        try:
            return await cls._start_in(home, launch)
        except BaseException:
            home.remove()
            raise

    @classmethod
    async def _start_in(cls, home: Home, launch: Launch) -> "Running":
        with home.driver():
            playwright = await async_playwright().start()
        try:
            driver = home.driver_pid()
            browser = await launch.start(playwright, home)
            probe = await browser.new_browser_cdp_session()
            processes = (await probe.send("SystemInfo.getProcessInfo"))["processInfo"]
            pid = next(process["id"] for process in processes if process["type"] == "browser")
            agent = (await probe.send("Browser.getVersion"))["userAgent"]
        except BaseException:
            await playwright.stop()
            raise
        running = cls(home, playwright, browser, probe, pid, agent)
        running._stop_watching = ending.when_ended(driver, running._on_driver_ended)
        return running

    @property
    def usable(self) -> bool:
        return not self.lost and not self.retired and self.browser.is_connected()

    def when_lost(self, tell: Callable[[], None]) -> None:
        """`tell` is called at once when the browser or its driver ends; it may come twice."""
        self._tell = tell
        self.browser.on("disconnected", lambda _: tell())
        if self._driver_ended or not self.browser.is_connected():
            tell()

    def lose(self) -> None:
        """Ends what every job does in this browser: a call to one that died may never return."""
        self.lost = True
        for life in self.lives:
            if not life.expired():
                life.reschedule(asyncio.get_running_loop().time())

    async def answers(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_ANSWER_SECONDS):
                await self._probe.send("Browser.getVersion")
                return True
        except Exception:  # noqa: BLE001  a driver that died raises a bare one
            return False

    def look(self) -> None:
        """Asks the browser something, and does not wait: how late the answer comes tells how busy it is."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._await_answer())

    async def _await_answer(self) -> None:
        self._asked = asked = time.monotonic()
        try:
            with contextlib.suppress(Exception):  # what ended is noticed elsewhere
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._probe.send("Browser.getVersion")
        finally:
            self._asked = None
            if time.monotonic() - asked > _STALL_SECONDS:
                self._stalled_at = time.monotonic()

    def stalled_since(self, moment: float) -> bool:
        """Whether the browser, or its driver, did not answer for a while after this moment."""
        waiting = self._asked is not None and time.monotonic() - self._asked > _STALL_SECONDS
        return waiting or self._stalled_at >= moment

    async def opens_pages(self) -> bool:
        """A browser may answer and yet start no process for a page."""
        try:
            async with asyncio.timeout(_PROBE_PAGE_SECONDS):
                await (await self.browser.new_page()).close()
                return True
        except Exception:  # noqa: BLE001  as above
            return False

    def end_page(self, weight: memory.Weight) -> None:
        """Ends one of the browser's processes for its memory: the job whose page crashes next had it."""
        self._ended_pages.append(time.monotonic())
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(weight.pid, signal.SIGKILL)

    def was_page_ended(self) -> bool:
        """Whether the page that has just crashed was ended for its memory; each such end is told once."""
        since = time.monotonic() - _CRASH_SECONDS
        self._ended_pages = [ended for ended in self._ended_pages if ended > since]
        return bool(self._ended_pages and self._ended_pages.pop(0))

    async def close(self) -> None:
        self._stop_watching()
        if self._look is not None:
            self._look.cancel()
        if self.lost:
            self._kill()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.browser.close()
        except Exception:  # noqa: BLE001  as above
            self._kill()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.playwright.stop()
        await asyncio.to_thread(self._home.remove)

    def _on_driver_ended(self) -> None:
        self._driver_ended = True
        self._tell()

    def _kill(self) -> None:
        """The group, since the program may be a script that started the browser; never our own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._home.owns(self.pid) and (group := os.getpgid(self.pid)) != os.getpgrp():
                os.killpg(group, signal.SIGKILL)
