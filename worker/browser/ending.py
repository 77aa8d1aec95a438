"""Tells at once when a process has ended."""

import asyncio
import contextlib
import os
from collections.abc import Callable

_LOOK_SECONDS = 0.2


def when_ended(pid: int, tell: Callable[[], None]) -> Callable[[], None]:
    """Calls `tell` once, in the running event loop, when this process has ended. Returns a function that
    stops the watching."""
    loop = asyncio.get_running_loop()
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return loop.call_soon(tell).cancel
    except (AttributeError, OSError):  # no Linux, or one that forbids it
        task = asyncio.create_task(_look(pid, tell))
        return Once(lambda: _cancel(task))

    def stop() -> None:
        loop.remove_reader(handle)
        with contextlib.suppress(OSError):
            os.close(handle)

    stopping = Once(stop)

    def ended() -> None:
        stopping()
        tell()

    loop.add_reader(handle, ended)
    return stopping


class Once:
    """Calls what it was given the first time that it is called."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def __call__(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


async def _look(pid: int, tell: Callable[[], None]) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            tell()
            return
        await asyncio.sleep(_LOOK_SECONDS)
