"""Tasks that run as long as the worker: one that fails is started again, and none ends unseen."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from worker.retry import delays

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 60.0  # before a task that failed is started again
_STEADY_SECONDS = 60.0  # a task that ran so long was a good one: the next pause is short again


async def supervised(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Runs until it is cancelled. An exception of `run`, its return, and a cancellation that nobody asked for
    are logged, and it is run again after a pause."""
    pauses = delays(0.5, _LONGEST_PAUSE_SECONDS)
    while True:
        began = time.monotonic()
        try:
            await run()
            log.error("%s ended, which is a bug; they are started again", name)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            log.exception("%s were cancelled by nobody; they are started again", name)
        except Exception:
            log.exception("%s met a bug; they are started again", name)
        if time.monotonic() - began >= _STEADY_SECONDS:
            pauses = delays(0.5, _LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(next(pauses))
