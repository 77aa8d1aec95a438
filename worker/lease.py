"""A held lease: renewed in time, and the news when it is gone."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from enum import Enum

from worker.errors import LeaseLost, ProjectError, Refused, SignInRefused


class Loss(Enum):
    """How a lease ended against its holder's will."""

    CANCELLED = "cancelled"  # somebody cancelled the job
    TAKEN = "taken"  # swept, or finished by another
    EXPIRED = "expired"  # nobody could be reached until its end


class Lease:
    """Renews at half its time, and when it is told to look. A renewal without answer is repeated until the
    lease's end by this machine's clock, counted from the sending of the last one that worked."""

    def __init__(self, renew: Callable[[], Awaitable[None]], seconds: float) -> None:
        self._renew = renew
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._doubted = asyncio.Event()

    def look(self) -> None:
        """Renews now: somebody says that the job was cancelled."""
        self._doubted.set()

    async def hold(self) -> Loss:
        """Returns only when the lease is gone."""
        pause = usual = self._seconds / 2
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, max(0.0, self._ends - time.monotonic()))):
                    await self._doubted.wait()
            self._doubted.clear()
            sent = time.monotonic()
            try:
                async with asyncio.timeout(self._ends - sent):
                    await self._renew()
                self._ends, pause = sent + self._seconds, usual
            except LeaseLost as error:
                return Loss.CANCELLED if error.status == "cancelled" else Loss.TAKEN
            except (Refused, SignInRefused):
                return Loss.TAKEN
            except (ProjectError, TimeoutError):
                pause = min(usual, random.uniform(0.5, 1.5))
                if time.monotonic() >= self._ends:
                    return Loss.EXPIRED
