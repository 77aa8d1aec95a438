"""The children of one worker: as many as it has jobs at once, started when needed and used again."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from worker.computing import Broken, ComputingFailed, Rejected, TooMuchMemory, TooSlow, frames
from worker.computing.process import Child
from worker.computing.turns import Turns

log = logging.getLogger(__name__)

MEMORY_BYTES = 1024 * 1024 * 1024  # of one child, its own program included
_MOST_ANSWER_BYTES = 64 * 1024 * 1024
_RETIRED_ABOVE_BYTES = 256 * 1024 * 1024  # what one computation leaves behind must not count against the next
_RETIRED_AFTER = 1000  # computations
_IDLE_SECONDS = 60.0  # after which all but one child end

_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (Rejected, "rejected"),
    (TooSlow, "too_slow"),
    (TooMuchMemory, "too_much_memory"),
    (asyncio.CancelledError, "cancelled"),
    (BaseException, "broken"),
)


class Pool:
    """Computes in children. `count(name, amount, **labels)` adds to a metric of the worker."""

    def __init__(
        self,
        most: int,
        memory_bytes: int = MEMORY_BYTES,
        modules: Sequence[str] = (),
        count: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._modules = tuple(modules)
        self._count = count
        self._turns = Turns(most)
        self._idle: list[tuple[float, Child]] = []  # since when; the one that was used last is used next
        self._children: set[Child] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._warming: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        most: int,
        memory_bytes: int = MEMORY_BYTES,
        modules: Sequence[str] = (),
        count: Callable[..., None] = lambda *_, **__: None,
    ) -> AsyncIterator["Pool"]:
        """A pool whose children are gone at the end. One child is started at once, in the background, with
        these modules imported, so that the first computation does not wait for it."""
        pool = cls(most, memory_bytes, modules, count)
        pool._keep_one_warm()
        try:
            yield pool
        finally:
            await pool.close()

    async def compute(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        seconds: float,
        memory_bytes: int | None = None,
        share: Hashable = None,
        patience: float | None = None,
    ) -> Any:
        """Returns what `function(*arguments)` returns, in a child: JSON, or bytes.

        `function` is one of a module's own; arguments are pickled, large `bytes` without a copy. `seconds` is
        time on a processor, counted from when the computation begins; by the clock it may be four times as
        much. `patience` is how long the call waits for a free child before that. Computations of one `share`
        (a job's folder, say) take half of the children at most. A call that is cancelled kills its
        computation. Raises TooSlow, TooMuchMemory, Broken, and Rejected where the function does."""
        memory_bytes = min(memory_bytes or self._memory_bytes, self._memory_bytes)
        request = frames.Request(function, arguments, seconds, memory_bytes)
        async with self._turns.turn(object() if share is None else share, patience):
            began = time.monotonic()
            try:
                value = await self._compute(request)
            except BaseException as error:
                outcome = next(name for kind, name in _OUTCOMES if isinstance(error, kind))
                self._count("computations_total", 1, outcome=outcome)
                if isinstance(error, ComputingFailed):
                    log.warning("%s.%s: %s", function.__module__, function.__qualname__, error)
                raise
            finally:
                self._count("computing_seconds_total", time.monotonic() - began)
        self._count("computations_total", 1, outcome="done")
        return value

    def readiness(self) -> dict[str, object]:
        """For /readyz."""
        running, waiting, children = map(int, self.gauges().values())
        return {"computing": {"running": running, "waiting": waiting, "children": children}}

    def gauges(self) -> dict[str, float]:
        """How many computations run and wait, and how many children there are."""
        return {
            "computing_running": self._turns.running,
            "computing_waiting": self._turns.waiting,
            "computing_children": len(self._children),
        }

    async def close(self) -> None:
        """Kills all children. Waits until they are gone."""
        self._closed = True
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await asyncio.gather(*self._ending, *(child.end() for child in self._children))
        self._children.clear()
        self._idle.clear()

    async def _compute(self, request: frames.Request) -> Any:
        if self._closed:
            raise Broken("the worker is ending")
        child = self._take() or await self._start()
        reusable = False
        try:
            value = await child.compute(request, _MOST_ANSWER_BYTES)
            reusable = True
            return value
        except (Rejected, Broken):
            reusable = child.alive  # the function has said no, or has a bug; its process is as good as before
            raise
        finally:
            self._put_back(child, reusable)

    def _take(self) -> Child | None:
        while self._idle:
            _, child = self._idle.pop()
            if child.alive:
                return child
            self._drop(child)  # it died while it had nothing to do
        return None

    async def _start(self) -> Child:
        child = await Child.start(self._memory_bytes, self._modules)
        self._children.add(child)
        self._count("computing_starts_total", 1)
        return child

    def _put_back(self, child: Child, reusable: bool) -> None:
        worn = child.peak_bytes > _RETIRED_ABOVE_BYTES or child.served >= _RETIRED_AFTER
        if self._closed:
            child.kill()  # `close` waits for it
        elif not reusable or worn:
            self._drop(child)
            self._keep_one_warm()
        else:
            self._idle.append((time.monotonic(), child))
            asyncio.get_running_loop().call_later(_IDLE_SECONDS + 1, self._trim)

    def _trim(self) -> None:
        """Ends children that had nothing to do for a while, the last one excepted."""
        long_ago = time.monotonic() - _IDLE_SECONDS
        while len(self._idle) > 1 and self._idle[0][0] < long_ago:
            self._drop(self._idle.pop(0)[1])

    def _drop(self, child: Child) -> None:
        child.kill()
        self._children.discard(child)
        task = asyncio.create_task(child.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _keep_one_warm(self) -> None:
        if not self._closed and not self._children and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        with contextlib.suppress(Broken):  # the first computation will say so
            self._put_back(await self._start(), reusable=True)
