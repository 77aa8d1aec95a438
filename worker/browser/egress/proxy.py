"""Opens a door for each job, and counts what goes through all of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from worker.browser.egress.door import Door
from worker.browser.egress.limits import Limits
from worker.browser.targets import Targets

# Where the browser's own traffic is sent, which belongs to no job: nobody listens there.
NOWHERE = "http://127.0.0.1:1"


class Egress:
    """`count(name, amount)` adds to a metric of the worker."""

    def __init__(
        self,
        targets: Targets,
        limits: Limits | None = None,
        count: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self._targets = targets
        self._limits = limits or Limits()
        self._count = count

    @asynccontextmanager
    async def door(self) -> AsyncIterator[Door]:
        async with Door.opened(self._targets.of_one_job(), self._limits) as door:
            try:
                yield door
            finally:
                self._count("browser_requests_total", door.requests)
                self._count("browser_received_bytes_total", door.received_bytes)
                self._count("browser_refused_requests_total", door.refused.total())
                self._count("browser_traffic_limits_total", 1 if door.over else 0)
