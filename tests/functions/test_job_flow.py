"""The way of a job over HTTP: in, claimed, reported, listed, signed; what a repeat and a late worker get."""

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.stack import Person, Stack, done, refused

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fccff0bf1e00060402fdd5b6"
    "b5e80000000049454e44ae426082"
)


def assign(member: Person, executor: str, **more: object) -> dict[str, Any]:
    return done(member.post("task-assign", {"type": "browser.screenshot", "executorId": executor, **more}))


def claim(worker: Person, executor: str) -> dict[str, Any]:
    job: dict[str, Any] = done(worker.post("task-claim", {"executorId": executor}))["job"]
    return job


def lease(job: dict[str, Any]) -> dict[str, Any]:
    return {"jobId": job["id"], "attempt": job["attempt"], "leaseToken": job["lease_token"]}


def store(
    worker: Person, job: dict[str, Any], name: str = "screenshot.png", content: bytes = PNG
) -> dict[str, Any]:
    path = f"{job['workspace_id']}/2026/11/23/{job['id']}/{job['attempt']}/{name}"
    assert worker.upload(path, content, "image/png").status_code == 200
    sha256 = hashlib.sha256(content).hexdigest()
    return {"name": name, "mime": "image/png", "size": len(content), "sha256": sha256, "path": path}


def status(person: Person, job_id: str) -> dict[str, Any]:
    return done(person.get("job-status", id=job_id))


def test_a_job_goes_in_and_its_file_comes_out(member: Person, worker: Person, executor: str) -> None:
    job_id = assign(member, executor, payload={"url": "https://supabase.com"})["jobId"]
    job = claim(worker, executor)
    assert (job["id"], job["attempt"], job["payload"]) == (job_id, 1, {"url": "https://supabase.com"})
    report = {**lease(job), "ok": True, "action": "screenshot", "artifact": store(worker, job)}
    assert done(worker.post("task-result", report)) == {"ok": True, "jobId": job_id, "status": "succeeded"}

    seen = status(member, job_id)
    assert seen["job"]["status"] == "succeeded"
    assert seen["job"]["result"] == {"action": "screenshot"}
    assert [event["event_type"] for event in seen["events"]] == ["job.queued", "job.claimed", "job.succeeded"]
    assert [event["seq"] for event in seen["events"]] == [1, 2, 3]
    listed = done(member.get("artifacts-list", jobId=job_id))
    assert listed["items"] == seen["artifacts"]
    assert (listed["count"], listed["nextCursor"]) == (1, None)

    (file,) = listed["items"]
    for signed in (
        member.get("sign-artifact", artifactId=file["id"], expires=60),
        member.get("sign-artifact", bucket=file["bucket"], path=file["path"], expires=60),
        member.post("sign-artifact", {"artifactId": file["id"], "expires": 60}),
    ):
        answer = done(signed)
        assert set(answer) == {"url", "bucket", "path", "expires"}
        assert (answer["bucket"], answer["path"], answer["expires"]) == ("artifacts", file["path"], 60)
        assert member.stack.http.get(answer["url"]).content == PNG


def test_an_empty_queue_is_a_null_job(worker: Person, executor: str) -> None:
    assert done(worker.post("task-claim", {"executorId": executor})) == {"job": None}


def test_a_claim_may_name_the_worker_but_only_his_own(member: Person, worker: Person, executor: str) -> None:
    assign(member, executor)
    (mine,) = worker.rest("GET", "workspace_members", select="worker_id", role="eq.worker").json()
    wrong = refused(
        worker.post("task-claim", {"executorId": executor, "workerId": "another"}), 403, "forbidden"
    )
    assert "`workerId`" in wrong["error"]
    body = {"executorId": executor, "workerId": mine["worker_id"]}
    assert done(worker.post("task-claim", body))["job"]["worker_id"] == mine["worker_id"]


