"""A request that comes many times at once is one request: everybody hears of the same job. None is lost."""

import re
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sidejob import upstream
from tests.functions.test_job_flow import assign, claim, lease, status
from tests.stack import Person, Stack, done

AT_ONCE = 16


def at_once(ask: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, range(AT_ONCE)))


def test_one_key_at_once_in_all_its_forms_is_one_job(
    stack: Stack, member: Person, owner: Person, executor: str
) -> None:
    """In the header bare, in the header quoted, in the body, in both; over the function and over Collab."""
    key = f'a "key" of {uuid.uuid4()}'
    quoted = '"' + key.replace('"', '\\"') + '"'
    body = {"type": "test.once", "executorId": executor, "payload": {"n": 1}}
    forms: list[tuple[Person, dict[str, Any]]] = [
        (member.adding(idempotency_key=key), body),
        (owner.adding(idempotency_key=quoted), body),
        (member, body | {"idempotencyKey": key}),
        (owner.adding(idempotency_key=quoted), body | {"idempotencyKey": key}),
    ]

    def ask(number: int) -> httpx.Response:
        person, asked = forms[number % 4]
        return person.collab("task.assign", asked) if number % 8 < 4 else person.post("task-assign", asked)

    answers = [done(answer) for answer in at_once(ask)]
    assert Counter(answer["queued"] for answer in answers) == {True: 1, False: AT_ONCE - 1}
    assert {(answer["jobId"], answer["status"]) for answer in answers} == {(answers[0]["jobId"], "queued")}
    assert stack.count("public.jobs", executor_id=executor) == 1


def test_one_key_at_once_for_different_requests_is_one_job_and_422_for_the_others(
    stack: Stack, member: Person, executor: str
) -> None:
    key = str(uuid.uuid4())

    def ask(number: int) -> httpx.Response:
        body = {"type": "test.once", "executorId": executor, "payload": {"n": number % 2}}
        return member.adding(idempotency_key=key).post("task-assign", body)

    answers = at_once(ask)
    assert Counter(answer.status_code for answer in answers) == {200: AT_ONCE / 2, 422: AT_ONCE / 2}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {
        "idempotency_mismatch"
    }
    assert len({answer.json()["jobId"] for answer in answers if answer.is_success}) == 1
    assert stack.count("public.jobs", executor_id=executor) == 1


def test_one_job_id_at_once_is_one_job(stack: Stack, member: Person, executor: str) -> None:
    body = {"type": "test.once", "executorId": executor, "jobId": str(uuid.uuid4())}
    answers = [done(answer) for answer in at_once(lambda _: member.post("task-assign", body))]
    assert Counter(answer["queued"] for answer in answers) == {True: 1, False: AT_ONCE - 1}
    assert stack.count("public.jobs", id=body["jobId"]) == 1


@pytest.mark.parametrize("ok", [True, False])
def test_one_report_at_once_ends_the_job_once(
    stack: Stack, member: Person, worker: Person, executor: str, ok: bool
) -> None:
    assign(member, executor, maxAttempts=1)
    job = claim(worker, executor)
    ended = {"result": {"n": 1}} if ok else {"error": "it broke"}
    report = {**lease(job), "ok": ok, **ended}
    answers = [done(answer) for answer in at_once(lambda _: worker.post("task-result", report))]
    final = "succeeded" if ok else "failed"
    assert answers == [{"ok": True, "jobId": job["id"], "status": final}] * AT_ONCE
    told = Counter(event["event_type"] for event in status(member, job["id"])["events"])
    assert told[f"job.{final}"] == 1
    assert stack.count("public.dead_letters", job_id=job["id"]) == (0 if ok else 1)


def test_one_retry_at_once_is_one_new_job(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor, maxAttempts=1)
    job = claim(worker, executor)
    done(worker.post("task-result", {**lease(job), "ok": False, "error": "it broke"}))
    (letter,) = stack.sql.execute(
        "select id from public.dead_letters where job_id = %s", [job["id"]]
    ).fetchall()
    answers = [
        done(answer) for answer in at_once(lambda _: member.post("dlq-retry", {"dlqId": letter["id"]}))
    ]
    assert len({answer["jobId"] for answer in answers}) == 1
    assert stack.count("public.jobs", executor_id=executor) == 2


def test_one_claim_at_once_gives_one_lease(member: Person, worker: Person, executor: str) -> None:
    assign(member, executor)
    answers = [
        done(answer)["job"]
        for answer in at_once(lambda _: worker.post("task-claim", {"executorId": executor}))
    ]
    assert Counter(job is None for job in answers) == {False: 1, True: AT_ONCE - 1}


def test_an_idle_connection_is_kept_for_longer_than_any_function_uses_it(member: Person) -> None:
    """Else one is closed, now and then, under the request that comes on it."""
    answer = member.rest("GET", "jobs", limit="1")
    (seconds,) = re.findall(r"timeout=(\d+)", answer.headers["keep-alive"])
    assert int(seconds) >= 2 * upstream.KEEP_ALIVE_SECONDS
