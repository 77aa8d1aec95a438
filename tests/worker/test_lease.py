"""A lease is renewed in time, survives an outage until its end, and says how it was lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.virtual_time import VirtualTime
from worker.errors import LeaseLost, Refused, Unreachable
from worker.lease import Lease, Loss


class Renewals:
    """Answers renewals one by one as told; then loses the lease."""

    def __init__(self, *answers: Exception | None, then: Exception | None = None) -> None:
        self.times: list[float] = []  # by the event loop's clock
        self._answers = list(answers)
        self._then = then or LeaseLost("queued")

    async def __call__(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        answer = self._answers.pop(0) if self._answers else self._then
        if answer is not None:
            raise answer


async def held(renew: Callable[[], Awaitable[None]], seconds: float) -> Loss:
    return await Lease(renew, seconds).hold()


def test_a_lease_is_renewed_at_half_its_time(virtual: VirtualTime) -> None:
    renewals = Renewals(None, None, None)
    assert virtual.run(held(renewals, 60)) is Loss.TAKEN
    assert renewals.times == pytest.approx([30, 60, 90, 120])


def test_a_look_renews_at_once(virtual: VirtualTime) -> None:
    renewals = Renewals(None, LeaseLost("cancelled"))

    async def looked_at() -> Loss:
        lease = Lease(renewals, 600)
        holding = asyncio.create_task(lease.hold())
        for _ in range(2):
            await asyncio.sleep(1)
            lease.look()
        return await holding

    assert virtual.run(looked_at()) is Loss.CANCELLED
    assert renewals.times == pytest.approx([1, 2])


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (LeaseLost("cancelled"), Loss.CANCELLED),
        (LeaseLost("queued"), Loss.TAKEN),
        (LeaseLost("succeeded"), Loss.TAKEN),
        (Refused("42501", "no"), Loss.TAKEN),
    ],
)
def test_the_loss_says_why(virtual: VirtualTime, error: Exception, loss: Loss) -> None:
    assert virtual.run(held(Renewals(error), 60)) is loss


def test_a_network_failure_is_survived(virtual: VirtualTime) -> None:
    renewals = Renewals(None, Unreachable("gone"), None, None)
    assert virtual.run(held(renewals, 60)) is Loss.TAKEN
    assert len(renewals.times) == 5
    assert renewals.times[2] - renewals.times[1] < 2, "repeated soon"


@pytest.mark.parametrize("hangs", [False, True])
def test_without_an_answer_a_lease_is_held_until_its_end_and_no_longer(
    virtual: VirtualTime, hangs: bool
) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    renew: Callable[[], Awaitable[None]] = hang if hangs else Renewals(then=Unreachable("gone"))
    assert virtual.run(held(renew, 60)) is Loss.EXPIRED
    assert virtual.now == pytest.approx(60)