def test_the_same_key_is_the_same_job_and_another_payload_is_422(member: Person, executor: str) -> None:
    key = f"key {uuid.uuid4()}"
    first = assign(member, executor, idempotencyKey=key, payload={"n": 1})
    assert first["queued"] is True
    again = assign(member.adding(idempotency_key=f'"{key}"'), executor, payload={"n": 1})
    assert again == {**first, "queued": False}
    assert assign(member.adding(idempotency_key=key), executor, payload={"n": 1}) == again
    body = {"type": "browser.screenshot", "executorId": executor, "idempotencyKey": key, "payload": {"n": 2}}
    refused(member.post("task-assign", body), 422, "idempotency_mismatch")
    differing = refused(member.adding(idempotency_key="other").post("task-assign", body), 422, "invalid_body")
    assert "`idempotencyKey`" in differing["error"]


def test_the_callers_own_id_twice_is_the_same_job(member: Person, stranger: Person, executor: str) -> None:
    job_id = str(uuid.uuid4())
    assert assign(member, executor, jobId=job_id) == {"jobId": job_id, "queued": True, "status": "queued"}
    assert assign(member, executor, jobId=job_id)["queued"] is False
    taken = stranger.post(
        "task-assign", {"type": "browser.screenshot", "executorId": executor, "jobId": job_id}
    )
    refused(taken, 409, "job_id_taken")


def test_a_trace_goes_from_the_request_into_the_job(member: Person, executor: str) -> None:
    trace = uuid.uuid4().hex
    job_id = assign(member.adding(traceparent=f"00-{trace}-00f067aa0ba902b7-01"), executor)["jobId"]
    assert status(member, job_id)["job"]["trace_id"] == trace


def test_the_same_report_twice_changes_nothing(member: Person, worker: Person, executor: str) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    report = {**lease(job), "ok": True, "result": {"n": 1}, "artifacts": [store(worker, job)]}
    first = done(worker.post("task-result", report))
    before = status(member, job["id"])
    assert done(worker.post("task-result", report)) == first
    assert status(member, job["id"]) == before
    other = {**report, "result": {"n": 2}}
    assert refused(worker.post("task-result", other), 409, "lease_lost")["details"] == {"status": "succeeded"}
    assert status(member, job["id"]) == before


