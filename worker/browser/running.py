"""One browser with a driver of its own."""

import asyncio
import contextlib
import os
import signal

from playwright.async_api import Browser, CDPSession, Playwright, async_playwright

from worker.browser.launching import Launch

_PROBE_ANSWER_SECONDS = 2.0
_PROBE_PAGE_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_UNPROXIED_LOOPBACK = "PLAYWRIGHT_DISABLE_FORCED_CHROMIUM_PROXIED_LOOPBACK"


class Running:
    """One browser with a driver of its own, so that a driver that died is replaced with it."""

    def __init__(
        self, playwright: Playwright, browser: Browser, probe: CDPSession, pid: int, agent: str
    ) -> None:
        self.playwright = playwright
        self.browser = browser
        self.pid = pid
        self.agent = agent  # the browser's own user agent
        self.contexts = 0  # open now
        self.served = 0  # contexts handed out so far
        self.lives: set[asyncio.Timeout] = set()  # one a context; ended when the browser is lost
        self.retired = False  # takes no new contexts; closed when the last one is gone
        self._probe = probe

    @classmethod
    async def start(cls, launch: Launch) -> "Running":
        # page.screenshot would wait for fonts a second time, without end; our own wait has a limit.
        os.environ["PW_TEST_SCREENSHOT_NO_FONTS_READY"] = "1"
        if os.environ.get(_UNPROXIED_LOOPBACK):
            raise OSError(
                f"{_UNPROXIED_LOOPBACK} is set, and would lead pages past the worker's proxy; unset it"
            )
        playwright = await async_playwright().start()
        try:
            browser = await launch.start(playwright)
            probe = await browser.new_browser_cdp_session()
            processes = (await probe.send("SystemInfo.getProcessInfo"))["processInfo"]
            pid = next(process["id"] for process in processes if process["type"] == "browser")
            agent = (await probe.send("Browser.getVersion"))["userAgent"]
        except BaseException:
            await playwright.stop()
            raise
        return cls(playwright, browser, probe, pid, agent)

    @property
    def usable(self) -> bool:
        return self.browser.is_connected() and not self.retired

    def lose(self) -> None:
        """Ends what every job does in this browser: a call to one that died may never return."""
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

    async def opens_pages(self) -> bool:
        """A browser may answer and yet start no process for a page."""
        try:
            async with asyncio.timeout(_PROBE_PAGE_SECONDS):
                await (await self.browser.new_page()).close()
                return True
        except Exception:  # noqa: BLE001  as above
            return False

    async def close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.browser.close()
        except Exception:  # noqa: BLE001  as above
            if self.browser.is_connected():  # so it lives, and the number is still its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    self._kill()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.playwright.stop()

    def _kill(self) -> None:
        """The group, since the program may be a script that started the browser; never our own."""
        group = os.getpgid(self.pid)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
