"""Pauses between tries, requests that may be tried again, and how long a server asks to be left alone."""

import asyncio
import itertools
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from worker.errors import Unreachable


def delays(first: float, most: float) -> Iterator[float]:
    """Endless pauses in seconds: doubling from `first` to `most`, each drawn from its upper half, so that
    workers that lost the same server do not come back in step."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, most)


async def persistently(request: Callable[[], Awaitable[None]], tries: int = 3) -> None:
    """For requests that do no harm when they are repeated. Raises what the last try raised."""
    for pause in itertools.islice(delays(0.3, 3), tries - 1):
        try:
            await request()
        except Unreachable:
            await asyncio.sleep(pause)
        else:
            return
    await request()


def retry_after(text: str | None, date: str | None = None) -> float | None:
    """The seconds that `Retry-After` asks for, in digits or as a date (RFC 9110, 10.2.3); None where there is
    nothing to be read. `date`: the answer's own Date. The server wrote both by one clock; the worker's may be
    wrong by minutes."""
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text.strip()):
        return float(text)
    then = http_date(text)
    return None if then is None else max(0.0, (then - (http_date(date) or datetime.now(UTC))).total_seconds())


def http_date(text: str | None) -> datetime | None:
    """A date as HTTP writes it; None for anything else."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
