"""Delays are added by the database, whose clock is the only one that counts; hand-backs without end slow down."""

import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.database.callers import Row, Workspace, lease

YEAR = 31_536_000


def delay_of(row: Row) -> timedelta:
    """From the last move to the next attempt, both by the database's clock."""
    delay: timedelta = row["next_run_at"] - row["updated_at"]
    return delay


def test_a_hand_back_waits_as_many_seconds_as_the_worker_says(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    slow_clock = datetime.now(UTC) - timedelta(minutes=10)
    answer = workspace.worker.call(
        "release_job", **lease(workspace.worker.claim()), run_at=slow_clock, delay_seconds=30.5, reason="rate"
    )
    row = workspace.job(job_id)
    assert delay_of(row) == timedelta(seconds=30.5)
    assert answer["next_run_at"] == row["next_run_at"]
    assert row["last_detail"]["reason"] == "rate"
    assert workspace.worker.rpc("claim_one_job") == []


def test_of_a_delay_and_a_date_the_later_one_counts(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    later = datetime.now(UTC) + timedelta(hours=1)
    workspace.worker.call("release_job", **lease(workspace.worker.claim()), run_at=later, delay_seconds=30)
    assert workspace.job(job_id)["next_run_at"] == later


@pytest.mark.parametrize("call", ["finish_job", "finish_jobs", "finish_and_claim"])
def test_a_failed_attempt_is_repeated_as_many_seconds_later_as_the_worker_says(
    workspace: Workspace, call: str
) -> None:
    job_id = workspace.enqueue()
    report = {
        **lease(workspace.worker.claim()),
        "ok": False,
        "error": {"code": "busy"},
        "retry_after_seconds": 90,
    }
    if call == "finish_job":
        workspace.worker.call(call, **report)
    else:
        workspace.worker.rpc(call, reports=[{**report, "job_id": job_id}])
    assert delay_of(workspace.job(job_id)) == timedelta(seconds=90)


@pytest.mark.parametrize("seconds", [0, YEAR])
def test_a_delay_may_be_nothing_and_a_year(workspace: Workspace, seconds: int) -> None:
    job_id = workspace.enqueue()
    workspace.worker.call(
        "finish_job", **lease(workspace.worker.claim()), ok=False, error={}, retry_after_seconds=seconds
    )
    assert delay_of(workspace.job(job_id)) == timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [-0.001, -math.inf, math.nan, math.inf, YEAR + 1])
@pytest.mark.parametrize(
    ("call", "name", "more"),
    [
        ("release_job", "delay_seconds", {}),
        ("finish_job", "retry_after_seconds", {"ok": False, "error": {}}),
        ("finish_jobs", "retry_after_seconds", {"ok": False, "error": {}}),
    ],
)
def test_a_delay_out_of_range_is_refused_by_its_name(
    workspace: Workspace, call: str, name: str, more: Row, seconds: float
) -> None:
    job_id = workspace.enqueue()
    sent: Row = {**lease(workspace.worker.claim()), **more, name: seconds}
    other = {"job_id": str(uuid.uuid4()), "ok": True}
    arguments = (
        {"reports": [{**sent, "job_id": job_id, name: str(seconds)}, other]}
        if call == "finish_jobs"
        else sent
    )
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.rpc(call, **arguments)
    assert error.value.sqlstate == "SJ100"
    assert error.value.diag.message_primary == f"{name}: must be 0 to 31536000 seconds"
    assert workspace.job(job_id)["status"] == "assigned"


def hand_back(workspace: Workspace, job_id: str, times_before: int, **arguments: Any) -> timedelta:
    """Hands a job back that was handed back so many times before; how long it then waits."""
    workspace.server.run(
        "update public.jobs set attempts = %s, released = %s, next_run_at = now() where id = %s",
        times_before, times_before, job_id,
    )  # fmt: skip
    workspace.worker.call("release_job", **lease(workspace.worker.claim()), **arguments)
    return delay_of(workspace.job(job_id))


def test_hand_backs_without_end_slow_down_whatever_the_worker_says(workspace: Workspace) -> None:
    job_id = workspace.enqueue(max_attempts=1)
    assert hand_back(workspace, job_id, 9) == timedelta(0), "a drain is no reason to wait"
    for times_before, longest in ((10, 5), (11, 10), (12, 20), (17, 600), (100_000, 600)):
        past = datetime.now(UTC) - timedelta(minutes=10)
        for arguments in ({}, {"run_at": past}, {"delay_seconds": 0}):
            waits = hand_back(workspace, job_id, times_before, **arguments)
            assert timedelta(seconds=longest / 2) <= waits <= timedelta(seconds=longest), times_before
    assert len({hand_back(workspace, job_id, 50) for _ in range(3)}) == 3, "not all at the same time"
    assert hand_back(workspace, job_id, 50, delay_seconds=3600) == timedelta(hours=1)
    row = workspace.job(job_id)
    assert row["attempts"] - row["released"] == 0, "it still costs no attempt"


def test_a_claim_says_how_long_the_job_had_been_due(workspace: Workspace) -> None:
    def claimed_after(waited: str) -> int:
        job_id = workspace.enqueue()
        workspace.server.run(
            f"update public.jobs set next_run_at = now() - interval '{waited}' where id = %s", job_id
        )
        queue_ms: int = workspace.worker.claim()["queue_ms"]
        return queue_ms

    assert 90_000 <= claimed_after("90 seconds") < 3_600_000
    assert claimed_after("30 days") == 2_147_483_647
    workspace.enqueue()
    (job,) = workspace.worker.call("finish_and_claim")["finish_and_claim"]["claimed"]
    assert 0 <= job["queue_ms"] < 3_600_000
