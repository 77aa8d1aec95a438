"""Reports of many attempts in one call, and claims with them."""

import uuid
from typing import Any

import psycopg
import pytest

from tests.database.callers import Row, Workspace, lease


def report(job: Row, **more: Any) -> Row:
    return {**lease(job), "job_id": str(job["id"]), "ok": True, **more}


def claimed(workspace: Workspace, count: int) -> list[Row]:
    workspace.member.rpc(
        "enqueue_jobs", jobs=[{"type": "test.job", "payload": {"n": n}} for n in range(count)]
    )
    return workspace.worker.rpc("claim_jobs", max_jobs=count)


def test_each_report_is_judged_for_itself(workspace: Workspace) -> None:
    won, again, gone, lost, foreign = claimed(workspace, 5)
    workspace.member.call("cancel_job", job_id=foreign["id"])
    answers = workspace.worker.rpc(
        "finish_jobs",
        reports=[
            report(won, result={"n": 1}),
            report(again, ok=False, error={"code": "x"}),
            report(gone, ok=False, give_up=True, error={"code": "y"}),
            report(lost, lease_token="wrong"),
            report(foreign),
        ],
    )
    assert [(str(a["job_id"]), a["status"]) for a in answers] == [
        (str(won["id"]), "succeeded"),
        (str(again["id"]), "queued"),
        (str(gone["id"]), "failed"),
        (str(lost["id"]), None),
        (str(foreign["id"]), None),
    ]
    assert workspace.events(str(won["id"])) == ["queued", "claimed", "succeeded"]
    assert workspace.job(str(won["id"]))["result"] == {"n": 1}
    assert workspace.events(str(again["id"])) == ["queued", "claimed", "retry_scheduled"]
    assert workspace.events(str(gone["id"])) == ["queued", "claimed", "failed", "dead_lettered"]
    assert workspace.job(str(lost["id"]))["status"] == "assigned"


def test_the_token_of_one_job_does_not_end_another_of_the_same_claim(workspace: Workspace) -> None:
    mine, other = claimed(workspace, 2)
    swapped = [report(mine, lease_token=other["lease_token"]), report(other, lease_token=mine["lease_token"])]
    answers = workspace.worker.rpc("finish_jobs", reports=swapped)
    assert [answer["status"] for answer in answers] == [None, None]
    assert {workspace.job(str(job["id"]))["status"] for job in (mine, other)} == {"assigned"}


def test_the_same_reports_again_change_nothing(workspace: Workspace) -> None:
    jobs = claimed(workspace, 2)
    reports = [report(jobs[0], result={"n": 1}), report(jobs[1], ok=False, error={"code": "x"})]
    assert workspace.worker.rpc("finish_jobs", reports=reports) == workspace.worker.rpc(
        "finish_jobs", reports=reports
    )
    assert workspace.events(str(jobs[0]["id"])) == ["queued", "claimed", "succeeded"]
    other = [report(jobs[0], result={"n": 2}), report(jobs[1])]
    assert [answer["status"] for answer in workspace.worker.rpc("finish_jobs", reports=other)] == [None, None]


def test_artifacts_of_a_batch_are_recorded_with_their_jobs(workspace: Workspace) -> None:
    jobs = claimed(workspace, 2)

    def path(job: Row) -> str:
        return f"{workspace.id}/2026/11/25/{job['id']}/1/a.png"

    workspace.worker.rpc(
        "finish_jobs",
        reports=[report(job, artifacts=[{"name": "a.png", "size": 1, "path": path(job)}]) for job in jobs],
    )
    rows = workspace.viewer.rows("select job_id, path from public.artifacts")
    assert {(row["job_id"], row["path"]) for row in rows} == {(job["id"], path(job)) for job in jobs}


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "reports: must be a list of 1 to 1000"),
        ({"ok": True}, "reports: must be a list of 1 to 1000"),
        ([{"job_id": str(uuid.uuid4())}], "ok: must be true or false"),
        ([{"job_id": str(uuid.uuid4()), "ok": True, "artifacts": {}}], "artifacts: must be a list"),
        (
            [{"job_id": str(uuid.UUID(int=1)), "ok": True}] * 2,
            "job_id: each job may be reported once in a call",
        ),
        ([{"job_id": "one", "ok": True}], 'reports[0].job_id: invalid input syntax for type uuid: "one"'),
        ([{"ok": True}, {"ok": "maybe"}], 'reports[1].ok: invalid input syntax for type boolean: "maybe"'),
        ([1], "reports[0]: must be an object"),
    ],
)
def test_a_wrong_batch_is_refused_whole(workspace: Workspace, reports: list[Row], message: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.rpc("finish_jobs", reports=reports)
    assert (error.value.sqlstate, error.value.diag.message_primary) == ("SJ100", message)


def test_a_claim_may_start_its_jobs_at_once(workspace: Workspace) -> None:
    workspace.enqueue()
    (job,) = workspace.worker.rpc("claim_jobs", start=True, agent_id="a-1")
    assert job["status"] == "running"
    row = workspace.job(str(job["id"]))
    assert row["started_at"] is not None
    found = workspace.server.rows(
        "select event_type, payload from public.job_events where job_id = %s order by seq", job["id"]
    )
    assert [event["event_type"] for event in found] == ["job.queued", "job.claimed", "job.started"]
    assert found[1]["payload"]["agent_id"] == "a-1"
    assert found[2]["payload"] == {}
    workspace.worker.call("start_job", **lease(job))
    workspace.worker.call("finish_job", **lease(job), ok=True)
    assert workspace.events(str(job["id"])) == ["queued", "claimed", "started", "succeeded"]


def test_one_call_ends_what_is_done_and_takes_what_is_next(workspace: Workspace) -> None:
    first = workspace.enqueue(priority=9)
    second = workspace.enqueue()
    (took,) = workspace.worker.call("finish_and_claim")["finish_and_claim"]["claimed"]
    assert took["id"] == first
    answer = workspace.worker.call("finish_and_claim", reports=[report(took)], start=True, lease_seconds=30)[
        "finish_and_claim"
    ]
    assert answer["finished"] == [{"job_id": first, "attempt": 1, "status": "succeeded"}]
    (took,) = answer["claimed"]
    assert (took["id"], took["status"]) == (second, "running")
    answer = workspace.worker.call("finish_and_claim", reports=[report(took)], max_jobs=0)["finish_and_claim"]
    assert answer["claimed"] == []
    assert workspace.events(second) == ["queued", "claimed", "started", "succeeded"]


def test_only_a_worker_reports(workspace: Workspace) -> None:
    (job,) = claimed(workspace, 1)
    for person in (workspace.member, workspace.owner, workspace.stranger):
        for call in ("finish_jobs", "finish_and_claim"):
            with pytest.raises(psycopg.Error) as error:
                person.rpc(call, reports=[report(job)])
            assert error.value.sqlstate == "SJ201"
    (answer,) = workspace.worker2.rpc("finish_jobs", reports=[report(job)])
    assert answer["status"] is None, "another worker's lease"
    assert workspace.job(str(job["id"]))["status"] == "assigned"
