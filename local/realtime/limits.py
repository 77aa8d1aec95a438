"""Counting against limits."""

import time
from collections import deque


class Rate:
    """At most `most` calls within `seconds`; 0 for no limit."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._calls: deque[float] = deque()

    def exceeded(self) -> bool:
        """Counts one call. Is it one too many?"""
        if not self._most:
            return False
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - self._seconds:
            self._calls.popleft()
        self._calls.append(now)
        return len(self._calls) > self._most
