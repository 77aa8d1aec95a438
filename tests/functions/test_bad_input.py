"""Bad input over HTTP: each has its status, its code, a sentence that names the field; and nothing is written."""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest

from tests.functions.test_job_flow import assign, claim, lease
from tests.stack import Person, Stack, refused

ASSIGN: dict[str, Any] = {"type": "browser.screenshot"}
JOB = "0f0e0d0c-0b0a-4908-8706-050403020100"


@dataclass(frozen=True)
class Bad:
    """One request that must fail."""

    function: str
    status: int
    code: str
    names: str  # what the sentence has to name
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | str | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = ""  # default: POST with a body, GET without


def recent(names: str, **query: str) -> Bad:
    return Bad("jobs-recent", 400, "invalid_parameter", f"`{names}", query)


def assigning(names: str, code: str = "invalid_body", **changes: Any) -> Bad:
    return Bad("task-assign", 422, code, f"`{names}`", body=ASSIGN | changes)


TABLE: dict[str, Bad] = {
    "cursor=null": recent("cursor=null", cursor="null"),
    "cursor of garbage": recent("cursor", cursor="garbage"),
    "cursor without a key": recent("cursor", cursor="2026-11-23T18:13:31Z~"),
    "limit=0": recent("limit", limit="0"),
    "limit=101": recent("limit", limit="101"),
    "limit=abc": recent("limit", limit="abc"),
    "limit twice": Bad("jobs-recent?limit=1&limit=2", 400, "invalid_parameter", "`limit`"),
    "unknown parameter": recent("executor_id", executor_id="default"),
    "unknown status": recent("status", status="done"),
    "executor with a NUL": Bad("jobs-recent?executorId=a%00b", 400, "invalid_parameter", "`executorId`"),
    "cursor=null of files": Bad("artifacts-list", 400, "invalid_parameter", "`cursor", {"jobId": JOB, "cursor": "null"}),
    "limit=1001 of files": Bad("artifacts-list", 400, "invalid_parameter", "`limit`", {"jobId": JOB, "limit": "1001"}),
    "files of no job": Bad("artifacts-list", 400, "invalid_parameter", "`jobId`"),
    "status of no job": Bad("job-status", 400, "invalid_parameter", "`id`"),
    "status of a malformed id": Bad("job-status", 400, "invalid_parameter", "`id`", {"id": "7"}),
    "nothing to sign": Bad("sign-artifact", 400, "invalid_parameter", "`artifactId`"),
    "bucket without path": Bad("sign-artifact", 400, "invalid_parameter", "`path`", {"bucket": "artifacts"}),
    "expires=soon": Bad("sign-artifact", 400, "invalid_parameter", "`expires`", {"artifactId": JOB, "expires": "soon"}),
    "both ways to sign": Bad("sign-artifact", 422, "invalid_body", "`path`", body={"artifactId": JOB, "path": "a"}),
    "query of a function without": Bad("metrics-overview", 400, "invalid_parameter", "`limit`", {"limit": "1"}),
    "empty type": assigning("type", type=""),
    "type of 10 kB": assigning("type", type="x" * 10_000),
    "type with a newline": assigning("type", type="browser\nscreenshot"),
    "no type": Bad("task-assign", 422, "invalid_body", "`type`", body={"payload": {}}),
    "payload that is a list": assigning("payload", payload=[1]),
    "payload that is text": assigning("payload", payload="url"),
    "payload with a NUL": assigning("payload", payload={"url": "a\0b"}),
    "payload over 256 KiB": assigning("payload", "payload_too_large", payload={"x": "y" * 262_144}),
    "payload of 2 MB": Bad("task-assign", 413, "body_too_large", "body", body=ASSIGN | {"payload": {"x": "y" * 2_000_000}}),
    "unknown field": assigning("colour", colour="red"),
    "state in the body": assigning("status", status="succeeded"),
    "lease in the body": assigning("leaseOwner", leaseOwner=JOB),
    "not JSON": Bad("task-assign", 400, "invalid_json", "JSON", body="{", headers={"content-type": "application/json"}),
    "no body": Bad("task-assign", 400, "invalid_json", "body", method="POST"),
    "wrong content type": Bad("task-assign", 415, "unsupported_media_type", "JSON", body="type=browser.screenshot"),
    "GET of a POST": Bad("task-assign", 405, "method_not_allowed", "POST", method="GET"),
    "POST of a GET": Bad("jobs-recent", 405, "method_not_allowed", "GET", method="POST"),
    "PUT": Bad("task-assign", 405, "method_not_allowed", "POST", body=ASSIGN, method="PUT"),
    "lease of 14 s": Bad("task-claim", 422, "invalid_body", "`leaseSeconds`", body={"executorId": "x", "leaseSeconds": 14}),
    "claim for nobody": Bad("task-claim", 422, "invalid_body", "`executorId`", body={}),
    "cancel of nothing": Bad("job-cancel", 422, "invalid_body", "`jobId`", body={}),
    "heartbeat of nobody": Bad("worker-heartbeat", 422, "invalid_body", "`agentId`", body={"status": "idle", "executorId": "x"}),
    "workspace that is not his": Bad("task-assign", 404, "not_found", "`workspaceId`", body=ASSIGN | {"workspaceId": JOB}),
    "parent that is not there": Bad("task-assign", 404, "not_found", "`dependsOn`", body=ASSIGN | {"dependsOn": [JOB]}),
    "parent that it is": assigning("dependsOn", "invalid_argument", jobId=JOB, dependsOn=[JOB]),
    "cancel of no job": Bad("job-cancel", 404, "not_found", "`jobId`: there is no such job", body={"jobId": JOB}),
    "result of no job": Bad("task-result", 404, "not_found", "`jobId`: there is no such job",
                            body={"jobId": JOB, "ok": True, "attempt": 1, "leaseToken": "t"}),
    "retry of no letter": Bad("dlq-retry", 404, "not_found", "`dlqId`: there is no such dead letter", body={"dlqId": 987654321}),
    "discard of no letter": Bad("dlq-discard", 404, "not_found", "`dlqId`: there is no such dead letter", body={"dlqId": 987654321}),
    "status of an unknown id": Bad("job-status", 404, "not_found", "`id`: there is no such job", {"id": JOB}),
    "files of an unknown job": Bad("artifacts-list", 404, "not_found", "`jobId`: there is no such job", {"jobId": JOB}),
    "events of an unknown job": Bad("job-events", 404, "not_found", "`id`: there is no such job", {"id": JOB}),
    "an unknown column": recent("fields", fields="id,colour"),
    "a column twice over": recent("fields", fields="id,,status"),
    "half an emoji": Bad("task-assign", 400, "invalid_json", "`payload.a.0`", body=b'{"type":"t","payload":{"a":["\\ud83d"]}}',
                         headers={"content-type": "application/json"}),
    "a byte order mark": Bad("task-assign", 400, "invalid_json", "byte order mark", body=b'\xef\xbb\xbf{"type":"t"}',
                             headers={"content-type": "application/json"}),
    "a payload of 101 levels": Bad("task-assign", 400, "invalid_json", "`payload.a",
                                   body=b'{"type":"t","payload":' + b'{"a":' * 101 + b"1" + b"}" * 101 + b"}",
                                   headers={"content-type": "application/json"}),
    "a number of 401 digits": Bad("task-assign", 422, "invalid_body", "`payload.n`",
                                  body=b'{"type":"t","payload":{"n":1' + b"0" * 400 + b"}}",
                                  headers={"content-type": "application/json"}),
    "a name twice": Bad("task-assign", 422, "invalid_body", "`payload.a`", body=b'{"type":"t","payload":{"a":1,"a":2}}',
                        headers={"content-type": "application/json"}),
}  # fmt: skip


