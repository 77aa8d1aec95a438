"""Several works at once, of which none outlives the others."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence


async def all_of(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Raises what the first of them raises, when the others have ended too."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await end(tasks)


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancels those that still run, and waits for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
