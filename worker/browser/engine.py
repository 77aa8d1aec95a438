"""One supervised browser: started under a lock, probed, replaced when it died, misbehaved or grew old."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, BrowserContext

from worker import VERSION
from worker.browser import memory
from worker.browser.faults import Fault, of_driver
from worker.browser.launching import Launch
from worker.browser.running import Running
from worker.retry import delays

log = logging.getLogger(__name__)

_PROBE_SECONDS = 15.0
_PROBE_PAGE_SECONDS = 60.0  # of a browser that has nothing to do: jobs show by themselves whether pages open
_START_SECONDS = 45.0
_CONTEXT_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_WEIGH_SECONDS = 0.5
# Failures that another page may have caused, if the browser as a whole did not answer meanwhile.
_LATE = ("navigation_timeout", "wait_timeout", "page_hung", "browser_unavailable", "connection_timeout")
_FAILED_PROBES = 2  # in a row, and the browser is replaced


class NoBrowser(Exception):
    """No browser could be started at all."""


class Engine:
    """Hands out contexts of a browser that lives: a dead one is replaced before anybody meets it twice, an
    old one after its successor has started.

    `restart_jobs`: contexts after which a browser is old. `restart_bytes`: memory of all its processes after
    which it is. `most_bytes`: memory beyond which it is ended with all of its pages. 0: never.
    """

    _starting = asyncio.Lock()  # never two starts at once in one process: the driver reads the environment

    def __init__(
        self,
        launch: Launch,
        on_start: Callable[[], None] = lambda: None,
        restart_jobs: int = 0,
        restart_bytes: int = 0,
        most_bytes: int = 0,
    ) -> None:
        self._launch = launch
        self._on_start = on_start
        self._restart_jobs = restart_jobs
        self._restart_bytes = restart_bytes
        self._most_bytes = most_bytes
        self._running: set[Running] = set()  # all that live, also those for one job and the retired
        self._current: Running | None = None
        self._successor: asyncio.Task[Running] | None = None
        self._lost = asyncio.Event()  # the browser needs replacing now, or soon
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        launch: Launch,
        on_start: Callable[[], None] = lambda: None,
        restart_jobs: int = 0,
        restart_bytes: int = 0,
        most_bytes: int = 0,
    ) -> AsyncIterator["Engine"]:
        """Raises NoBrowser when the first start fails; later ones are tried again for ever."""
        engine = cls(launch, on_start, restart_jobs, restart_bytes, most_bytes)
        try:
            await engine._browser()
        except Fault as fault:
            raise NoBrowser(
                "no browser could be started. Set BROWSER_EXECUTABLE, or install chromium-headless-shell,"
                f" chromium or `python -m playwright install --only-shell chromium` ({fault.__cause__})"
            ) from fault
        tasks = {asyncio.create_task(engine._watch()), asyncio.create_task(engine._weigh())}
        try:
            yield engine
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await engine.close()

    async def close(self) -> None:
        """Ends the browser. Nobody may hold a context any more."""
        if self._successor is not None:
            await asyncio.wait({self._successor})
        if self._current is not None:
            self._retire(self._current)
        while self._closing:
            await asyncio.wait(self._closing)

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
    def _known(self) -> Running:
        if self._current is None:
            raise Fault("browser_unavailable", "The browser is not there yet.")
        return self._current

    @asynccontextmanager
    async def context(self, *, alone: bool = False, **options: Any) -> AsyncIterator[BrowserContext]:
        """A fresh context, closed at the end of the block. One that does not close in time costs the browser.
        `alone`: in a browser that no other job uses. Raises Fault `browser_unavailable`, `browser_crashed`,
        `memory_limit`, and what playwright raises."""
        running = await (self._start_alone() if alone else self._browser())
        running.retired = running.retired or alone
        running.contexts += 1
        running.served += 1
        began = time.monotonic()
        life = asyncio.timeout(None)
        try:
            async with life:
                running.lives.add(life)
                # A task of its own: a job that is cancelled meanwhile has a context to close all the same.
                making = asyncio.create_task(self._new_context(running, options))
                try:
                    yield await asyncio.shield(making)
                except Exception as error:
                    if fault := await self._explain(running, error, began, alone=alone):
                        raise fault from error
                    raise
                finally:
                    running.lives.discard(life)
                    await self._close(running, making)
        except TimeoutError as error:
            if life.expired():
                raise _lost(running, alone=alone) from error
            raise
        finally:
            running.contexts -= 1
            self._close_if_unused(running)
            if self._restart_jobs and running.served >= self._restart_jobs and not running.retired:
                self._lost.set()

    async def _explain(
        self, running: Running, error: Exception, began: float, *, alone: bool
    ) -> Fault | None:
        """The end or the silence of the whole browser, if a job's error comes from that. The news of a page's
        end may come before that of the browser's."""
        code = error.code if isinstance(error, Fault) else fault.code if (fault := of_driver(error)) else ""
        if code in ("page_crashed", "page_closed"):
            if running.lost or not await running.answers():
                self._on_lost(running)
                return _lost(running, alone=alone)
            if code == "page_crashed" and running.was_page_ended():
                return Fault("memory_limit", "The page took more memory than a page may.")
        if code in _LATE and not alone and running.stalled_since(began):
            return Fault("browser_stalled", "The browser did not answer for a while.")
        return None

    async def _new_context(self, running: Running, options: Mapping[str, Any]) -> BrowserContext:
        try:
            async with asyncio.timeout(_CONTEXT_SECONDS):
                return await running.browser.new_context(**options)
        except TimeoutError as error:
            self._retire(running)
            raise Fault("browser_unavailable", "The browser does not answer.") from error

    async def _close(self, running: Running, making: asyncio.Task[BrowserContext]) -> None:
        if running.lost:
            making.cancel()
        await asyncio.wait({making})
        if making.cancelled() or making.exception() or running.lost:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await making.result().close()
        except TimeoutError:
            log.warning("a context does not close; the browser will be replaced")
            self._retire(running)
        except Exception:  # noqa: BLE001  a driver that died raises a bare one
            self._lost.set()  # the browser died under it; the watch looks at once

    async def _browser(self) -> Running:
        if self._current is not None and self._current.usable:
            return self._current
        return await self._replace()

    async def _replace(self) -> Running:
        """The next browser, the same for all who ask meanwhile. It comes even when all of them are cancelled:
        an abandoned start would be in the way of the next."""
        if self._successor is None or self._successor.done():
            self._successor = asyncio.create_task(self._succeed())
        return await asyncio.shield(self._successor)

    async def _succeed(self) -> Running:
        """A browser that lives stays until its successor is there, so that no job waits."""
        old = self._current
        if old is not None and not old.usable:
            self._retire(old)
        self._current = await self._start()
        if old is not None:
            self._retire(old)
        return self._current

    async def _start_alone(self) -> Running:
        """A browser for one job."""
        starting = asyncio.create_task(self._start())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._keep(self._discard(starting))
            raise

    async def _discard(self, starting: asyncio.Task[Running]) -> None:
        with contextlib.suppress(Fault):
            (await starting).retired = True
            self._close_if_unused(starting.result())

    async def _start(self) -> Running:
        try:
            async with self._starting, asyncio.timeout(_START_SECONDS):
                running = await Running.start(self._launch)
        except Exception as error:  # a driver that died raises a bare one
            raise Fault("browser_unavailable", "The browser could not be started.") from error
        self._running.add(running)
        running.when_lost(lambda: self._on_lost(running))
        self._on_start()
        log.info(
            "browser started", extra={"fields": {"pid": running.pid, "version": running.browser.version}}
        )
        return running

    def _on_lost(self, running: Running) -> None:
        if running in self._running:
            running.lose()
            self._retire(running)
            self._lost.set()

    def _retire(self, running: Running) -> None:
        """No new contexts for this browser; it ends with its last one."""
        if not running.retired:
            running.retired = True
            self._lost.set()
            self._close_if_unused(running)

    def _close_if_unused(self, running: Running) -> None:
        if running.retired and running.contexts == 0 and running in self._running:
            self._running.discard(running)
            self._keep(running.close())

    def _keep(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _watch(self) -> None:
        """Replaces a browser that died at once, one that fails its probes, and one that is old."""
        failed, pauses, page_due = 0, delays(0.2, 30), time.monotonic() + _PROBE_PAGE_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._lost.wait()
            self._lost.clear()
            current = self._current
            if current is not None and current.usable:
                healthy = await current.answers()
                if healthy and not current.contexts and time.monotonic() >= page_due:
                    healthy = await current.opens_pages()
                    page_due = time.monotonic() + (_PROBE_PAGE_SECONDS if healthy else 0)
                failed = 0 if healthy else failed + 1
                if failed < _FAILED_PROBES:
                    if await self._old(current):
                        with contextlib.suppress(
                            Fault
                        ):  # the old one still serves; the next look tries again
                            await self._replace()
                    continue
                log.error("the browser does not answer its probes; replacing it")
                self._on_lost(current)
            failed = 0
            try:
                await self._browser()
                pauses = delays(0.2, 30)
            except Fault:
                log.exception("the browser does not start")
                await asyncio.sleep(next(pauses))
                self._lost.set()

    async def _weigh(self) -> None:
        """Ends a page that takes too much memory, and a browser that does."""
        while True:
            await asyncio.sleep(_WEIGH_SECONDS)
            for running in [each for each in self._running if each.contexts and not each.lost]:
                running.look()
                try:
                    weights = await asyncio.to_thread(memory.weigh, running.pid)
                except Exception:
                    log.exception("the browser's memory could not be read")
                    continue
                self._judge(running, weights)

    def _judge(self, running: Running, weights: Sequence[memory.Weight]) -> None:
        for weight in weights:
            if weight.page and 0 < self._launch.page_bytes < weight.total:
                log.warning("ended a page for its memory", extra={"fields": {"bytes": weight.total}})
                running.end_page(weight)
        used = sum(each.private for each in weights) + max((each.shared for each in weights), default=0)
        if 0 < self._most_bytes < used and not running.lost:
            log.warning("ended the browser for its memory", extra={"fields": {"bytes": used}})
            running.too_heavy = True
            self._on_lost(running)

    async def _old(self, running: Running) -> bool:
        if self._restart_jobs and running.served >= self._restart_jobs:
            log.info("the browser has served its jobs; replacing it")
            return True
        if (
            self._restart_bytes
            and (used := await asyncio.to_thread(memory.of_tree, running.pid)) > self._restart_bytes
        ):
            log.warning("the browser takes too much memory; replacing it", extra={"fields": {"bytes": used}})
            return True
        return False


def _lost(running: Running, *, alone: bool) -> Fault:
    if running.too_heavy and alone:
        return Fault("memory_limit", "The page took more memory than a browser may.")
    return Fault("browser_crashed", "The browser ended while it had the page open.")