def send(person: Person, bad: Bad) -> httpx.Response:
    url = f"{person.stack.env['FUNCTIONS_URL']}/{bad.function}"
    method = bad.method or ("GET" if bad.body is None else "POST")
    headers = {**person.headers, **bad.headers}
    if isinstance(bad.body, dict):
        headers.setdefault("content-type", "application/json")
    content = json.dumps(bad.body) if isinstance(bad.body, dict) else bad.body
    return person.stack.http.request(method, url, params=bad.query or None, content=content, headers=headers)


@dataclass(frozen=True)
class Quiet:
    """A workspace where nothing moves unless one of these three moves it."""

    id: str
    member: Person
    viewer: Person
    worker: Person

    def written(self) -> tuple[int, ...]:
        """How much there is of all that a request could write."""
        tables = ("jobs", "job_events", "artifacts", "dead_letters", "worker_heartbeats_v2", "audit_log")
        return tuple(self.member.stack.count(f"public.{table}", workspace_id=self.id) for table in tables)


@pytest.fixture(scope="module")
def quiet(stack: Stack) -> Quiet:
    (made,) = stack.sql.execute("insert into public.workspaces (name) values ('quiet') returning id::text")
    return Quiet(made["id"], *(stack.newcomer(made["id"], role) for role in ("member", "viewer", "worker")))


@pytest.mark.parametrize("case", TABLE)
def test_bad_input_is_refused_by_name_and_nothing_is_written(quiet: Quiet, case: str) -> None:
    bad, before = TABLE[case], quiet.written()
    sentence = refused(send(quiet.member, bad), bad.status, bad.code)["error"]
    assert bad.names in sentence
    assert "\n" not in sentence
    assert quiet.written() == before


