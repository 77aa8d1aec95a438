"""The token's rate limit, shared by all jobs of this process.

Figma counts requests a minute in tiers (developers.figma.com, REST API, "Rate limits"): a leaky bucket, and
no header tells what is left. So at most `per_minute` requests are sent in any minute, which no bucket and no
window of that size refuses. A 429 corrects the guess: everybody waits until it is over, nobody probes, and
for some minutes half as many requests are sent, spread evenly.

Several workers with one token share its limit. Whoever runs them divides `FIGMA_TIER…_PER_MINUTE` among them,
or lets the queue hold their jobs back.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

from worker.figma.faults import RateLimited

_MARGIN = 1.01  # a minute of ours is so much longer: requests do not all travel equally fast
_SPREAD_MINUTES = 5  # after a 429


class Limiter:
    """`minute_seconds` is a minute, but for tests that cannot wait so long."""

    def __init__(self, per_minute: Mapping[int, int], minute_seconds: float = 60.0) -> None:
        self._minute = minute_seconds
        self._tiers = {tier: _Tier(most, minute_seconds * _MARGIN) for tier, most in per_minute.items()}

    async def take(self, tier: int) -> None:
        """Returns when a request of this tier may be sent. Raises RateLimited when that is too far off to
        wait for under a lease: half a minute once Figma has said so, a little over a minute otherwise."""
        line = self._tiers[tier]
        while True:
            now = time.monotonic()
            if (blocked := line.blocked_until - now) > self._minute / 2:
                raise RateLimited(blocked)
            line.forget(now)
            at = line.next(now)
            if at - now > self._minute * 1.1:
                raise RateLimited(at - now)
            line.taken.append(at)
            try:
                await asyncio.sleep(at - now)
            except asyncio.CancelledError:
                line.taken.remove(at)
                raise
            if time.monotonic() >= line.blocked_until:
                return
            line.taken.remove(at)  # refused while this one waited

    def refused(self, tier: int, seconds: float) -> None:
        """A 429 came: nothing of this tier is sent for so long."""
        now, line = time.monotonic(), self._tiers[tier]
        if now >= line.blocked_until:  # not one of several that were under way together
            line.most = max(1, line.present(now) // 2)
        line.blocked_until = max(line.blocked_until, now + seconds)
        line.spread_until = line.blocked_until + _SPREAD_MINUTES * self._minute


class _Tier:
    def __init__(self, most: int, window: float) -> None:
        self.taken: deque[float] = deque()  # moments of requests, ahead of now too
        self.blocked_until = 0.0
        self.spread_until = 0.0
        self.most = most  # until `spread_until`; then as configured
        self._configured = most
        self._window = window

    def present(self, now: float) -> int:
        return self.most if now < self.spread_until else self._configured

    def forget(self, now: float) -> None:
        while self.taken and self.taken[0] < now - 2 * self._window:
            self.taken.popleft()

    def next(self, now: float) -> float:
        """The first moment that keeps `most` in any window."""
        at, most = max(now, self.blocked_until), self.present(now)
        if self.taken:
            at = max(at, self.taken[-1])
        if len(self.taken) >= most:
            at = max(at, self.taken[-most] + self._window)
        if now < self.spread_until and self.taken:
            at = max(at, self.taken[-1] + self._window / most)
        return at
