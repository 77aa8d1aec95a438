"""Put a job into the queue."""

import re
from uuid import uuid4

from sidejob import clock
from sidejob.call import Call, Reply
from sidejob.errors import Refused

# Bare, or the quoted string of draft-ietf-httpapi-idempotency-key-header-07 (RFC 8941, 3.3.3).
HEADER_KEY = r'''[!#-~]([ -~]{0,198}[!-~])?|"([ !#-\[\]-~]|\\["\\]){1,200}"'''


def task_assign(call: Call) -> Reply:
    """`{jobId, queued, status}`. queued is false when the idempotency key or the jobId was there already."""
    from sidejob.bodies import TaskAssign, parsed

    call.query.only()
    body = parsed(TaskAssign, call.body)
    key = _one_key(_header_key(call.headers.get("idempotency-key")), body.idempotency_key)
    fresh = None if body.job_id else str(uuid4())  # so that a call whose answer was lost can go again
    row = call.database.call_for_row(
        "enqueue_job",
        {
            "type": body.type,
            "payload": body.written("payload"),
            "executor_id": body.executor_id,
            "priority": body.priority,
            "max_attempts": body.max_attempts,
            "run_at": clock.written(body.run_at) if body.run_at else None,
            "idempotency_key": key,
            "job_id": fresh or str(body.job_id),
            "workspace_id": str(body.workspace_id) if body.workspace_id else None,
            "trace_id": call.trace_id,
            "backoff_seconds": body.backoff_seconds,
            "backoff_max_seconds": body.backoff_max_seconds,
            "unique_seconds": body.unique_seconds,
            "depends_on": [str(parent) for parent in body.depends_on] or None,
            "on_parent_failure": body.on_parent_failure,
        },
        repeatable=True,
    )
    call.notes["jobId"] = row["job_id"]
    queued = row["queued"] or row["job_id"] == fresh  # nobody else can have made a job with this id
    return Reply({"jobId": row["job_id"], "queued": queued, "status": row["status"]})


def _header_key(value: str | None) -> str | None:
    if value is None:
        return None
    if not re.fullmatch(HEADER_KEY, value):
        raise Refused(
            "invalid_body", "The header `Idempotency-Key` must be 1 to 200 printable ASCII characters."
        )
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _one_key(in_header: str | None, in_body: str | None) -> str | None:
    if in_header is not None and in_body is not None and in_header != in_body:
        raise Refused(
            "invalid_body", "`idempotencyKey` differs from the header `Idempotency-Key`. Send one of them."
        )
    return in_header if in_body is None else in_body
