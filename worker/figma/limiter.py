"""The token's rate limit, shared by all jobs of this process.

Figma counts requests a minute in tiers (developers.figma.com, REST API, "Rate limits"): a leaky bucket, and
no header tells what is left. So this is one too, a little smaller and slower: a minute's requests at once,
then one after the other as room comes. A 429 corrects the guess: everybody waits until it is over, nobody
probes, the bucket counts as full, and for some minutes it leaks as many a minute as had gone through before,
and at least half of what was thought. A second 429 within that time halves the rate.

Several workers with one token share its limit. Whoever runs them divides `FIGMA_TIER…_PER_MINUTE` among them,
or has the queue hold their jobs back (`job_limits`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

from worker.figma.faults import RateLimited

_MARGIN = 1.01  # a minute of ours is so much longer
_SLACK = 1 / 30  # of a minute: requests do not all travel equally fast
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
            if (pause := line.next(now) - now) > self._minute * 1.1:
                raise RateLimited(pause)
            at, refusals = line.reserve(now), line.refusals
            try:
                await asyncio.sleep(at - now)
            except asyncio.CancelledError:
                if line.refusals == refusals:
                    line.give_back(at)
                raise
            if line.refusals == refusals:
                return
            # A 429 came while this one waited: what was reckoned before it is void.

    def refused(self, tier: int, seconds: float) -> None:
        """A 429 came: nothing of this tier is sent for so long."""
        self._tiers[tier].refuse(time.monotonic(), seconds, _SPREAD_MINUTES * self._minute)


class Line:
    """One tier's bucket, of which only the moment is kept at which it will have run empty. Knows no clock:
    moments are told, in seconds."""

    def __init__(self, most: int, minute: float) -> None:
        self.blocked_until = 0.0
        self.refusals = 0
        self._configured = most
        self._minute = minute
        self._room = minute * (
            (most - 1) / most - _SLACK
        )  # one more may be sent when it is so far from empty
        self._empty_at = float("-inf")
        self._most = most  # a minute, until `_spread_until`
        self._spread_until = 0.0
        self._sent: deque[float] = deque()  # moments of the last minute, and those ahead

    def next(self, now: float) -> float:
        """The first moment at which one more may be sent."""
        return max(now, self.blocked_until, self._empty_at - self._room)

    def reserve(self, now: float) -> float:
        """The same moment, taken."""
        at = self.next(now)
        self._empty_at = max(self._empty_at, at) + self._interval(now)
        while self._sent and self._sent[0] < now - self._minute:
            self._sent.popleft()
        self._sent.append(at)
        return at

    def give_back(self, at: float) -> None:
        self._sent.remove(at)
        self._empty_at -= self._interval(at)

    def refuse(self, now: float, seconds: float, spread_seconds: float) -> None:
        if now >= self.blocked_until:  # not one of several that were under way together
            if now < self._spread_until:
                self._most = max(1, self._most // 2)
            else:
                through = sum(now - self._minute <= at <= now for at in self._sent) - 1
                self._most = min(self._configured, max(through, -(-self._configured // 2)))
        self.refusals += 1
        self.blocked_until = max(self.blocked_until, now + seconds)
        self._spread_until = self.blocked_until + spread_seconds
        self._empty_at = self.blocked_until + self._room
        self._sent = deque(at for at in self._sent if at <= now)

    def _interval(self, now: float) -> float:
        return self._minute / (self._most if now < self._spread_until else self._configured)
