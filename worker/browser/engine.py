"""One supervised browser: started under a lock, probed, replaced when it died or misbehaved."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, BrowserContext, CDPSession, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from worker import VERSION
from worker.browser.faults import Fault
from worker.browser.launching import Launch
from worker.retry import delays

log = logging.getLogger(__name__)

_PROBE_SECONDS = 15.0
_PROBE_ANSWER_SECONDS = 2.0
_START_SECONDS = 45.0
_CONTEXT_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_FAILED_PROBES = 2  # in a row, and the browser is replaced


class NoBrowser(Exception):
    """No browser could be started at all."""


class _Running:
    """One browser with a driver of its own, so that a driver that died is replaced with it."""

    def __init__(
        self, playwright: Playwright, browser: Browser, probe: CDPSession, pid: int, agent: str
    ) -> None:
        self.playwright = playwright
        self.browser = browser
        self.pid = pid
        self.agent = agent  # the browser's own user agent
        self.contexts = 0
        self.lives: set[asyncio.Timeout] = set()  # one a context; ended when the browser is lost
        self.retired = False  # takes no new contexts; closed when the last one is gone
        self._probe = probe

    @classmethod
    async def start(cls, launch: Launch) -> "_Running":
        # page.screenshot would wait for fonts a second time, without end; our own wait has a limit.
        os.environ["PW_TEST_SCREENSHOT_NO_FONTS_READY"] = "1"
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


class Engine:
    """Hands out contexts of a browser that lives: a dead one is replaced before anybody meets it twice."""

    def __init__(self, launch: Launch, on_start: Callable[[], None] = lambda: None) -> None:
        self._launch = launch
        self._on_start = on_start
        self._current: _Running | None = None
        self._starting = asyncio.Lock()
        self._lost = asyncio.Event()  # the browser needs replacing now
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def running(
        cls, launch: Launch, on_start: Callable[[], None] = lambda: None
    ) -> AsyncIterator["Engine"]:
        """Raises NoBrowser when the first start fails; later ones are tried again for ever."""
        engine = cls(launch, on_start)
        try:
            await engine._browser()
        except Fault as fault:
            raise NoBrowser(
                "no browser could be started. Set BROWSER_EXECUTABLE, or install chromium-headless-shell,"
                f" chromium or `python -m playwright install --only-shell chromium` ({fault.__cause__})"
            ) from fault
        watching = asyncio.create_task(engine._watch())
        try:
            yield engine
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            await engine.close()

    async def close(self) -> None:
        """Ends the browser. Nobody may hold a context any more."""
        self._retire()
        await asyncio.gather(*self._closing)

    @property
    def ready(self) -> bool:
        return self._current is not None and self._current.usable

    @property
    def contexts(self) -> int:
        """Open now."""
        return self._known.contexts

    @property
    def browser(self) -> Browser:
        """The one that takes new contexts."""
        return self._known.browser

    @property
    def pid(self) -> int:
        return self._known.pid

    async def user_agent(self) -> str:
        """The browser's own, with our name added: a page's owner should see who came."""
        return f"{(await self._browser()).agent} Sidejob/{VERSION}"

    async def device(self, name: str) -> Mapping[str, Any] | None:
        """What a context needs to pass for this device; None if nobody knows it."""
        devices: Mapping[str, Mapping[str, Any]] = (await self._browser()).playwright.devices
        return devices.get(name)

    @property
    def _known(self) -> _Running:
        if self._current is None:
            raise Fault("browser_unavailable", "The browser is not there yet.")
        return self._current

    @asynccontextmanager
    async def context(self, **options: Any) -> AsyncIterator[BrowserContext]:
        """A fresh context, closed at the end of the block. One that does not close in time costs the browser.
        Raises Fault `browser_unavailable`, and what playwright raises."""
        running = await self._browser()
        running.contexts += 1
        life = asyncio.timeout(None)
        try:
            async with life:
                running.lives.add(life)
                context = await self._new_context(running, options)
                try:
                    yield context
                finally:
                    running.lives.discard(life)
                    await self._close(running, context)
        except TimeoutError as error:
            if life.expired():
                raise Fault("browser_crashed", "The browser ended while it had the page open.") from error
            raise
        finally:
            running.contexts -= 1
            self._close_if_unused(running)

    async def _new_context(self, running: _Running, options: Mapping[str, Any]) -> BrowserContext:
        try:
            async with asyncio.timeout(_CONTEXT_SECONDS):
                return await running.browser.new_context(**options)
        except TimeoutError as error:
            self._retire(running)
            raise Fault("browser_unavailable", "The browser does not answer.") from error

    async def _close(self, running: _Running, context: BrowserContext) -> None:
        if not running.browser.is_connected():
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await context.close()
        except TimeoutError:
            log.warning("a context does not close; the browser will be replaced")
            self._retire(running)
        except Exception:  # noqa: BLE001  as above
            self._lost.set()  # the browser died under it; the watch looks at once

    async def _browser(self) -> _Running:
        async with self._starting:
            if self._current is not None and self._current.usable:
                return self._current
            self._retire()
            try:
                async with asyncio.timeout(_START_SECONDS):
                    running = await _Running.start(self._launch)
            except (PlaywrightError, TimeoutError, OSError, StopIteration) as error:
                raise Fault("browser_unavailable", "The browser could not be started.") from error
            running.browser.on("disconnected", lambda _: self._on_lost(running))
            self._current = running
            self._on_start()
            log.info(
                "browser started", extra={"fields": {"pid": running.pid, "version": running.browser.version}}
            )
            return running

    def _on_lost(self, running: _Running) -> None:
        running.lose()
        self._lost.set()

    def _retire(self, running: _Running | None = None) -> None:
        """No new contexts for this browser, or the current one; it ends with its last context."""
        running = running or self._current
        if running is not None and not running.retired:
            running.retired = True
            self._lost.set()
            self._close_if_unused(running)

    def _close_if_unused(self, running: _Running) -> None:
        if running.retired and running.contexts == 0:
            task = asyncio.create_task(running.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _watch(self) -> None:
        """Replaces a browser that died at once, and one that fails its probes."""
        failed, pauses = 0, delays(0.2, 30)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._lost.wait()
            self._lost.clear()
            current = self._current
            if current is not None and current.usable:
                failed = 0 if await current.answers() else failed + 1
                if failed < _FAILED_PROBES:
                    continue
                log.error("the browser does not answer its probes; replacing it")
                current.lose()
                self._retire(current)
            failed = 0
            try:
                await self._browser()
                pauses = delays(0.2, 30)
            except Fault:
                log.exception("the browser does not start")
                await asyncio.sleep(next(pauses))
                self._lost.set()
