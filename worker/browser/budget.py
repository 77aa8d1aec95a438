"""A job's time: one deadline, a limit for each stage, and how long each took."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from worker.browser.faults import Fault


class Budget:
    """Starts when it is made. A dead driver has no timeouts of its own, so every stage gets one here."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self.timings: dict[str, int] = {}  # ms by stage: contextMs, navigateMs, …

    def left(self, at_most: float) -> float:
        """Seconds."""
        return max(0.0, min(at_most, self._ends - time.monotonic()))

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Adds what the block took to the timings. It has a limit of its own."""
        began = time.monotonic()
        try:
            yield
        finally:
            key = f"{name}Ms"
            self.timings[key] = self.timings.get(key, 0) + round((time.monotonic() - began) * 1000)

    @asynccontextmanager
    async def stage(self, name: str, at_most: float, code: str, message: str) -> AsyncIterator[None]:
        """Raises Fault `code` when the block takes longer than `at_most` seconds, or the job is over."""
        try:
            with self.measured(name):
                async with asyncio.timeout(self.left(at_most)):
                    yield
        except TimeoutError as error:
            raise Fault(code, message, stage=name) from error
