"""Computations on foreign content: stopped at their limit, alone in what they break, and gone with the worker."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.worker import computations, processes
from tests.worker.jobs import eventually
from tests.worker.processes import children, command, started_since
from worker.computing import Broken, Rejected, TooMuchMemory, TooSlow
from worker.computing.pool import Pool
from worker.computing.turns import Turns
from worker.figma.picks import parse

LONG = 60.0  # seconds: for what should end by itself
MIB = 1024 * 1024


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    before = children()
    async with Pool.open(2, 512 * MIB) as opened:
        yield opened
    assert not started_since(before), "children are left"


async def test_values_go_there_and_back(pool: Pool) -> None:
    for value in (None, 7, 1.5, "ü \ud800 \0", [1, ["a"]], {"a": {"b": None}}, b"bytes \0"):
        assert await pool.compute(computations.give_back, value, seconds=LONG) == value


async def test_a_child_is_used_again_and_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_PASSWORD", "a secret")
    async with Pool.open(2) as other:
        pids = {await other.compute(computations.tell_pid, seconds=LONG) for _ in range(5)}
        assert len(pids) == 1
        environment = await other.compute(computations.tell_environment, seconds=LONG)
        assert "WORKER_PASSWORD" not in environment
        assert "a secret" not in processes.environment(pids.pop())


async def test_large_arguments_arrive_whole_and_the_loop_goes_on(pool: Pool) -> None:
    large, turns, done = b"x" * (100 * MIB), 0, asyncio.Event()

    async def turn() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    found = await pool.compute(computations.measure_bytes, b"ax", large, b"", seconds=LONG)
    done.set()
    await turning
    assert found == [3, 2 * len(large), 0]
    assert turns > 100, "in slices"


async def test_a_computation_without_end_is_killed_and_its_neighbours_go_on(pool: Pool) -> None:
    hostile = [asyncio.create_task(pool.compute(computations.loop_for_ever, seconds=0.5)) for _ in range(4)]
    good = [asyncio.create_task(pool.compute(computations.give_back, n, seconds=LONG)) for n in range(10)]
    assert await asyncio.gather(*good) == list(range(10))
    assert all(isinstance(each, TooSlow) for each in await asyncio.gather(*hostile, return_exceptions=True))
    assert pool.gauges()["computing_running"] == 0


async def test_one_that_only_waits_is_killed_too(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(TooSlow):
        await pool.compute(computations.sleep_for_ever, str(tmp_path / "started"), seconds=0.1)


async def test_time_counts_from_when_a_computation_begins(pool: Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    busy = [
        asyncio.create_task(pool.compute(computations.wait_for, str(gate), seconds=LONG)) for _ in range(2)
    ]
    waiting = asyncio.create_task(pool.compute(computations.give_back, 1, seconds=5))
    await eventually(lambda: pool.gauges()["computing_waiting"] == 1)
    gate.touch()
    assert await waiting == 1
    await asyncio.gather(*busy)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (computations.take_memory, (4 * 1024 * MIB,)),
        (computations.answer_with, (100 * MIB,)),
        (computations.measure_bytes, (b"x" * (200 * MIB),)),
    ],
)
async def test_memory_is_bounded(pool: Pool, function: object, arguments: tuple[object, ...]) -> None:
    with pytest.raises(TooMuchMemory):
        await pool.compute(function, *arguments, seconds=LONG)  # type: ignore[arg-type]
    assert await pool.compute(computations.take_memory, 200 * MIB, seconds=LONG) == 200 * MIB
    with pytest.raises(TooMuchMemory):
        await pool.compute(computations.take_memory, 200 * MIB, seconds=LONG, memory_bytes=150 * MIB)
    assert await pool.compute(computations.give_back, 1, seconds=LONG) == 1


async def test_what_a_large_computation_took_does_not_count_against_the_next(pool: Pool) -> None:
    first = await pool.compute(computations.tell_pid, seconds=LONG)
    await pool.compute(computations.take_memory, 300 * MIB, seconds=LONG)
    assert await pool.compute(computations.tell_pid, seconds=LONG) != first


async def test_a_bug_and_a_refusal_are_told_apart_and_cost_no_process(pool: Pool) -> None:
    first = await pool.compute(computations.tell_pid, seconds=LONG)
    with pytest.raises(Rejected) as rejected:
        await pool.compute(computations.refuse, "no_picture", seconds=LONG)
    assert (rejected.value.reason, rejected.value.message) == ("no_picture", "It is not as it should be.")
    with pytest.raises(Broken, match="a bug"):
        await pool.compute(computations.fail, seconds=LONG)
    with pytest.raises(Broken, match="RecursionError"):
        await pool.compute(computations.recurse, seconds=LONG)
    with pytest.raises(Broken, match=r"JSON|Recursion"):
        await pool.compute(computations.nest, 100_000, seconds=LONG)
    with pytest.raises(Broken, match="JSON"):
        await pool.compute(computations.give_back, float("inf"), seconds=LONG)
    assert await pool.compute(computations.tell_pid, seconds=LONG) == first


async def test_one_functions_deep_stack_is_not_the_nexts() -> None:
    async with Pool.open(1) as pool:
        await pool.compute(computations.deepen, 1_000_000, seconds=LONG)
        with pytest.raises(Broken, match="RecursionError"):
            await pool.compute(computations.recurse, seconds=LONG)
        with pytest.raises(Rejected, match="no_json"):
            await pool.compute(parse, b"[" * 200_000, seconds=LONG)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_child_that_dies_fails_its_own_computation_alone(pool: Pool, number: int) -> None:
    with pytest.raises(Broken, match=str(-number)):
        await pool.compute(computations.die, number, seconds=LONG)
    with pytest.raises(Broken):
        await pool.compute(computations.exit_quietly, seconds=LONG)
    assert await pool.compute(computations.give_back, 1, seconds=LONG) == 1


async def test_a_child_that_was_killed_with_nothing_to_do_harms_nobody(pool: Pool) -> None:
    for _ in range(3):
        pid = await pool.compute(computations.tell_pid, seconds=LONG)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda pid=pid: pid not in children())  # type: ignore[misc]
        assert await pool.compute(computations.give_back, 1, seconds=LONG) == 1


async def test_a_kill_from_outside_ends_a_running_computation_at_once(pool: Pool, tmp_path: Path) -> None:
    started = tmp_path / "started"
    running = asyncio.create_task(pool.compute(computations.sleep_for_ever, str(started), seconds=3600))
    pid = int(await eventually(lambda: started.exists() and started.read_text()))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Broken):
        await running


async def test_cancelling_kills_the_computation(pool: Pool, tmp_path: Path) -> None:
    started = tmp_path / "started"
    running = asyncio.create_task(pool.compute(computations.loop_for_ever, str(started), seconds=3600))
    pid = int(await eventually(lambda: started.exists() and started.read_text()))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: pid not in children())
    assert await pool.compute(computations.give_back, 1, seconds=LONG) == 1


async def test_one_that_waits_can_be_cancelled(pool: Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    busy = [
        asyncio.create_task(pool.compute(computations.wait_for, str(gate), seconds=LONG)) for _ in range(3)
    ]
    await eventually(lambda: pool.gauges()["computing_waiting"] == 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pool.compute(computations.give_back, 1, seconds=LONG)
    with pytest.raises(Broken, match="free"):
        await pool.compute(computations.give_back, 1, seconds=LONG, patience=0.01)
    assert pool.gauges()["computing_waiting"] == 1
    gate.touch()
    await asyncio.gather(*busy)
    assert pool.gauges()["computing_running"] == 0


async def test_children_are_few_and_have_the_limits_that_they_should(pool: Pool, tmp_path: Path) -> None:
    gate, before = tmp_path / "gate", children()
    many = [
        asyncio.create_task(pool.compute(computations.wait_for, str(gate), seconds=LONG)) for _ in range(20)
    ]
    await eventually(lambda: pool.gauges()["computing_running"] == 2)
    assert len(started_since(before)) <= 2
    gate.touch()
    await asyncio.gather(*many)
    limits = await pool.compute(computations.tell_limits, seconds=LONG)
    rows = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max address space"] == [str(512 * MIB)] * 2
    assert rows["Max cpu time"][0] != "unlimited"


async def test_shares_take_turns(tmp_path: Path) -> None:
    async with Pool.open(1) as pool:
        gate, order = tmp_path / "gate", list[str]()
        busy = asyncio.create_task(
            pool.compute(computations.wait_for, str(gate), seconds=LONG, share="greedy")
        )
        await eventually(lambda: pool.gauges()["computing_running"] == 1)

        async def one(share: str) -> None:
            order.append(await pool.compute(computations.give_back, share, seconds=LONG, share=share))

        waiting = [asyncio.create_task(one(share)) for share in ["greedy"] * 5 + ["modest"]]
        await eventually(lambda: pool.gauges()["computing_waiting"] == 6)
        gate.touch()
        await asyncio.gather(busy, *waiting)
        assert order.index("modest") == 1


async def test_no_share_takes_all(tmp_path: Path) -> None:
    async with Pool.open(4) as pool:
        gate = tmp_path / "gate"
        greedy = [
            asyncio.create_task(pool.compute(computations.wait_for, str(gate), seconds=LONG, share="greedy"))
            for _ in range(9)
        ]
        await eventually(lambda: pool.gauges()["computing_running"] == 2)
        assert await pool.compute(computations.give_back, 1, seconds=LONG, share="modest") == 1
        assert pool.gauges()["computing_waiting"] == 7
        gate.touch()
        await asyncio.gather(*greedy)


async def test_turns_are_passed_on_whatever_is_cancelled() -> None:
    turns, got = Turns(1), list[int]()

    async def one(number: int) -> None:
        async with turns.turn(number % 2):
            got.append(number)
            await asyncio.sleep(0)

    async with turns.turn("first"):
        tasks = [asyncio.create_task(one(number)) for number in range(8)]
        await asyncio.sleep(0)
        for number in (0, 3, 7):
            tasks[number].cancel()
    tasks[1].cancel()  # it has just been let in
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(got) == [2, 4, 5, 6]
    assert (turns.running, turns.waiting) == (0, 0)


async def test_outcomes_are_counted() -> None:
    counted: Counter[str] = Counter()

    def count(name: str, amount: float = 1, **labels: str) -> None:
        counted[" ".join((name, *labels.values()))] += round(amount)

    async with Pool.open(1, count=count) as pool:
        await pool.compute(computations.give_back, 1, seconds=LONG)
        with pytest.raises(TooSlow):
            await pool.compute(computations.loop_for_ever, seconds=0.2)
        with pytest.raises(Broken):
            await pool.compute(computations.die, seconds=LONG)
    assert counted["computations_total done"] == 1
    assert counted["computations_total too_slow"] == 1
    assert counted["computations_total broken"] == 1
    assert counted["computing_starts_total"] >= 2


PARENT = """
import asyncio, sys
from tests.worker import computations
from worker.computing.pool import Pool

async def main():
    async with Pool.open(2) as pool:
        await asyncio.gather(*(
            pool.compute(computations.loop_for_ever, f"{sys.argv[1]}/{n}", seconds=3600) for n in range(2)
        ))

asyncio.run(main())
"""


async def test_no_child_outlives_a_worker_that_was_killed(tmp_path: Path) -> None:
    before = children()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])  # noqa: ASYNC220
    paths = [tmp_path / str(number) for number in range(2)]
    try:
        await eventually(lambda: all(path.exists() and path.read_text() for path in paths))
    finally:
        parent.kill()
        parent.wait()
    pids = [int(path.read_text()) for path in paths]
    await eventually(lambda: not any("worker.computing.child" in command(pid) for pid in pids))
    assert not started_since(before)


async def test_ending_ends_what_is_under_way(tmp_path: Path) -> None:
    async with Pool.open(2) as pool:
        started = tmp_path / "started"
        running = asyncio.create_task(pool.compute(computations.loop_for_ever, str(started), seconds=3600))
        await eventually(lambda: started.exists() and started.read_text())
    with pytest.raises(Broken):
        await running
    with pytest.raises(Broken):
        await pool.compute(computations.give_back, 1, seconds=LONG)
