"""Lists and their cursors, against the running stack: every row once, none missing, also when rows tie."""

from datetime import UTC, datetime
from itertools import chain
from typing import Any

import httpx
import pytest

from sidejob import columns, cursor
from sidejob.pages import PAGE_BYTES
from tests.functions.test_job_flow import assign, claim, lease, store
from tests.stack import Person, Stack, done, refused


@pytest.fixture(params=["apart", "tied"])
def jobs(request: pytest.FixtureRequest, stack: Stack, member: Person, executor: str) -> list[str]:
    """23 jobs, newest first; when tied, 12 of them share one created_at."""
    ids = [str(assign(member, executor)["jobId"]) for _ in range(23)]
    if request.param == "tied":
        tie = "update public.jobs set created_at = %s where id = any(%s)"
        stack.sql.execute(tie, [datetime.now(UTC), ids[5:17]])
    rows = stack.sql.execute(
        "select id::text from public.jobs where executor_id = %s order by created_at desc, id desc",
        [executor],
    )
    return [row["id"] for row in rows]


def pages(stack: Stack, url: str, person: Person) -> list[list[str]]:
    """All pages, with each cursor pasted into the URL as it came."""
    found = []
    place = ""
    while True:
        answer = done(stack.http.get(httpx.URL(url + place), headers=person.headers))
        assert answer["count"] == len(answer["items"])
        assert set(answer) == {"items", "count", "nextCursor", "ts"}
        found.append([str(row["id"]) for row in answer["items"]])
        if answer["nextCursor"] is None:
            return found
        assert "+" not in answer["nextCursor"]
        place = f"&cursor={answer['nextCursor']}"


@pytest.mark.parametrize("address", ["FUNCTIONS_URL/jobs-recent", "COLLAB_URL/jobs/recent"])
def test_23_jobs_are_pages_of_5_5_5_5_and_3(
    stack: Stack, member: Person, executor: str, jobs: list[str], address: str
) -> None:
    name, _, path = address.partition("/")
    found = pages(stack, f"{stack.env[name]}/{path}?limit=5&executorId={executor}", member)
    assert [len(page) for page in found] == [5, 5, 5, 5, 3]
    assert [*chain(*found)] == jobs


def test_a_page_that_ends_exactly_at_the_last_row_is_the_last(member: Person, executor: str) -> None:
    for _ in range(3):
        assign(member, executor)
    assert done(member.get("jobs-recent", executorId=executor, limit=3))["nextCursor"] is None
    assert done(member.get("jobs-recent", executorId=executor, limit=2))["nextCursor"] is not None


def test_a_bare_timestamp_is_a_cursor(member: Person, executor: str) -> None:
    ids = [assign(member, executor)["jobId"] for _ in range(3)]
    rows = done(member.get("jobs-recent", executorId=executor))["items"]
    older = done(member.get("jobs-recent", executorId=executor, cursor=rows[0]["created_at"]))
    assert [row["id"] for row in older["items"]] == [ids[1], ids[0]]


def test_jobs_can_be_narrowed_by_status_and_type(member: Person, worker: Person, executor: str) -> None:
    first = assign(member, executor)["jobId"]
    claim(worker, executor)
    second = assign(member, executor, type="figma.export")["jobId"]

    def ids(**query: str) -> list[str]:
        return [row["id"] for row in done(member.get("jobs-recent", executorId=executor, **query))["items"]]

    assert ids() == [second, first]
    assert ids(status="assigned") == [first]
    assert ids(status="queued") == [second]
    assert ids(type="figma.export") == [second]
    assert ids(type="figma.export", status="assigned") == []


def finished_with_files(member: Person, worker: Person, executor: str, count: int) -> dict[str, Any]:
    assign(member, executor)
    job = claim(worker, executor)
    files = [store(worker, job, f"{index}.png") for index in range(count)]
    done(worker.post("task-result", {**lease(job), "ok": True, "artifacts": files}))
    return job


