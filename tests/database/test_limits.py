"""How much runs at once, how often something is begun, whose turn it is, and what is paused."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.database.callers import Caller, Row, Workspace, lease


def limit(workspace: Workspace, **values: Any) -> None:
    columns = ", ".join(values)
    marks = ", ".join("%s" for _ in values)
    workspace.owner.run(f"insert into public.job_limits ({columns}) values ({marks})", *values.values())


def fill(workspace: Workspace, count: int, **fields: Any) -> None:
    workspace.member.rpc("enqueue_jobs", jobs=[{"type": "test.job", **fields}] * count)


def take(caller: Caller, count: int, **arguments: Any) -> list[Row]:
    return caller.rpc("claim_jobs", max_jobs=count, **arguments)


def finish(caller: Caller, jobs: list[Row]) -> None:
    caller.rpc("finish_jobs", reports=[{**lease(job), "job_id": str(job["id"]), "ok": True} for job in jobs])


# Limits


def test_no_more_run_at_once_than_the_limit_says(workspace: Workspace) -> None:
    limit(workspace, max_running=3)
    fill(workspace, 10)
    first = take(workspace.worker, 10)
    assert len(first) == 3
    assert take(workspace.worker2, 10) == []
    finish(workspace.worker, first[:2])
    assert len(take(workspace.worker2, 10)) == 2


def test_a_limit_counts_its_own_executor_and_types_alone(workspace: Workspace) -> None:
    limit(workspace, executor_id="small", max_running=1)
    limit(workspace, type_prefix="figma.", max_running=2)
    for executor in ("small", "default"):
        fill(workspace, 5, type="figma.export", executor_id=executor)
        fill(workspace, 5, type="browser.pdf", executor_id=executor)
    assert len(take(workspace.worker, 10, executor_id="small")) == 1
    taken = Counter(job["type"] for job in take(workspace.worker, 10))
    assert taken == {"figma.export": 1, "browser.pdf": 5}, "one figma job runs on the other executor"


def test_what_a_limit_holds_back_does_not_hold_back_what_stands_behind_it(workspace: Workspace) -> None:
    limit(workspace, type_prefix="figma.", max_running=0)
    fill(workspace, 20, type="figma.export", priority=9)
    fill(workspace, 1)
    (job,) = workspace.worker.rpc("claim_one_job")
    assert job["type"] == "test.job"
    assert workspace.worker.rpc("claim_one_job", type_prefix="figma.") == []


def test_claims_in_any_span_of_time_are_bounded(workspace: Workspace) -> None:
    limit(workspace, type_prefix="figma.", max_starts=4, per_seconds=60)
    fill(workspace, 10, type="figma.export")
    finish(workspace.worker, take(workspace.worker, 3))
    assert len(take(workspace.worker2, 10)) == 1, "the fourth in a minute"
    assert take(workspace.worker, 10) == []
    older = "update public.job_limits set starts = array(select s - interval '61 seconds' from unnest(starts) as s where s <= starts[%s]) || starts[%s + 1:]"
    workspace.server.run(older + " where workspace_id = %s", 2, 2, workspace.id)
    assert len(take(workspace.worker, 10)) == 2, "two of the four are more than a minute ago"


def test_64_claimers_do_not_pass_a_limit(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    limit(workspace, max_running=10)
    limit(workspace, type_prefix="test.", max_starts=17, per_seconds=3600)
    fill(workspace, 100)
    claimers = [sign_in(workspace.worker.user_id) for _ in range(64)]

    def work(claimer: Caller) -> int:
        done = 0
        for _ in range(4):
            jobs = take(claimer, 2)
            (running,) = claimer.rows(
                "select count(*) from public.jobs where workspace_id = %s and status = 'assigned'",
                workspace.id,
            )
            assert running["count"] <= 10
            if jobs:
                finish(claimer, jobs)
            done += len(jobs)
        return done

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(work, claimers)) == 17


def test_workers_of_two_limited_workspaces_do_not_wait_for_each_other(
    workspace: Workspace, other_workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    join(workspace.worker, other_workspace)
    for each in (workspace, other_workspace):
        limit(each, max_running=1000)
        fill(each, 200)
    claimers = [sign_in(workspace.worker.user_id) for _ in range(16)]

    def work(claimer: Caller) -> int:
        return sum(len(take(claimer, 2)) for _ in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(work, claimers)) == 400


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({}, "max_running_or_max_starts_is_set"),
        ({"max_running": -1}, "max_running_is_0_to_100000"),
        ({"max_starts": 0, "per_seconds": 60}, "max_starts_is_1_to_1000"),
        ({"max_starts": 5}, "max_starts_and_per_seconds_go_together"),
        ({"max_starts": 5, "per_seconds": 100_000}, "per_seconds_is_1_to_86400"),
        ({"max_running": 1, "executor_id": "no such name!"}, "executor_id_is_a_short_name"),
        ({"max_running": 1, "type_prefix": "%"}, "type_prefix_is_the_start_of_a_type"),
    ],
)
def test_a_wrong_limit_breaks_a_constraint(
    workspace: Workspace, values: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        limit(workspace, **{"type_prefix": "", **values})
    assert error.value.diag.constraint_name == constraint


def test_a_scope_has_one_limit(workspace: Workspace) -> None:
    limit(workspace, max_running=1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        limit(workspace, max_running=2)


# Turns


def join(worker: Caller, workspace: Workspace) -> None:
    workspace.server.run(
        "insert into public.workspace_members (workspace_id, user_id, role, worker_id) values (%s, %s, 'worker', %s)",
        workspace.id, worker.user_id, f"also-{worker.user_id}",
    )  # fmt: skip


def test_a_workspace_with_many_jobs_does_not_starve_one_with_few(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    join(workspace.worker, other_workspace)
    workspace.server.run(
        "insert into public.jobs (workspace_id, type) select %s, 'test.job' from generate_series(1, 2000)",
        workspace.id,
    )
    fill(other_workspace, 6)
    batch = Counter(str(job["workspace_id"]) for job in take(workspace.worker, 10))
    assert batch == {workspace.id: 5, other_workspace.id: 5}, "each its half"
    one_by_one = [str(job["workspace_id"]) for _ in range(2) for job in take(workspace.worker, 1)]
    assert other_workspace.id in one_by_one, "who has less in hand comes first"
    assert len(take(workspace.worker, 10)) == 10, "what one does not need goes to the other"


def test_a_low_priority_is_not_starved_by_a_high_one(workspace: Workspace) -> None:
    old, fresh = workspace.enqueue(priority=0), workspace.enqueue(priority=5)
    assert str(workspace.worker.claim()["id"]) == fresh
    waited = "update public.jobs set next_run_at = now() - interval '6 minutes' where id = %s"
    fresh = workspace.enqueue(priority=5)
    workspace.server.run(waited, old)
    assert str(workspace.worker.claim()["id"]) == old
    assert str(workspace.worker.claim()["id"]) == fresh


# Pauses


def test_a_paused_executor_rests_until_it_is_resumed(workspace: Workspace) -> None:
    workspace.enqueue()
    running = workspace.worker.claim()
    workspace.enqueue()
    elsewhere = workspace.enqueue(executor_id="elsewhere")
    workspace.owner.rpc("pause_executor", executor_id="default", reason="Figma is down")
    workspace.owner.rpc("pause_executor", executor_id="default", reason="Figma is still down")
    assert workspace.worker.rpc("claim_one_job") == []
    assert str(workspace.worker.claim(executor_id="elsewhere")["id"]) == elsewhere
    assert workspace.worker.call("finish_job", **lease(running), ok=True)["status"] == "succeeded"
    (paused,) = workspace.viewer.rows(
        "select executor_id, reason, paused_by::text from public.paused_executors"
    )
    assert paused == {
        "executor_id": "default",
        "reason": "Figma is still down",
        "paused_by": workspace.owner.user_id,
    }
    workspace.owner.rpc("resume_executor", executor_id="default")
    workspace.owner.rpc("resume_executor", executor_id="default")
    assert workspace.worker.claim()


@pytest.mark.parametrize("call", ["pause_executor", "resume_executor"])
def test_only_owners_pause(workspace: Workspace, other_workspace: Workspace, call: str) -> None:
    for person in (workspace.member, workspace.viewer, workspace.worker):
        with pytest.raises(psycopg.Error) as error:
            person.rpc(call, executor_id="default")
        assert error.value.sqlstate == "SJ201"
    with pytest.raises(psycopg.Error) as error:
        workspace.owner.rpc(call, executor_id="default", workspace_id=other_workspace.id)
    assert error.value.sqlstate == "SJ200"


def test_resuming_wakes_the_workers(workspace: Workspace) -> None:
    workspace.enqueue()
    workspace.owner.rpc("pause_executor", executor_id="default")
    workspace.server.run("delete from sidejob.wake_ups where workspace_id = %s", workspace.id)
    before = sent(workspace)
    workspace.owner.rpc("resume_executor", executor_id="default")
    assert sent(workspace) == before + 1


def sent(workspace: Workspace) -> int:
    (row,) = workspace.server.rows(
        "select count(*) from realtime.messages where topic = %s and event = 'task.assign'",
        f"executors:{workspace.id}:default",
    )
    return int(row["count"])
