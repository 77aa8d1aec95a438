"""The model of many workers keeps to what is known without it."""

import pytest

from bench.scaling_model import Fleet, Job, Plan, Prices, Tariff, Worker, per_million, simulate

PRICES = Prices(look=0.0004, beat=0.0005, tend=0.001, enqueue=0.001, job=0.003)
PLAN = Plan("two cores", 2, 500, 500)


def test_a_fleet_with_room_does_all_that_comes_and_lets_nobody_wait() -> None:
    result = simulate(PLAN, Fleet(20, 3, 1.0), PRICES, arrivals=20, seconds=40)
    assert result.done == pytest.approx(20, rel=0.1)
    assert result.wait_p95 < 0.1
    assert result.database == pytest.approx(20 * 0.004 / 2 + 20 * (0.0009 / 5 + 0.001 / 15) / 2, rel=0.15)


def test_workers_give_at_their_slots_and_the_database_at_its_cores() -> None:
    few = simulate(PLAN, Fleet(5, 2, 1.0), PRICES, arrivals=50, seconds=40)
    assert few.done == pytest.approx(10, rel=0.15)
    assert few.first_to_give.startswith("workers")
    many = simulate(
        Plan("no limits", 2, 0, 0), Fleet(2000, 3, 1.0, realtime=False), PRICES, arrivals=2000, seconds=10
    )
    assert many.database == 1
    assert many.done <= 2 / PRICES.job
    assert many.first_to_give.startswith("database")


def test_a_wake_up_reaches_every_worker_so_messages_grow_with_both() -> None:
    hundred = simulate(PLAN, Fleet(100, 3, 1.0), PRICES, arrivals=100, seconds=10)
    assert hundred.messages > 10 * 100
    assert hundred.first_to_give.startswith("Realtime's messages")
    silent = simulate(PLAN, Fleet(100, 3, 1.0, realtime=False), PRICES, arrivals=100, seconds=10)
    assert silent.messages < hundred.messages / 1.9
    assert silent.done == pytest.approx(hundred.done, rel=0.1)


def test_the_same_question_has_the_same_answer() -> None:
    asked = (PLAN, Fleet(10, 3, 1.0), PRICES)
    assert simulate(*asked, arrivals=5, seconds=5) == simulate(*asked, arrivals=5, seconds=5)


def test_a_million_jobs_cost_what_their_parts_cost() -> None:
    bill = per_million(Job(3.0, 2**30, 2**30), Worker(cores=2, gib=3, slots=3, busy=0.5), Tariff())
    assert bill["workers"] == pytest.approx(2 * (2 * 18 + 3 * 2))
    assert bill["files, read"] == pytest.approx(90_000)
    assert bill["rows, a month"] == pytest.approx(125_000)