def test_files_of_one_transaction_tie_and_are_paged_all_the_same(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    job = finished_with_files(member, worker, executor, 5)
    whole = done(member.get("artifacts-list", jobId=job["id"]))["items"]
    assert len({row["created_at"] for row in whole}) == 1
    for address in (
        f"{stack.env['FUNCTIONS_URL']}/artifacts-list?jobId={job['id']}&limit=2",
        f"{stack.env['COLLAB_URL']}/artifacts/by-job/{job['id']}?limit=2",
    ):
        found = pages(stack, address, member)
        assert [len(page) for page in found] == [2, 2, 1]
        assert [*chain(*found)] == [row["id"] for row in whole]


def test_the_history_of_a_job_is_paged_newest_first(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    job = finished_with_files(member, worker, executor, 1)
    path = f"events/by-job/{job['id']}"
    whole = done(member.collab(path))["items"]
    assert [row["seq"] for row in whole] == [3, 2, 1]
    found = pages(stack, f"{stack.env['COLLAB_URL']}/{path}?limit=2", member)
    assert [*chain(*found)] == [str(row["id"]) for row in whole]
    older = done(member.collab(f"{path}?cursor={cursor.after(whole[0], 'seq').partition('~')[0]}"))
    assert older["items"] == whole[1:]
    refused(member.collab(f"{path}?cursor=2026-11-23T18:13:31Z~{job['id']}"), 400, "invalid_parameter")


def test_collab_and_the_functions_give_the_same(member: Person, worker: Person, executor: str) -> None:
    job = finished_with_files(member, worker, executor, 1)
    for path, function, query in [
        (f"job/{job['id']}", "job-status", {"id": job["id"]}),
        (f"jobs/recent?executorId={executor}", "jobs-recent", {"executorId": executor}),
        (f"artifacts/by-job/{job['id']}", "artifacts-list", {"jobId": job["id"]}),
        ("workers/active", "workers-active", {}),
    ]:
        answers = member.get(function, **query), member.collab(path), member.get(function, **query)
        before, between, after = ({**done(answer), "ts": ""} for answer in answers)
        assert between in (before, after), "a heartbeat may have come in between"
    summary = done(member.collab(f"job/{job['id']}/summary"))
    assert summary["finishedAt"] is not None
    del summary["createdAt"], summary["finishedAt"]
    assert summary == {
        "id": job["id"], "status": "succeeded", "type": "browser.screenshot", "attempts": 1,
        "artifacts": 1, "error": None,
    }  # fmt: skip


def test_collab_takes_what_the_owners_document_sends(member: Person, worker: Person, executor: str) -> None:
    body = {"type": "browser.screenshot", "executorId": executor, "payload": {"url": "https://supabase.com"}}
    job_id = done(member.collab("task.assign", body))["jobId"]
    job = done(worker.collab("task.claim", {"executorId": executor}))["job"]
    assert job["id"] == job_id
    beat = {"agentId": f"agent-{executor}", "executorId": executor, "status": "busy"}
    assert done(worker.collab("workers/heartbeat", beat))["ok"] is True
    assert done(worker.collab("task.result", {**lease(job), "ok": True}))["status"] == "succeeded"
    assert done(member.collab("metrics/overview"))["ok"] is True


HEAVY = {"payload", "result", "checkpoint"}


def test_a_list_has_payload_result_and_checkpoint_for_the_asking(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor, payload={"n": 1})
    job = claim(worker, executor)
    done(worker.post("task-result", {**lease(job), "ok": True, "result": {"n": 2}}))
    collab = member.collab(f"jobs/recent?executorId={executor}&fields=id,result,payload")
    for answer in (member.get("jobs-recent", executorId=executor, fields="id,result,payload"), collab):
        assert done(answer)["items"] == [{"id": job["id"], "result": {"n": 2}, "payload": {"n": 1}}]
    for answer in (
        member.get("jobs-recent", executorId=executor),
        member.collab(f"jobs/recent?executorId={executor}"),
    ):
        (item,) = done(answer)["items"]
        assert set(item) == set(columns.JOB) - HEAVY
    assert set(done(member.get("job-status", id=job["id"]))["job"]) > HEAVY
    assert done(member.get("jobs-recent", executorId=executor, fields="status"))["items"] == [
        {"status": "succeeded"}
    ]
    assert [*done(member.get("artifacts-list", jobId=job["id"], fields="name,size"))["items"]] == []
    events = done(member.collab(f"events/by-job/{job['id']}?fields=event_type"))["items"]
    assert events[0] == {"event_type": "job.succeeded"}
    assert all(
        set(seen) == {"status"} for seen in done(member.get("workers-active", fields="status"))["items"]
    )
    tables = {"jobs": columns.JOB, "job_events": columns.EVENT, "artifacts": columns.ARTIFACT}
    for table, names in (tables | {"worker_heartbeats_v2": columns.WORKER}).items():
        question = "select attname as name from pg_attribute where attrelid = %s::regclass and attnum > 0"
        assert {row["name"] for row in stack.sql.execute(question, [f"public.{table}"])} == set(names)


def test_dead_letters_have_their_payload_for_the_asking(
    member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor, payload={"n": 1})
    job = claim(worker, executor)
    done(worker.post("task-result", {**lease(job), "ok": False, "giveUp": True}))
    letter = done(member.get("dlq-list", limit=1))["items"][0]
    assert set(letter) == set(columns.DEAD_LETTER) - HEAVY
    (asked,) = done(member.get("dlq-list", limit=1, fields="job_id,payload"))["items"]
    assert asked == {"job_id": job["id"], "payload": {"n": 1}}


def test_a_page_of_large_payloads_ends_at_2_mb_and_the_next_goes_on_from_there(
    stack: Stack, member: Person, executor: str
) -> None:
    large = {"x": "y" * 195_000}
    ids = [str(assign(member, executor, payload=large)["jobId"]) for _ in range(23)][::-1]
    url = f"{stack.env['FUNCTIONS_URL']}/jobs-recent?limit=100&executorId={executor}"
    assert pages(stack, url, member) == [ids], "without payloads they have room on one page"
    found, place = [], ""
    while True:
        answer = stack.http.get(httpx.URL(f"{url}&fields=id,payload{place}"), headers=member.headers)
        assert len(answer.content) <= PAGE_BYTES
        page = done(answer)
        assert all(item["payload"] == large for item in page["items"])
        found.append([item["id"] for item in page["items"]])
        if page["nextCursor"] is None:
            break
        place = f"&cursor={page['nextCursor']}"
    assert [*chain(*found)] == ids
    assert [len(ids) for ids in found] == [10, 10, 3]
