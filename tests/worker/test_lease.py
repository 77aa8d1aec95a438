"""A lease is renewed in time, survives an outage until its end, and says how it was lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from worker.errors import LeaseLost, Refused, Unreachable
from worker.lease import Lease, Loss


class Renewals:
    """Answers renewals one by one as told; then loses the lease."""

    def __init__(self, *answers: Exception | None, then: Exception | None = None) -> None:
        self.times: list[float] = []
        self._answers = list(answers)
        self._then = then or LeaseLost("queued")

    async def __call__(self) -> None:
        self.times.append(time.monotonic())
        answer = self._answers.pop(0) if self._answers else self._then
        if answer is not None:
            raise answer


async def test_a_lease_is_renewed_at_half_its_time() -> None:
    renewals, began = Renewals(None, None, None), time.monotonic()
    assert await Lease(renewals, 0.4).hold() is Loss.TAKEN
    assert [round((at - began) / 0.2) for at in renewals.times] == [1, 2, 3, 4]


async def test_a_look_renews_at_once() -> None:
    lease, began = Lease(Renewals(None, LeaseLost("cancelled")), 600), time.monotonic()
    held = asyncio.create_task(lease.hold())
    for _ in range(2):
        await asyncio.sleep(0.05)
        lease.look()
    assert await held is Loss.CANCELLED
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (LeaseLost("cancelled"), Loss.CANCELLED),
        (LeaseLost("queued"), Loss.TAKEN),
        (LeaseLost("succeeded"), Loss.TAKEN),
        (Refused("42501", "no"), Loss.TAKEN),
    ],
)
async def test_the_loss_says_why(error: Exception, loss: Loss) -> None:
    assert await Lease(Renewals(error), 0.02).hold() is loss


async def test_a_network_failure_is_survived() -> None:
    renewals = Renewals(None, Unreachable("gone"), None, None)
    assert await Lease(renewals, 0.3).hold() is Loss.TAKEN
    assert len(renewals.times) == 5


@pytest.mark.parametrize("hangs", [False, True])
async def test_without_an_answer_a_lease_is_held_until_its_end_and_no_longer(hangs: bool) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    renew: Callable[[], Awaitable[None]] = hang if hangs else Renewals(then=Unreachable("gone"))
    began = time.monotonic()
    assert await Lease(renew, 0.5).hold() is Loss.EXPIRED
    assert 0.5 <= time.monotonic() - began < 1
