"""The browser's own record of a job, on demand: what a person opens to see why it failed."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext
from playwright.async_api import Error as PlaywrightError

from worker.handlers import File
from worker.storable import utf8

log = logging.getLogger(__name__)

_STOP_SECONDS = 10.0


class Trace:
    """Playwright's trace and the page's console as files; none when it was not asked for."""

    def __init__(self, wanted: bool, folder: Callable[[], Path]) -> None:
        self._wanted = wanted
        self._folder = folder
        self._report: Mapping[str, Any] = {}
        self._zip: Path | None = None

    @asynccontextmanager
    async def of(self, context: BrowserContext) -> AsyncIterator[None]:
        if not self._wanted:
            yield
            return
        await context.tracing.start(screenshots=True, snapshots=True)
        try:
            yield
        finally:
            path = self._folder() / "trace.zip"
            with contextlib.suppress(
                PlaywrightError, TimeoutError
            ):  # of a browser that is gone there is none
                async with asyncio.timeout(_STOP_SECONDS):
                    await context.tracing.stop(path=path)
                    self._zip = path

    def note(self, report: Mapping[str, Any]) -> None:
        """What the page logged and could not fetch."""
        self._report = report

    @property
    def files(self) -> tuple[File, ...]:
        if not self._wanted:
            return ()
        console = utf8(json.dumps(self._report, ensure_ascii=False, indent=1))
        files = (File("console.json", "application/json", console),)
        return (*files, File("trace.zip", "application/zip", self._zip)) if self._zip else files
