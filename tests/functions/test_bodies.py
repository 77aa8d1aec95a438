"""Bodies: strict, camelCase, nothing unknown; each refusal names the field's path."""

import json
from typing import Any

import pytest

from sidejob import bodies
from sidejob.bodies import Body, parsed
from sidejob.errors import Refused
from sidejob.operations.task_result import unsigned

JOB = "0f0e0d0c-0b0a-4908-8706-050403020100"
ASSIGN: dict[str, Any] = {"type": "browser.screenshot"}
RESULT: dict[str, Any] = {"jobId": JOB, "ok": True, "attempt": 1, "leaseToken": "t"}
BEAT: dict[str, Any] = {"agentId": "a", "executorId": "default", "status": "idle"}
FILE: dict[str, Any] = {"name": "a.png", "path": "p"}
SHARED: dict[str, Any] = {"name": "a.png", "sameAs": JOB}


def refusal(model: type[Body], body: dict[str, Any] | str) -> Refused:
    with pytest.raises(Refused) as refused:
        parsed(model, (body if isinstance(body, str) else json.dumps(body)).encode())
    return refused.value


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (bodies.TaskAssign, {}, "type"),
        (bodies.TaskAssign, ASSIGN | {"type": ""}, "type"),
        (bodies.TaskAssign, ASSIGN | {"type": "x" * 10_000}, "type"),
        (bodies.TaskAssign, ASSIGN | {"type": "browser.screenshot\n"}, "type"),
        (bodies.TaskAssign, ASSIGN | {"type": 3}, "type"),
        (bodies.TaskAssign, ASSIGN | {"executorId": "no spaces"}, "executorId"),
        (bodies.TaskAssign, ASSIGN | {"executorId": "no:colon"}, "executorId"),
        (bodies.TaskAssign, ASSIGN | {"payload": []}, "payload"),
        (bodies.TaskAssign, ASSIGN | {"payload": "text"}, "payload"),
        (bodies.TaskAssign, ASSIGN | {"payload": None}, "payload"),
        (bodies.TaskAssign, ASSIGN | {"payload": {"deep": [{"x": "a\0b"}]}}, "payload"),
        (bodies.TaskAssign, ASSIGN | {"payload": {"a\0b": 1}}, "payload"),
        (bodies.TaskAssign, '{"type": "t", "payload": {"x": NaN}}', "payload"),
        (bodies.TaskAssign, '{"type": "t", "payload": {"x": 1e999}}', "payload"),
        (bodies.TaskAssign, '{"type": "t", "payload": {"x": 1%s}}' % ("0" * 4000), "payload"),
        (bodies.TaskAssign, ASSIGN | {"priority": 10}, "priority"),
        (bodies.TaskAssign, ASSIGN | {"priority": -1}, "priority"),
        (bodies.TaskAssign, ASSIGN | {"priority": True}, "priority"),
        (bodies.TaskAssign, ASSIGN | {"priority": "3"}, "priority"),
        (bodies.TaskAssign, ASSIGN | {"priority": 3.5}, "priority"),
        (bodies.TaskAssign, ASSIGN | {"maxAttempts": 0}, "maxAttempts"),
        (bodies.TaskAssign, ASSIGN | {"maxAttempts": 26}, "maxAttempts"),
        (bodies.TaskAssign, ASSIGN | {"runAt": "2026-01-01T00:00:00"}, "runAt"),
        (bodies.TaskAssign, ASSIGN | {"runAt": "1999-12-31T23:59:59Z"}, "runAt"),
        (bodies.TaskAssign, ASSIGN | {"runAt": "2100-01-01T00:00:00Z"}, "runAt"),
        (bodies.TaskAssign, ASSIGN | {"runAt": "0001-01-01T00:01:00+02:02"}, "runAt"),
        (bodies.TaskAssign, ASSIGN | {"runAt": "9999-12-31T23:59:59-02:02"}, "runAt"),
        (bodies.TaskAssign, ASSIGN | {"runAt": 1700000000}, "runAt"),
        (bodies.TaskAssign, ASSIGN | {"jobId": "7"}, "jobId"),
        (bodies.TaskAssign, ASSIGN | {"workspaceId": "mine"}, "workspaceId"),
        (bodies.TaskAssign, ASSIGN | {"idempotencyKey": ""}, "idempotencyKey"),
        (bodies.TaskAssign, ASSIGN | {"idempotencyKey": "k" * 201}, "idempotencyKey"),
        (bodies.TaskAssign, ASSIGN | {"idempotencyKey": "a\nb"}, "idempotencyKey"),
        (bodies.TaskAssign, ASSIGN | {"executor_id": "default"}, "executor_id"),
        (bodies.TaskAssign, ASSIGN | {"status": "succeeded"}, "status"),
        (bodies.TaskClaim, {}, "executorId"),
        (bodies.TaskClaim, {"executorId": "default", "leaseSeconds": 14}, "leaseSeconds"),
        (bodies.TaskClaim, {"executorId": "default", "leaseSeconds": 601}, "leaseSeconds"),
        (bodies.TaskClaim, {"executorId": "default", "typePrefix": "a\0"}, "typePrefix"),
        (bodies.TaskResult, RESULT | {"ok": "yes"}, "ok"),
        (bodies.TaskResult, RESULT | {"attempt": 0}, "attempt"),
        (bodies.TaskResult, RESULT | {"result": []}, "result"),
        (bodies.TaskResult, RESULT | {"error": 7}, "error"),
        (bodies.TaskResult, RESULT | {"error": {"message": "a\0"}}, "error"),
        (bodies.TaskResult, RESULT | {"artifact": FILE | {"size": -1}}, "artifact.size"),
        (bodies.TaskResult, RESULT | {"artifact": FILE | {"size": 2**28 + 1}}, "artifact.size"),
        (bodies.TaskResult, RESULT | {"artifact": FILE | {"mime": "png"}}, "artifact.mime"),
        (bodies.TaskResult, RESULT | {"artifact": FILE | {"name": "a\0.png"}}, "artifact.name"),
        (bodies.TaskResult, RESULT | {"error": {"x": "y" * 61 * 1024}}, "error"),
        (bodies.TaskResult, RESULT | {"artifact": FILE | {"colour": "red"}}, "artifact.colour"),
        (bodies.TaskResult, RESULT | {"artifacts": [FILE, FILE | {"sha256": "x"}]}, "artifacts.1.sha256"),
        (bodies.TaskResult, RESULT | {"artifact": {"name": "a.png"}}, "artifact.path"),
        (bodies.TaskResult, RESULT | {"artifacts": [FILE, {"name": "b.png"}]}, "artifacts.1.path"),
        (bodies.TaskResult, RESULT | {"artifacts": [{"name": "b.png", "sameAs": "x"}]}, "artifacts.0.sameAs"),
        (bodies.TaskResult, RESULT | {"artifacts": [FILE, SHARED | {"path": "a"}]}, "artifacts.1"),
        (
            bodies.TaskResult,
            RESULT | {"artifact": SHARED | {"size": 0}, "artifactRecorded": True},
            "artifact",
        ),
        (bodies.TaskResult, RESULT | {"artifact": {"sameAs": JOB}}, "artifact.name"),
        (bodies.JobCancel, {}, "jobId"),
        (bodies.SignArtifact, {"artifactId": "x"}, "artifactId"),
        (bodies.SignArtifact, {"expires": "1h"}, "expires"),
        (bodies.WorkerHeartbeat, BEAT | {"status": "Busy!"}, "status"),
        (bodies.WorkerHeartbeat, BEAT | {"agentId": ""}, "agentId"),
        (bodies.WorkerHeartbeat, BEAT | {"running": 1.5}, "running"),
        (bodies.WorkerHeartbeat, BEAT | {"metrics": [1]}, "metrics"),
        (bodies.WorkerHeartbeat, BEAT | {"metrics": {"x": "y" * 16 * 1024}}, "metrics"),
        (bodies.Empty, {"maxJobs": 3}, "maxJobs"),
    ],
)
def test_a_wrong_field_is_422_and_named(model: type[Body], body: dict[str, Any] | str, field: str) -> None:
    refused = refusal(model, body)
    assert (refused.status, refused.code) == (422, "invalid_body")
    assert refused.message.startswith(f"`{field}")
    assert "\n" not in refused.message
    assert len(refused.message) < 400