@pytest.mark.parametrize(
    ("bearer", "code"),
    [
        (lambda _: "", "missing_token"),
        (lambda stack: stack.env["SUPABASE_PUBLISHABLE_KEY"], "missing_token"),
        (lambda stack: stack.env["SUPABASE_SECRET_KEY"], "missing_token"),
        (
            lambda stack: forged(stack, stack.env["SUPABASE_JWT_SECRET"], exp=int(time.time()) - 120),
            "invalid_token",
        ),
        (lambda stack: forged(stack, "another project's secret " + "x" * 32), "invalid_token"),
        (lambda stack: forged(stack, stack.env["SUPABASE_JWT_SECRET"], role="anon"), "missing_token"),
        (lambda _: "nonsense", "invalid_token"),
    ],
    ids=["none", "publishable key", "secret key", "expired", "another project", "anon key", "nonsense"],
)
@pytest.mark.parametrize(
    "function", ["task-assign", "task-claim", "task-result", "job-cancel", "leases-release"]
)
def test_without_a_good_token_it_is_401_and_nothing_is_written(
    stack: Stack, nobody: Person, executor: str, function: str, bearer: Callable[[Stack], str], code: str
) -> None:
    token = bearer(stack)
    person = nobody.adding(authorization=f"Bearer {token}") if token else nobody
    answer = person.post(function, ASSIGN | {"executorId": executor})
    refused(answer, 401, code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert stack.count("public.jobs", executor_id=executor) == 0


def forged(stack: Stack, secret: str, **changes: object) -> str:
    member = stack.sign_in("DEMO").token
    claims = jwt.decode(member, options={"verify_signature": False})
    return jwt.encode(claims | changes, secret, "HS256")


def test_a_secret_key_from_a_browser_is_403_whatever_else_is_right(stack: Stack, quiet: Quiet) -> None:
    before = quiet.written()
    person = quiet.member.adding(apikey=stack.env["SUPABASE_SECRET_KEY"], origin="https://app.test")
    for answer in (
        person.post("task-assign", ASSIGN),
        person.get("jobs-recent"),
        person.post("leases-release", {}),
    ):
        refused(answer, 403, "secret_key_in_browser")
        assert answer.headers["access-control-allow-origin"] == "*"
    assert quiet.written() == before


def test_roles_that_may_not_are_403(quiet: Quiet, executor: str) -> None:
    member, viewer, worker = quiet.member, quiet.viewer, quiet.worker
    job_id = assign(member, executor)["jobId"]
    before = quiet.written()
    body = ASSIGN | {"executorId": executor}
    refused(viewer.post("task-assign", body), 403, "forbidden")
    refused(worker.post("task-assign", body | {"workspaceId": quiet.id}), 403, "forbidden")
    refused(viewer.post("job-cancel", {"jobId": job_id}), 403, "forbidden")
    refused(member.post("task-claim", {"executorId": executor}), 403, "forbidden")
    refused(member.post("leases-release", {}), 403, "forbidden")
    beat = {"agentId": f"agent-{executor}", "executorId": executor, "status": "idle"}
    refused(member.post("worker-heartbeat", beat), 403, "forbidden")
    assert quiet.written() == before


def test_an_agents_name_belongs_to_the_first_who_used_it(worker: Person, other_worker: Person) -> None:
    beat = {"agentId": f"agent-{uuid.uuid4()}", "executorId": "default", "status": "idle"}
    assert worker.post("worker-heartbeat", beat).status_code == 200
    refused(other_worker.post("worker-heartbeat", beat), 409, "agent_id_taken")


def test_a_file_outside_of_its_jobs_folder_is_refused_and_the_job_goes_on(
    quiet: Quiet, executor: str
) -> None:
    assign(quiet.member, executor)
    job = claim(quiet.worker, executor)
    before = quiet.written()
    for place in (
        {"path": "elsewhere/a.png"},
        {"path": f"{job['workspace_id']}/a.png"},
        {"path": "a", "bucket": "private"},
    ):
        report = {**lease(job), "ok": True, "artifact": {"name": "a.png", "size": 1, **place}}
        refusal = refused(quiet.worker.post("task-result", report), 422, "invalid_argument")
        assert refusal["details"]["constraint"] in ("path_is_in_the_folder_of_its_job", "bucket_is_artifacts")
    assert quiet.written() == before


def test_no_answer_tells_a_key_or_a_token(stack: Stack, member: Person) -> None:
    answers = "".join(send(member, bad).text for bad in TABLE.values())
    for name in ("SUPABASE_SECRET_KEY", "SUPABASE_JWT_SECRET"):
        assert stack.env[name] not in answers
    assert member.token not in answers
