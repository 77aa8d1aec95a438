"""How much one caller may ask of one instance. Kept in memory: each instance counts for itself."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from sidejob.errors import Refused, Unavailable

MOST_CALLERS = 10_000  # remembered at once, a few hundred bytes each; whoever was quiet longest is forgotten
NANOSECONDS = 1_000_000_000  # a second
BURST_SECONDS = 10  # whoever was quiet may ask for so many seconds' worth at once


class Rate:
    """Requests of each caller, as a leaky bucket: the generic cell rate algorithm (ITU-T I.371, annex A)."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """per_second: 0 for no limit. clock: seconds."""
        # Whole nanoseconds: a sum of floats is a little more or less than it should be, so that a caller's
        # first request was over the limit at some times of the clock. Rounded down, so that a burst is whole.
        self._interval = int(NANOSECONDS / per_second) if per_second else 0
        self._burst = max(BURST_SECONDS * NANOSECONDS, self._interval)
        self._clock = clock
        self._lock = threading.Lock()
        self._empty_at: OrderedDict[str, int] = OrderedDict()  # caller -> when their bucket will be empty

    def take(self, caller: str) -> None:
        """Counts one request. Raises Refused 429, which is not counted."""
        self._look(caller, counted=True)

    def check(self, caller: str) -> None:
        """Raises Refused 429 where `take` would. Counts nothing."""
        self._look(caller, counted=False)

    def _look(self, caller: str, *, counted: bool) -> None:
        if not self._interval:
            return
        with self._lock:
            now = int(self._clock() * NANOSECONDS)
            empty_at = max(now, self._empty_at.get(caller, now)) + self._interval
            over = empty_at - now - self._burst
            if over <= 0 and counted:
                self._empty_at[caller] = empty_at
            if caller in self._empty_at:
                self._empty_at.move_to_end(caller)
            while len(self._empty_at) > MOST_CALLERS:
                self._empty_at.popitem(last=False)
        if over > 0:
            raise Refused("rate_limited", headers={"Retry-After": str(over // NANOSECONDS + 1)})


class Places:
    """Streams that are open, by caller."""

    def __init__(self, per_caller: int, in_all: int) -> None:
        self._per_caller = per_caller
        self._in_all = in_all
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    def take(self, caller: str) -> None:
        """One more. Raises Refused 429 when the caller has enough, Unavailable 503 when all are taken."""
        with self._lock:
            if self._held[caller] >= self._per_caller:
                raise Refused("too_many_streams", headers={"Retry-After": "10"})
            if self._held.total() >= self._in_all:
                raise Unavailable("streams_full")
            self._held[caller] += 1

    def give_back(self, caller: str) -> None:
        """One less."""
        with self._lock:
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]
