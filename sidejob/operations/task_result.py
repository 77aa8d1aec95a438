"""Report how an attempt ended."""

import json
import re
from typing import TYPE_CHECKING

from sidejob import clock, jsontext
from sidejob.call import Call, Reply
from sidejob.jsontext import JSON, Raw

if TYPE_CHECKING:
    from sidejob.bodies import Artifact, TaskResult

# A URL that Storage signed: whoever has it has the file, and in an hour it is worth nothing.
_SIGNED = re.compile(r"/object/(?:upload/)?sign/.*[?&]token=")


def task_result(call: Call) -> Reply:
    """`{ok: true, jobId, status}`. The same report again is the same answer; another attempt's is 409
    `lease_lost`.

    A report without attempt and leaseToken, from an older worker, goes on as it is: the database decides.
    """
    from sidejob.bodies import TaskResult, parsed

    call.query.only()
    body = parsed(TaskResult, call.body)
    call.notes["jobId"] = str(body.job_id)
    arguments: dict[str, JSON] = {}
    if body.retry_after_seconds is not None:
        arguments["retry_after_seconds"] = body.retry_after_seconds
    artifacts = [] if body.artifact_recorded else [_artifact_row(item) for _, item in body.named_artifacts()]
    row = call.database.call_for_row(
        "finish_job",
        {
            "job_id": str(body.job_id),
            "attempt": body.attempt,
            "lease_token": body.lease_token,
            "ok": body.ok,
            "result": _result(body),
            "error": _error(body),
            "artifacts": [*artifacts],
            "retry_at": clock.written(body.retry_at) if body.retry_at else None,
            "give_up": body.give_up,
            **arguments,
        },
        repeatable=True,
    )
    return Reply({"ok": True, "jobId": row["job_id"], "status": row["status"]})


def _artifact_row(artifact: "Artifact") -> dict[str, JSON]:
    return artifact.model_dump(mode="json", exclude={"url"}, exclude_none=True)


def _result(body: "TaskResult") -> JSON:
    """What the job's row keeps: the page's action and url, and the worker's own fields; no signed URL."""
    told = {"action": body.action, "url": body.url}
    result: dict[str, JSON] = {name: value for name, value in told.items() if not _is_left_out(value)}
    if body.result is not None:
        result |= _kept(body.written("result"), body.result)
    return result or None


def _is_left_out(value: JSON) -> bool:
    return value is None or _is_signed(value)


def _kept(written: JSON, value: dict[str, JSON]) -> dict[str, JSON]:
    """An object's members without signed URLs, as they were written. value: the same, read."""
    text = jsontext.dumps(written)
    if unsigned(value) == value:
        return jsontext.read_members(text)
    # Read to its ends, but for numbers: there is something to take out.
    read = json.loads(text, parse_int=_as_written, parse_float=_as_written)
    found = unsigned(read)
    return found if isinstance(found, dict) else {}


def _as_written(number: str) -> Raw:
    return Raw(number.encode())


def _error(body: "TaskResult") -> JSON:
    if isinstance(body.error, str):
        return {"code": "failed", "message": body.error}
    if body.error is None and not body.ok:
        return {"code": "failed", "message": "The worker gave no reason."}
    return _kept(body.written("error"), body.error) if isinstance(body.error, dict) else None


def unsigned(value: JSON) -> JSON:
    """The value without the members that hold a signed URL."""
    if isinstance(value, dict):
        return {name: unsigned(item) for name, item in value.items() if not _is_signed(item)}
    if isinstance(value, list):
        return [unsigned(item) for item in value if not _is_signed(item)]
    return value


def _is_signed(value: JSON) -> bool:
    return isinstance(value, str) and _SIGNED.search(value) is not None
