"""Whose turn it is: a few at once, and no share keeps the others from theirs."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from worker.computing import Broken


class Turns:
    """`most` at once, and half of them for one share. Those who wait are let in one of each share after the
    other: a job that waits for a thousand turns lets another job's single one pass before its own second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_share = max(1, most // 2)
        self._running: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}  # served in this order

    @property
    def running(self) -> int:
        return self._running.total()

    @property
    def waiting(self) -> int:
        return sum(not turn.done() for queue in self._waiting.values() for turn in queue)

    @asynccontextmanager
    async def turn(self, share: Hashable, patience: float | None = None) -> AsyncIterator[None]:
        """Raises Broken when it does not come within `patience` seconds."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(share, deque()).append(turn)
        self._let_in()
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came in the same moment
                self._end(share)
            if isinstance(error, TimeoutError):
                raise Broken("no child was free in time") from error
            raise
        try:
            yield
        finally:
            self._end(share)

    def _end(self, share: Hashable) -> None:
        self._running[share] -= 1
        if not self._running[share]:
            del self._running[share]
        self._let_in()

    def _let_in(self) -> None:
        while self.running < self._most:
            share = next((one for one in self._waiting if self._running[one] < self._most_of_share), None)
            if share is None:
                return
            queue = self._waiting.pop(share)
            turn = queue.popleft()
            if queue:
                self._waiting[share] = queue  # behind the others
            if not turn.done():  # else its task was cancelled
                self._running[share] += 1
                turn.set_result(None)
