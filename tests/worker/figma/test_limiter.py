"""How many requests are sent, and when."""

import asyncio
import time

import pytest

from worker.figma.limiter import Limiter, Line

MINUTE = 60.0


def send(line: Line, now: float) -> float:
    """The moment at which the next request goes out, and notes it."""
    line.forget(now)
    at = line.next(now)
    line.taken.append(at)
    return at


def sent(line: Line, count: int, now: float = 0.0) -> list[float]:
    moments = []
    for _ in range(count):
        now = send(line, now)
        moments.append(now)
    return moments


def test_no_minute_holds_more_than_the_limit_and_none_holds_less() -> None:
    assert sent(Line(10, MINUTE), 25) == [0.0] * 10 + [60.0] * 10 + [120.0] * 5


def test_what_went_through_before_a_429_is_what_goes_through_after_it() -> None:
    line = Line(10, MINUTE)
    sent(line, 8)
    line.refuse(0.0, 30, spread_seconds=300)  # the eighth was refused: seven went through
    assert sent(line, 4) == pytest.approx([30 + step * MINUTE / 7 for step in range(4)])


def test_an_early_429_takes_half_of_the_limit_and_no_more() -> None:
    """Others have used the bucket up, perhaps; that need not last."""
    line = Line(10, MINUTE)
    sent(line, 1)
    line.refuse(0.0, 6, spread_seconds=300)
    assert sent(line, 3) == [6.0, 18.0, 30.0]


def test_a_second_429_halves_the_rate_and_several_at_once_count_as_one() -> None:
    line = Line(8, MINUTE)
    sent(line, 9)
    line.refuse(60.0, 6, spread_seconds=300)
    line.refuse(60.1, 6, spread_seconds=300)
    assert sent(line, 2, 66.1) == pytest.approx([66.1, 66.1 + MINUTE / 8])
    line.refuse(73.6, 10, spread_seconds=300)
    assert sent(line, 2, 83.6) == pytest.approx([83.6, 83.6 + MINUTE / 4])


def test_the_limit_comes_back_after_a_while() -> None:
    line = Line(10, MINUTE)
    sent(line, 1)
    line.refuse(0.0, 6, spread_seconds=100)
    assert sent(line, 10, 200.0) == [200.0] * 10


async def test_who_waited_when_a_429_came_waits_anew() -> None:
    """Three are refused together, and each moves the end a little: still one goes out then, not three."""
    limiter = Limiter({1: 4}, minute_seconds=2.0)
    began, moments = time.monotonic(), list[float]()

    async def refused(after: float) -> None:
        await asyncio.sleep(after)
        limiter.refused(1, 0.3)
        await limiter.take(1)
        moments.append(time.monotonic() - began)

    async with asyncio.TaskGroup() as tasks:
        for after in (0.0, 0.05, 0.1):
            tasks.create_task(refused(after))
    first, second, third = sorted(moments)
    assert first >= 0.4
    assert second - first > 0.4
    assert third - second > 0.4
