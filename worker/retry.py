"""Pauses between tries, and requests that may be tried again."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator

from worker.errors import Unreachable


def delays(first: float, most: float) -> Iterator[float]:
    """Endless pauses in seconds: doubling from `first` to `most`, each drawn from its upper half, so that
    workers that lost the same server do not come back in step."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, most)


async def persistently(request: Callable[[], Awaitable[None]], tries: int = 3) -> None:
    """For requests that do no harm when they are repeated. Raises what the last try raised."""
    for pause in itertools.islice(delays(0.3, 3), tries - 1):
        try:
            await request()
        except Unreachable:
            await asyncio.sleep(pause)
        else:
            return
    await request()
