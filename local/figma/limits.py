"""Leaky buckets, one a tier (developers.figma.com, REST API, "Rate limits")."""

import threading
import time
from dataclasses import dataclass, field


@dataclass
class Limits:
    """Requests a minute by tier; a bucket holds a minute's worth. `minute_seconds` shortens the minute."""

    per_minute: dict[int, int] = field(default_factory=lambda: {1: 10, 2: 25, 3: 50})
    minute_seconds: float = 60.0
    plan: str = "pro"
    kind: str = "high"
    _levels: dict[int, tuple[float, float]] = field(default_factory=dict)  # tier → level, moment
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self, tier: int) -> float:
        """0 when there was room; else the seconds until there is."""
        most = self.per_minute[tier]
        leak = most / self.minute_seconds
        with self._lock:
            now = time.monotonic()
            level, then = self._levels.get(tier, (0.0, now))
            level = max(0.0, level - (now - then) * leak)
            if level + 1 > most + 1e-6:
                self._levels[tier] = (level, now)
                return (level + 1 - most) / leak
            self._levels[tier] = (level + 1, now)
            return 0.0