@pytest.mark.parametrize(
    "change", [{"attempt": 2}, {"leaseToken": "guessed"}, {"attempt": 1, "leaseToken": ""}]
)
def test_a_report_without_the_lease_is_409_and_writes_nothing(
    member: Person, worker: Person, executor: str, change: dict[str, Any]
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    before = status(member, job["id"])
    report = {**lease(job), **change, "ok": True}
    assert refused(worker.post("task-result", report), 409, "lease_lost")["details"] == {"status": "assigned"}
    assert status(member, job["id"]) == before


def test_another_worker_cannot_report_with_a_stolen_token(
    member: Person, worker: Person, other_worker: Person, executor: str
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    refused(other_worker.post("task-result", {**lease(job), "ok": True}), 409, "lease_lost")
    assert status(member, job["id"])["job"]["status"] == "assigned"


def sweep_expired(stack: Stack, job: dict[str, Any], sweep: Callable[[], dict[str, Any]]) -> None:
    """Ends the job's lease and sweeps until the sweep says that it found one. The stack's own worker may have
    been faster; then the job, which is queued again, is expired once more."""
    for _ in range(20):
        stack.sql.execute(
            "update public.jobs set status = 'assigned', last_event = 'job.claimed',"
            " lease_owner = coalesce(lease_owner, created_by), lease_hash = coalesce(lease_hash, ''),"
            " lease_until = now() - interval '1 second' where id = %s",
            [job["id"]],
        )
        if sweep()["released"] >= 1:
            return
    raise AssertionError("no sweep found the expired lease")


def test_a_swept_lease_is_lost_and_the_job_is_queued_again(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    sweep_expired(stack, job, lambda: done(worker.post("leases-release", {})))
    assert status(member, job["id"])["job"]["status"] == "queued"
    refused(worker.post("task-result", {**lease(job), "ok": True}), 409, "lease_lost")


def test_cron_may_sweep_with_the_secret_key_and_a_browser_may_not(
    stack: Stack, nobody: Person, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    cron = nobody.adding(apikey=stack.env["SUPABASE_SECRET_KEY"])
    url = f"{stack.env['FUNCTIONS_URL']}/leases-release"
    with stack.sql.transaction():  # no sweep sees the lease's end before the commit
        stack.sql.execute(
            "update public.jobs set lease_until = now() - interval '1 second' where id = %s", [job["id"]]
        )
        refused(
            cron.adding(origin="https://app.test").post("leases-release", {}), 403, "secret_key_in_browser"
        )
        refused(nobody.adding(apikey="sb_secret_wrong").post("leases-release", {}), 401, "invalid_key")
    sweep_expired(stack, job, lambda: done(stack.http.post(url, headers=cron.headers)))
    assert status(member, job["id"])["job"]["status"] == "queued"


def test_an_older_workers_report_is_taken_while_it_holds_the_lease(
    member: Person, worker: Person, other_worker: Person, executor: str
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    artifact = {"name": "screenshot.png", "size": 744734, "url": "https://p.test/object/sign/a.png?token=abc"}
    report = {
        "ok": True, "action": "screenshot", "url": "https://supabase.com", "artifact": artifact,
        "artifactRecorded": True, "jobId": job["id"],
    }  # fmt: skip
    refused(other_worker.post("task-result", report), 409, "lease_lost")
    assert done(worker.post("task-result", report))["status"] == "succeeded"
    seen = status(member, job["id"])
    assert seen["job"]["result"] == {"action": "screenshot", "url": "https://supabase.com"}
    assert seen["artifacts"] == []


def test_a_failure_is_tried_again_until_it_is_given_up(member: Person, worker: Person, executor: str) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    failed = {**lease(job), "ok": False, "error": "it broke", "retryAt": "2026-01-01T00:00:00Z"}
    assert done(worker.post("task-result", failed))["status"] == "queued"
    assert status(member, job["id"])["job"]["error"] == {"code": "failed", "message": "it broke"}
    job = claim(worker, executor)
    assert job["attempt"] == 2
    given_up = {**lease(job), "ok": False, "error": {"code": "blocked", "message": "No."}, "giveUp": True}
    assert done(worker.post("task-result", given_up))["status"] == "failed"
    assert status(member, job["id"])["job"]["error"] == {"code": "blocked", "message": "No."}


def test_cancelling_twice_does_no_harm_and_the_worker_learns_of_it(
    member: Person, worker: Person, executor: str
) -> None:
    job_id = assign(member, executor)["jobId"]
    job = claim(worker, executor)
    for _ in range(2):
        assert done(member.post("job-cancel", {"jobId": job_id})) == {"jobId": job_id, "status": "cancelled"}
    late = refused(worker.post("task-result", {**lease(job), "ok": True}), 409, "lease_lost")
    assert late["details"] == {"status": "cancelled"}


def test_job_status_is_304_until_something_happens(member: Person, worker: Person, executor: str) -> None:
    job_id = assign(member, executor)["jobId"]
    first = member.get("job-status", id=job_id)
    knowing = member.adding(if_none_match=first.headers["etag"])
    assert (
        knowing.get("job-status", id=job_id).status_code,
        knowing.get("job-status", id=job_id).content,
    ) == (304, b"")
    claim(worker, executor)
    assert done(knowing.get("job-status", id=job_id))["job"]["status"] == "assigned"


def test_job_status_is_another_one_with_every_change_of_what_it_shows(
    member: Person, worker: Person, executor: str
) -> None:
    """Progress within a second of the last is no event, nor are a renewed lease and a file's row."""
    job_id = assign(member, executor)["jobId"]
    job = claim(worker, executor)
    tags = []

    def see() -> dict[str, Any]:
        answer = member.get("job-status", id=job_id)
        tags.append(answer.headers["etag"])
        for known in (tags[-1], tags[-1].removeprefix("W/"), f'"other", {tags[-1]}', "*"):
            assert member.adding(if_none_match=known).get("job-status", id=job_id).status_code == 304
        return done(answer)

    see()
    fence = {"job_id": job_id, "attempt": job["attempt"], "lease_token": job["lease_token"]}
    for share in (0.1, 0.2, 0.3):
        assert worker.rest("POST", "rpc/report_progress", {**fence, "progress": {"share": share}}).is_success
        assert see()["job"]["progress"] == {"share": share}
    assert worker.rest("POST", "rpc/renew_lease", fence).is_success
    see()
    file = store(worker, job)
    assert worker.rest("POST", "artifacts", {**file, "job_id": job_id}).is_success
    assert [artifact["name"] for artifact in see()["artifacts"]] == ["screenshot.png"]
    assert len(set(tags)) == len(tags) == 6
    again = member.adding(if_none_match=tags[0]).get("job-status", id=job_id)
    assert done(again)["artifacts"], "and none of the earlier ones is taken for it"


def test_what_a_stranger_cannot_see_is_404_everywhere(
    member: Person, stranger: Person, worker: Person, executor: str
) -> None:
    job_id = assign(member, executor)["jobId"]
    job = claim(worker, executor)
    artifact = store(worker, job)
    done(worker.post("task-result", {**lease(job), "ok": True, "artifact": artifact}))
    (file,) = status(member, job_id)["artifacts"]
    missing = str(uuid.uuid4())
    for seen, absent in [
        (stranger.get("job-status", id=job_id), stranger.get("job-status", id=missing)),
        (stranger.get("artifacts-list", jobId=job_id), stranger.get("artifacts-list", jobId=missing)),
        (
            stranger.get("sign-artifact", artifactId=file["id"]),
            stranger.get("sign-artifact", artifactId=missing),
        ),
        (stranger.post("job-cancel", {"jobId": job_id}), stranger.post("job-cancel", {"jobId": missing})),
        (stranger.collab(f"job/{job_id}"), stranger.collab(f"job/{missing}")),
        (stranger.collab(f"job/{job_id}/summary"), stranger.collab(f"job/{missing}/summary")),
        (stranger.collab(f"artifacts/by-job/{job_id}"), stranger.collab(f"artifacts/by-job/{missing}")),
        (stranger.collab(f"events/by-job/{job_id}"), stranger.collab(f"events/by-job/{missing}")),
    ]:
        one, other = refused(seen, 404, "not_found"), refused(absent, 404, "not_found")
        assert {**one, "requestId": ""} == {**other, "requestId": ""}
    place = stranger.get("sign-artifact", bucket="artifacts", path=artifact["path"])
    assert refused(place, 404, "not_found")["error"] == "Object not found"
    assert job_id not in {row["id"] for row in done(stranger.get("jobs-recent", limit=100))["items"]}


def test_two_jobs_share_one_file(
    stack: Stack, member: Person, stranger: Person, worker: Person, executor: str
) -> None:
    for _ in range(3):
        assign(member, executor)
    first, second, third = (claim(worker, executor) for _ in range(3))
    own = store(worker, first)
    done(worker.post("task-result", {**lease(first), "ok": True, "artifact": own}))
    (source,) = status(member, first["id"])["artifacts"]
    entry = {"name": "again.png", "sameAs": source["id"]}
    report = {**lease(second), "ok": True, "artifacts": [entry]}
    done(worker.post("task-result", report))
    done(worker.collab("task.result", {**lease(third), "ok": True, "artifact": entry}))
    like_the_first = ("mime", "size", "sha256", "path")
    for job in (second, third):
        (file,) = status(member, job["id"])["artifacts"]
        assert (file["name"], file["same_as"]) == ("again.png", source["id"])
        assert [file[column] for column in like_the_first] == [own[column] for column in like_the_first]
        assert done(member.get("artifacts-list", jobId=job["id"]))["items"] == [file]
        assert done(member.collab(f"artifacts/by-job/{job['id']}"))["items"] == [file]
        assert done(member.collab(f"job/{job['id']}/summary"))["artifacts"] == 1
        for place in ({"artifactId": file["id"]}, {"bucket": file["bucket"], "path": file["path"]}):
            signed = done(member.post("sign-artifact", place))
            assert stack.http.get(signed["url"]).content == PNG
            refused(stranger.post("sign-artifact", place), 404, "not_found")
    stack.sql.execute("delete from public.artifacts where id = %s", [source["id"]])
    assert done(worker.post("task-result", report))["status"] == "succeeded", "the same report again"
    (file,) = status(member, second["id"])["artifacts"]
    assert stack.http.get(done(member.get("sign-artifact", artifactId=file["id"]))["url"]).content == PNG


def test_a_file_that_cannot_be_shared_is_409_and_the_job_goes_on(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    entry = {"name": "again.png", "sameAs": str(uuid.uuid4())}
    report = {**lease(job), "ok": True, "artifacts": [entry]}
    for reported in (worker.post("task-result", report), worker.collab("task.result", report)):
        answer = refused(reported, 409, "artifact_gone")
        assert answer["error"].startswith("`sameAs`")
        assert answer["details"] == {"sameAs": entry["sameAs"]}
    assert stack.count("public.artifacts", job_id=job["id"]) == 0
    done(worker.post("task-result", {**lease(job), "ok": True, "artifact": store(worker, job)}))


def test_an_object_that_is_gone_is_404_though_its_row_is_there(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    artifact = store(worker, job)
    done(worker.post("task-result", {**lease(job), "ok": True, "artifact": artifact}))
    stack.sql.execute("set storage.allow_delete_query = 'true'")
    stack.sql.execute("delete from storage.objects where name = %s", [artifact["path"]])
    answer = member.get("sign-artifact", bucket="artifacts", path=artifact["path"])
    assert refused(answer, 404, "not_found")["error"] == "Object not found"


def test_expires_is_moved_into_its_bounds(member: Person, worker: Person, executor: str) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    done(worker.post("task-result", {**lease(job), "ok": True, "artifact": store(worker, job)}))
    (file,) = status(member, job["id"])["artifacts"]
    for asked, given in [(0, 1), (-5, 1), (10**9, 604_800), (60, 60)]:
        assert done(member.get("sign-artifact", artifactId=file["id"], expires=asked))["expires"] == given
        assert (
            done(member.post("sign-artifact", {"artifactId": file["id"], "expires": asked}))["expires"]
            == given
        )


def test_a_heartbeat_is_seen_for_a_while_and_written_once(
    stack: Stack, member: Person, stranger: Person, worker: Person
) -> None:
    agent = f"agent-{uuid.uuid4()}"
    for running in (0, 2):
        body = {
            "agentId": agent,
            "executorId": "default",
            "status": "busy",
            "running": running,
            "metrics": {"a": 1},
        }
        beat = done(worker.post("worker-heartbeat", body))
        assert beat["ok"] is True
        assert beat["ts"].endswith("Z")
    (row,) = [row for row in done(member.get("workers-active"))["items"] if row["agent_id"] == agent]
    assert (row["running"], row["status"], row["metrics"]) == (2, "busy", {"a": 1})
    assert agent not in {row["agent_id"] for row in done(stranger.get("workers-active"))["items"]}
    stack.sql.execute(
        "update public.worker_heartbeats_v2 set last_seen = now() - '21 s'::interval where agent_id = %s",
        [agent],
    )
    assert agent not in {row["agent_id"] for row in done(member.get("workers-active"))["items"]}


def test_metrics_count_what_the_caller_may_see(member: Person, stranger: Person, executor: str) -> None:
    before, of_stranger = done(member.get("metrics-overview")), done(stranger.get("metrics-overview"))
    assign(member, executor)
    after = done(member.get("metrics-overview"))
    assert {"ok", "counts", "oldestQueuedSeconds", "latest", "ts"} <= set(after)
    (depth,) = [row for row in after["executors"] if row["executorId"] == executor]
    assert (depth["type"], depth["ready"], depth["paused"]) == ("browser.screenshot", 1, False)
    assert set(after["counts"]) == {"queued", "assigned", "running", "succeeded", "failed", "cancelled"}
    assert after["counts"]["queued"] == before["counts"]["queued"] + 1
    assert done(stranger.get("metrics-overview"))["counts"] == of_stranger["counts"]


def test_a_report_says_in_how_many_seconds_by_the_databases_clock(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor, backoffSeconds=0)
    job = claim(worker, executor)
    report = {**lease(job), "ok": False, "error": "later", "retryAfterSeconds": 3600}
    assert done(worker.post("task-result", report))["status"] == "queued"
    (row,) = stack.sql.execute(
        "select extract(epoch from next_run_at - updated_at)::float as wait from public.jobs where id = %s",
        [job["id"]],
    )
    assert 3590 < row["wait"] < 3610
