"""How many requests are sent, and when."""

import asyncio

import pytest

from local.figma.limits import Limits
from tests.virtual_time import VirtualTime
from worker.figma.limiter import Limiter, Line

MINUTE = 60.0


def sent(line: Line, count: int, now: float = 0.0) -> list[float]:
    """The moments at which so many requests go out, each asked for when the one before is gone."""
    moments = []
    for _ in range(count):
        now = line.reserve(now)
        moments.append(now)
    return moments


def test_a_full_bucket_goes_out_at_once_and_then_one_after_the_other() -> None:
    """The tenth waits two seconds, for those that travelled slowly."""
    assert sent(Line(10, MINUTE), 12) == pytest.approx([0.0] * 9 + [2.0, 8.0, 14.0])


def test_no_leaky_bucket_of_that_size_refuses_and_none_has_room_left() -> None:
    line, level, then = Line(10, MINUTE * 1.01), 0.0, 0.0
    moments = sent(line, 100)
    for at in moments:
        level = max(0.0, level - (at - then) / 6) + 1
        then = at
        assert level <= 10
    assert moments[-1] <= (100 - 10) * 6 * 1.02 + 2


@pytest.mark.parametrize("most", [2, 3])
def test_small_limits_are_kept_too(most: int) -> None:
    assert sent(Line(most, MINUTE), 30)[-1] == pytest.approx((30 - most) * MINUTE / most + 2)


def test_one_request_a_minute_is_no_more_than_that() -> None:
    assert sent(Line(1, MINUTE), 3) == pytest.approx([0.0, 62.0, 124.0])


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
    assert sent(line, 3) == pytest.approx([6.0, 18.0, 30.0])


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
    assert sent(line, 9, 200.0) == [200.0] * 9


def test_a_place_that_is_given_back_is_free_again() -> None:
    line = Line(10, MINUTE)
    sent(line, 10)
    at = line.reserve(2.0)
    line.give_back(at)
    assert line.next(2.0) == pytest.approx(at)


def test_who_waited_when_a_429_came_waits_anew(virtual: VirtualTime) -> None:
    """Three are refused together, and each moves the end a little: still one goes out then, not three."""
    limiter = Limiter({1: 4}, minute_seconds=2.0)
    moments = list[float]()

    async def refused(after: float) -> None:
        await asyncio.sleep(after)
        limiter.refused(1, 0.3)
        await limiter.take(1)
        moments.append(virtual.now)

    async def three() -> None:
        async with asyncio.TaskGroup() as tasks:
            for after in (0.0, 0.05, 0.1):
                tasks.create_task(refused(after))

    virtual.run(three())
    first, second, third = sorted(moments)
    assert first >= 0.4
    assert second - first > 0.4
    assert third - second > 0.4


def test_the_local_figmas_bucket_agrees(virtual: VirtualTime) -> None:
    limits, limiter = Limits({1: 10}, minute_seconds=60.0), Limiter({1: 10}, minute_seconds=60.0)

    async def fifteen() -> None:
        for _ in range(15):
            await limiter.take(1)
            assert limits.spend(1) == 0

    virtual.run(fifteen())
