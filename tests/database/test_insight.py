"""What people and autoscalers read about the queue."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.database.callers import Workspace, lease


def test_depth_tells_what_waits_and_runs_by_executor_and_type(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    other_workspace.enqueue()
    parent = workspace.enqueue()
    workspace.enqueue()
    workspace.enqueue(depends_on=(parent,))
    workspace.enqueue(run_at=datetime.now(UTC) + timedelta(hours=1))
    workspace.enqueue(type="figma.export", executor_id="figma")
    workspace.server.run(
        "update public.jobs set next_run_at = now() - interval '90 seconds' where id = %s", parent
    )
    rows = workspace.viewer.rpc("queue_depth")
    assert [(row["executor_id"], row["type"], row["ready"], row["delayed"], row["blocked"], row["in_flight"]) for row in rows] == [
        ("default", "test.job", 2, 1, 1, 0), ("figma", "figma.export", 1, 0, 0, 0),
    ]  # fmt: skip
    assert 90 <= rows[0]["oldest_ready_seconds"] < 120
    workspace.worker.claim()
    workspace.owner.rpc("pause_executor", executor_id="default")
    (row,) = workspace.viewer.rpc("queue_depth", executor_id="default")
    assert (row["ready"], row["in_flight"], row["paused"]) == (1, 1, True)
    assert 0 <= row["oldest_ready_seconds"] < 60


def test_the_overview_tells_times_attempts_and_throughput_of_the_last_hour(workspace: Workspace) -> None:
    for seconds in (1, 2, 3, 4, 100):
        workspace.enqueue()
        job = workspace.worker.claim()
        workspace.worker.call("start_job", **lease(job))
        workspace.worker.call("finish_job", **lease(job), ok=True)
        workspace.server.run(
            "update public.jobs set started_at = finished_at - %s * interval '1 second', next_run_at = finished_at - (%s + 7) * interval '1 second' where id = %s",
            seconds, seconds, job["id"],
        )  # fmt: skip
    overview: dict[str, Any] = workspace.viewer.call("metrics_overview")["metrics_overview"]
    assert overview["counts"] == {
        "queued": 0,
        "assigned": 0,
        "running": 0,
        "succeeded": 5,
        "failed": 0,
        "cancelled": 0,
    }
    assert overview["lastHour"]["runSeconds"] == {"p50": 3.0, "p95": pytest.approx(80.8)}
    assert overview["lastHour"]["waitSeconds"] == {"p50": 7.0, "p95": 7.0}
    assert (overview["lastHour"]["sampled"], overview["lastHour"]["meanAttempts"]) == (5, 1.0)
    assert overview["lastHour"]["perMinute"] == pytest.approx(5 / 60, abs=0.05)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into sidejob.wake_ups values (gen_random_uuid(), 'idle', now())",
        "select pg_current_xact_id()",
        "declare open_cursor cursor for select 1",
    ],
)
def test_a_forgotten_transaction_shows(workspace: Workspace, sign_in: Any, statement: str) -> None:
    """It is idle, and holds back the cleaning of rows by what it wrote or by a snapshot."""
    forgotten = sign_in(None)
    forgotten.session.execute("reset role")
    with forgotten.session.transaction(force_rollback=True):
        forgotten.run(statement)
        (began,) = forgotten.rows("select xact_start from pg_stat_activity where pid = pg_backend_pid()")
        while True:  # until it is a second old
            workspace.server.rows("select pg_sleep(0.1)")
            (clock,) = workspace.server.rows("select clock_timestamp() - %s as age", began["xact_start"])
            overview = workspace.viewer.call("metrics_overview")["metrics_overview"]
            if clock["age"] > timedelta(seconds=1.1):
                break
        assert overview["oldestTransactionSeconds"] >= 1


def test_an_empty_workspace_has_an_overview(workspace: Workspace) -> None:
    overview = workspace.viewer.call("metrics_overview")["metrics_overview"]
    assert (overview["executors"], overview["oldestQueuedSeconds"], overview["lastHour"]["sampled"]) == (
        [],
        None,
        0,
    )
    assert overview["lastHour"]["perMinute"] == 0


def test_the_backlog_is_what_workers_could_have_in_hand_now(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    def backlog(*arguments: str) -> int:
        places = ", ".join(["%s"] * len(arguments))
        (row,) = workspace.server.rows(f"select sidejob.backlog({places}) as jobs", *arguments)
        return int(row["jobs"])

    executor = f"scaled-{uuid.uuid4()}"
    assert backlog(executor) == 0
    parent = workspace.enqueue(executor_id=executor)
    workspace.enqueue(executor_id=executor)
    workspace.enqueue(executor_id=executor, depends_on=(parent,))
    workspace.enqueue(executor_id=executor, run_at=datetime.now(UTC) + timedelta(hours=1))
    other_workspace.enqueue(executor_id=executor)
    assert backlog(executor) == 3
    assert backlog(executor, f"w-{workspace.worker.user_id}") == 2
    assert backlog(executor, "nobody") == 0
    workspace.worker.claim(executor_id=executor)
    assert backlog(executor) == 3, "what is in work still needs its worker"
    workspace.owner.rpc("pause_executor", executor_id=executor)
    assert backlog(executor) == 2, "what is paused needs none"
