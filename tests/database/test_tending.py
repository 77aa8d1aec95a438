"""The queue looks after itself: old jobs go, objects that nobody needs are found, and one tends at a time."""

import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.database.callers import Caller, Workspace, lease


def ended(workspace: Workspace, days: float, **arguments: Any) -> str:
    """A finished job with an artifact, so many days ago."""
    job_id = workspace.enqueue(**arguments)
    job = workspace.worker.claim()
    path = f"{workspace.id}/2026/11/25/{job_id}/1/a.png"
    workspace.worker.call(
        "finish_job", **lease(job), ok=True, artifacts=[{"name": "a.png", "size": 1, "path": path}]
    )
    ago = timedelta(days=days)
    workspace.server.run("update public.jobs set finished_at = now() - %s where id = %s", ago, job_id)
    return job_id


def left(workspace: Workspace) -> set[str]:
    return {
        str(row["id"])
        for row in workspace.server.rows("select id from public.jobs where workspace_id = %s", workspace.id)
    }


def test_what_is_older_than_the_workspace_keeps_it_goes_with_all_that_belongs_to_it(
    workspace: Workspace,
) -> None:
    old, recent, waiting = ended(workspace, 31), ended(workspace, 29), workspace.enqueue()
    failed = workspace.enqueue(priority=9)
    workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=False, give_up=True, error={})
    workspace.server.run(
        "update public.jobs set finished_at = now() - interval '40 days' where id = %s", failed
    )
    assert workspace.worker.rpc("remove_old_jobs")[0]["remove_old_jobs"] == 2
    assert left(workspace) == {recent, waiting}
    for table in ("job_events", "artifacts", "dead_letters"):
        (row,) = workspace.server.rows(
            f"select count(*) from public.{table} where job_id in (%s, %s)", old, failed
        )
        assert row["count"] == 0, table
    assert workspace.events(recent) == ["queued", "claimed", "succeeded"]


def test_the_owner_says_how_long_and_null_is_for_ever(workspace: Workspace) -> None:
    ended(workspace, 3)
    set_to = "update public.workspaces set retention_days = %s where id = %s"
    workspace.owner.run(set_to, None, workspace.id)
    assert workspace.worker.rpc("remove_old_jobs")[0]["remove_old_jobs"] == 0
    assert workspace.member.run(set_to, 1, workspace.id) == 0, "only the owner"
    workspace.owner.run(set_to, 2, workspace.id)
    assert workspace.worker.rpc("remove_old_jobs")[0]["remove_old_jobs"] == 1
    for wrong in (0, -1, 4000):
        with pytest.raises(psycopg.errors.CheckViolation) as error:
            workspace.owner.run(set_to, wrong, workspace.id)
        assert error.value.diag.constraint_name == "retention_days_is_1_to_3650"


def test_jobs_go_in_batches_and_of_ones_own_workspaces_alone(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    for _ in range(3):
        ended(workspace, 31)
    foreign = ended(other_workspace, 31)
    counts = [workspace.worker.rpc("remove_old_jobs", max_jobs=2)[0]["remove_old_jobs"] for _ in range(3)]
    assert counts == [2, 1, 0]
    assert left(other_workspace) == {foreign}


@pytest.mark.parametrize("call", ["remove_old_jobs", "objects_to_sweep", "tend_queue"])
def test_only_workers_and_the_server_tend(workspace: Workspace, call: str) -> None:
    for person in (workspace.member, workspace.owner, workspace.stranger):
        with pytest.raises(psycopg.Error) as error:
            person.rpc(call)
        assert error.value.sqlstate == "SJ201"


# Objects


def put(server: Caller, name: str) -> str:
    server.run("insert into storage.objects (bucket_id, name) values ('artifacts', %s)", name)
    return name


def test_objects_that_nobody_needs_are_found_and_no_others(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    def path(job: str, name: str, home: str = workspace.id) -> str:
        return put(workspace.server, f"{home}/2026/11/25/{job}/1/{name}")

    recorded, early = ended(workspace, 0.1), ended(workspace, 0.01)
    running = str(workspace.server.rows("select gen_random_uuid() as id")[0]["id"])
    workspace.enqueue(job_id=running)
    workspace.worker.claim()
    kept = [
        path(recorded, "a.png"),
        path(early, "late.png"),
        path(running, "now.png"),
        put(workspace.server, f"{workspace.id}/notes.txt"),
    ]
    gone = [path(recorded, "unrecorded.png"), path(str(uuid.uuid4()), "a.png")]
    foreign = path(str(uuid.uuid4()), "a.png", other_workspace.id)

    found = set(sweepable(workspace.worker, 2))
    assert found >= set(gone)
    assert not found & {*kept, foreign}
    assert {*gone, foreign} <= set(sweepable(workspace.server, 1000))


def sweepable(caller: Caller, size: int) -> list[str]:
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        slice_ = caller.call("objects_to_sweep", after=after, max_objects=size)
        found += slice_["paths"]
        after = slice_["scanned_to"]
    return found


# All of it


def test_tending_takes_back_leases_and_cleans(workspace: Workspace) -> None:
    ended(workspace, 31)
    late = workspace.enqueue()
    workspace.worker.claim()
    workspace.expire(late)
    first = workspace.worker.call("tend_queue")
    assert (first["busy"], first["released"], first["removed"], first["sweep_objects"]) == (False, 1, 1, True)
    workspace.member.call("cancel_job", job_id=late)
    ended(workspace, 31)
    second = workspace.worker.call("tend_queue")
    assert (second["released"], second["removed"], second["sweep_objects"]) == (0, 0, False), (
        "cleaning has its minute"
    )


def test_one_tends_at_a_time(workspace: Workspace) -> None:
    with workspace.worker.session.transaction():
        assert workspace.worker.call("tend_queue")["busy"] is False
        assert workspace.worker2.call("tend_queue")["busy"] is True
    assert workspace.worker2.call("tend_queue")["busy"] is False


def test_a_failure_in_cleaning_does_not_keep_leases_from_going_back(workspace: Workspace) -> None:
    late = workspace.enqueue()
    workspace.worker.claim()
    workspace.expire(late)
    with workspace.server.session.transaction(force_rollback=True):
        workspace.server.run("alter function public.remove_old_jobs(int) rename to remove_no_jobs")
        answer = workspace.server.call("tend_queue")
    assert answer["released"] >= 1


def test_a_cancelled_job_is_told_at_the_next_heartbeat_of_its_process(workspace: Workspace) -> None:
    job_id, other = workspace.enqueue(), workspace.enqueue()
    workspace.worker.rpc("claim_jobs", max_jobs=1, agent_id="a-" + job_id)
    workspace.member.call("cancel_job", job_id=job_id)
    workspace.member.call("cancel_job", job_id=other)
    beat = workspace.worker.call("worker_heartbeat", agent_id="a-" + job_id)
    assert [str(cancelled) for cancelled in beat["cancelled"]] == [job_id]
    assert workspace.worker.call("worker_heartbeat", agent_id="b-" + job_id)["cancelled"] == []
    assert workspace.worker2.call("worker_heartbeat", agent_id="c-" + job_id)["cancelled"] == []
    (message,) = workspace.server.rows(
        "select payload from realtime.messages where topic = %s and event = 'task.cancel'",
        f"executors:{workspace.id}:default",
    )
    assert (message["payload"]["jobId"], message["payload"]["attempt"]) == (job_id, 1)