def test_a_payload_over_256_kib_has_its_own_code() -> None:
    refused = refusal(bodies.TaskAssign, ASSIGN | {"payload": {"x": "é" * 131_072}})
    assert (refused.status, refused.code) == (422, "payload_too_large")
    assert "payload" in refused.message
    parsed(bodies.TaskAssign, json.dumps(ASSIGN | {"payload": {"x": "é" * 131_060}}).encode())


def test_all_wrong_fields_are_listed() -> None:
    refused = refusal(bodies.TaskAssign, {"type": "", "priority": 99, "colour": 1})
    assert isinstance(refused.details, list)
    assert [fault["field"] for fault in refused.details if isinstance(fault, dict)] == [
        "type",
        "priority",
        "colour",
    ]


def test_an_integral_float_is_an_integer_as_json_schema_says() -> None:
    assert parsed(bodies.TaskAssign, b'{"type":"t","priority":5.0}').priority == 5


def test_the_owners_examples_are_accepted() -> None:
    assign = {"jobId": JOB, "type": "browser.screenshot", "payload": {"url": "https://supabase.com"}}
    assert parsed(bodies.TaskAssign, json.dumps(assign).encode()).executor_id == "default"
    artifact = {"name": "screenshot.png", "size": 744734, "url": "https://p.test/object/sign/a?token=b"}
    result = {
        "ok": True, "action": "screenshot", "url": "https://supabase.com", "artifact": artifact,
        "artifactRecorded": True, "jobId": JOB,
    }  # fmt: skip
    body = parsed(bodies.TaskResult, json.dumps(result).encode())
    assert (body.attempt, body.lease_token, body.artifact_recorded) == (None, None, True)


def test_no_body_at_all_is_empty_and_nothing_else_is() -> None:
    parsed(bodies.Empty, b"")
    parsed(bodies.Empty, b"{}")
    with pytest.raises(Refused, match="empty"):
        parsed(bodies.JobCancel, b"")


def test_signed_urls_are_taken_out_of_a_result_and_pages_stay() -> None:
    signed = "https://p.test/storage/v1/object/sign/artifacts/a.png?token=abc"
    page = "https://shop.test/?token=abc"
    result: Any = {"url": page, "artifact": {"name": "a", "url": signed}, "all": [signed, page]}
    assert unsigned(result) == {"url": page, "artifact": {"name": "a"}, "all": [page]}
