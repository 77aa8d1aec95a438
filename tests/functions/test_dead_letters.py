"""Dead letters over HTTP, and files that nobody needs."""

import uuid
from itertools import chain

from tests.functions.test_job_flow import assign, claim, lease, store
from tests.stack import Person, Stack, done, refused


def bury(member: Person, worker: Person, executor: str) -> str:
    job_id = str(assign(member, executor)["jobId"])
    report = {**lease(claim(worker, executor)), "ok": False, "giveUp": True, "error": {"code": "boom"}}
    done(worker.post("task-result", report))
    return job_id


def test_letters_come_in_pages_and_one_is_run_again_once_or_thrown_away(
    member: Person, viewer: Person, stranger: Person, worker: Person, executor: str
) -> None:
    buried = [bury(member, worker, executor) for _ in range(3)]
    first = done(member.get("dlq-list", limit=2))
    second = done(member.get("dlq-list", limit=2, cursor=first["nextCursor"]))
    letters = list(chain(first["items"], second["items"]))[:3]
    assert [letter["job_id"] for letter in letters] == buried[::-1]
    assert (letters[0]["reason"], letters[0]["error"]["code"]) == ("gave_up", "boom")

    again = done(member.post("dlq-retry", {"dlqId": letters[0]["id"]}))["jobId"]
    assert done(member.post("dlq-retry", {"dlqId": letters[0]["id"]})) == {"jobId": again}
    assert claim(worker, executor)["id"] == again

    assert done(viewer.get("dlq-list"))["items"] == []
    refused(viewer.post("dlq-retry", {"dlqId": letters[1]["id"]}), 403, "forbidden")
    refused(stranger.post("dlq-retry", {"dlqId": letters[1]["id"]}), 404, "not_found")
    refused(member.post("dlq-retry", {"dlqId": 2**50}), 404, "not_found")

    refused(viewer.post("dlq-discard", {"dlqId": letters[1]["id"]}), 403, "forbidden")
    refused(stranger.post("dlq-discard", {"dlqId": letters[1]["id"]}), 404, "not_found")
    assert done(member.post("dlq-discard", {"dlqId": letters[1]["id"]})) == {"ok": True}
    refused(member.post("dlq-discard", {"dlqId": letters[1]["id"]}), 404, "not_found")
    assert letters[1]["id"] not in [letter["id"] for letter in done(member.get("dlq-list"))["items"]]
    assert done(member.get("job-status", id=buried[1]))["job"]["status"] == "failed"


def test_files_that_nobody_needs_are_removed_from_storage(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    job_id = str(assign(member, executor)["jobId"])
    job = claim(worker, executor)
    recorded = store(worker, job)
    forgotten = str(recorded["path"]).replace(str(recorded["name"]), f"{uuid.uuid4()}.png")
    assert worker.upload(forgotten, b"bytes", "image/png").is_success
    done(worker.post("task-result", {**lease(job), "ok": True, "artifact": recorded}))

    def stored(path: object) -> bool:
        found = stack.sql.execute("select from storage.objects where name = %s", [path]).fetchone()
        url = f"{stack.env['SUPABASE_URL']}/storage/v1/object/authenticated/artifacts/{path}"
        answer = stack.http.get(url, headers=member.headers)
        assert answer.is_success == (found is not None)
        return answer.is_success

    sweep(worker)
    assert stored(forgotten), "its hour is not over"
    ended = "update public.jobs set finished_at = now() - interval '61 minutes' where id = %s"
    stack.sql.execute(ended, [job_id])
    sweep(worker)
    assert (stored(forgotten), stored(recorded["path"])) == (False, True)
    stack.sql.execute(ended.replace("61 minutes", "400 days"), [job_id])
    while done(worker.rest("POST", "rpc/remove_old_jobs", {})):
        pass
    sweep(worker)
    assert not stored(recorded["path"])


def sweep(worker: Person) -> None:
    after = ""
    while after is not None:
        after = done(worker.post("artifacts-sweep", {"after": after}))["scannedTo"]


def test_only_a_worker_or_the_secret_key_sweeps(stack: Stack, member: Person) -> None:
    refused(member.post("artifacts-sweep", {}), 403, "forbidden")
    with_key = Person(stack, {"apikey": stack.env["SUPABASE_SECRET_KEY"]})
    assert done(with_key.post("artifacts-sweep", {"after": "~"})) == {"removed": 0, "scannedTo": None}
