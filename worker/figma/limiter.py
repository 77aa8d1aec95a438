"""The token's rate limit, shared by all jobs of this process.

Figma counts requests a minute in tiers (developers.figma.com, REST API, "Rate limits"): a leaky bucket, and
no header tells what is left. So at most `per_minute` requests are sent in any minute, which no bucket and no
window of that size refuses. A 429 corrects the guess: everybody waits until it is over, nobody probes, and
for some minutes requests are spread evenly, as many a minute as had gone through before it, and at least half
of what was thought. A second 429 within that time halves the rate.

Several workers with one token share its limit. Whoever runs them divides `FIGMA_TIER…_PER_MINUTE` among them,
or has the queue hold their jobs back (`job_limits`).
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
        self._tiers = {tier: Line(most, minute_seconds * _MARGIN) for tier, most in per_minute.items()}

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
            refusals = line.refusals
            try:
                await asyncio.sleep(at - now)
            except asyncio.CancelledError:
                line.taken.remove(at)
                raise
            if line.refusals == refusals:
                return
            line.taken.remove(at)  # a 429 came while this one waited: what was reckoned before it is void

    def refused(self, tier: int, seconds: float) -> None:
        """A 429 came: nothing of this tier is sent for so long."""
        self._tiers[tier].refuse(time.monotonic(), seconds, _SPREAD_MINUTES * self._minute)


class Line:
    """One tier's requests. Knows no clock: moments are told, in seconds."""

    def __init__(self, most: int, window: float) -> None:
        self.taken: deque[float] = deque()  # moments of requests, ahead of now too
        self.blocked_until = 0.0
        self.refusals = 0
        self._spread_until = 0.0
        self._most = most  # a minute, while they are spread
        self._configured = most
        self._window = window

    def forget(self, now: float) -> None:
        while self.taken and self.taken[0] < now - 2 * self._window:
            self.taken.popleft()

    def next(self, now: float) -> float:
        """The first moment at which one more may be sent."""
        at = max(now, self.blocked_until)
        if self.taken:
            at = max(at, self.taken[-1])
        if now < self._spread_until:
            if self.taken and self.taken[-1] >= self.blocked_until:
                at = max(at, self.taken[-1] + self._window / self._most)
        elif len(self.taken) >= self._configured:
            at = max(at, self.taken[-self._configured] + self._window)
        return at

    def refuse(self, now: float, seconds: float, spread_seconds: float) -> None:
        if now >= self.blocked_until:  # not one of several that were under way together
            if now < self._spread_until:
                self._most = max(1, self._most // 2)
            else:
                through = sum(now - self._window <= at <= now for at in self.taken) - 1
                self._most = min(self._configured, max(through, -(-self._configured // 2)))
        self.refusals += 1
        self.blocked_until = max(self.blocked_until, now + seconds)
        self._spread_until = self.blocked_until + spread_seconds
