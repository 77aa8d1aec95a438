"""JSON Schemas of what is answered: small values, and rows, in snake_case as the tables have them."""

from collections.abc import Sequence
from typing import Any

from sidejob import query

Schema = dict[str, Any]

UUID: Schema = {"type": "string", "format": "uuid"}
INSTANT: Schema = {"type": "string", "format": "date-time"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "number", "minimum": 0}
TEXT: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object"}
STATE: Schema = {"type": "string", "enum": list(query.STATES)}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def closed(**properties: Schema) -> Schema:
    """An object with exactly these members."""
    return {**row(**properties), "additionalProperties": False}


def row(**properties: Schema) -> Schema:
    """An object with at least these members: a later migration may add a column."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def whole(low: int, high: int, default: int | None = None) -> Schema:
    """A whole number between two bounds."""
    bounded: Schema = {"type": "integer", "minimum": low, "maximum": high}
    return bounded if default is None else {**bounded, "default": default}


def said(schema: Schema, description: str) -> Schema:
    """The schema with a sentence about it."""
    return {**schema, "description": description}


def a(name: str) -> Schema:
    """A row of `ROWS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(name: str) -> Schema:
    """The envelope of a list of such rows, each with the columns that were asked for."""
    items = {"type": "array", "items": a(f"{name}InList")}
    return closed(items=items, count=COUNT, nextCursor=nullable(TEXT), ts=INSTANT)


def chosen(columns: Sequence[str], default: str) -> Schema:
    """The parameter `fields` of a list whose rows have these columns."""
    name = f"(?:{'|'.join(columns)})"
    sentence = f"Columns that the items shall have, with commas between them. Default: {default}."
    return {**TEXT, "pattern": f"^{name}(?:,{name})*$", "description": sentence}


def streamed(name: str) -> Schema:
    """Server-Sent Events with such rows: the whole text, or one event. OpenAPI 3.1 leaves open which of the
    two a schema describes, and tools differ."""
    data: Schema = {**TEXT, "contentMediaType": "application/json", "contentSchema": a(name)}
    return {"anyOf": [TEXT, row(id=TEXT, event=TEXT, data=data)]}


_JOB = {
    "id": UUID,
    "workspace_id": UUID,
    "type": TEXT,
    "status": STATE,
    "executor_id": TEXT,
    "worker_id": said(nullable(TEXT), "Who holds it, or held it last."),
    "agent_id": nullable(TEXT),
    "priority": COUNT,
    "payload": OBJECT,
    "result": said({}, "What the worker made of it."),
    "error": said(nullable(OBJECT), "Why it failed: `code` and `message`."),
    "progress": {},
    "checkpoint": said({}, "What an attempt left for the next one."),
    "idempotency_key": nullable(TEXT),
    "attempts": said(COUNT, "Claims so far."),
    "released": said(COUNT, "Of them handed back, at no cost."),
    "max_attempts": COUNT,
    "backoff_seconds": COUNT,
    "backoff_max_seconds": COUNT,
    "blocked_by": said(COUNT, "Jobs that it waits for."),
    "awaited": {"type": "boolean"},
    "next_run_at": INSTANT,
    "lease_owner": nullable(UUID),
    "lease_hash": said(nullable(TEXT), "SHA-256 of the lease's token."),
    "lease_until": nullable(INSTANT),
    "event_seq": said(COUNT, "The last event's seq."),
    "last_event": nullable(TEXT),
    "last_detail": {},
    "progress_at": nullable(INSTANT),
    "created_by": nullable(UUID),
    "trace_id": said(nullable(TEXT), "W3C trace id of the request that asked for it."),
    "created_at": INSTANT,
    "updated_at": INSTANT,
    "started_at": nullable(INSTANT),
    "finished_at": nullable(INSTANT),
}
_LETTER = {
    "id": COUNT,
    "job_id": UUID,
    "workspace_id": UUID,
    "reason": TEXT,
    "error": nullable(OBJECT),
    "payload": OBJECT,
    "retries": COUNT,
    "retried_at": nullable(INSTANT),
    "retried_as": said(nullable(UUID), "The job that does the same work again."),
    "created_at": INSTANT,
}
# Schema -> the table whose columns it has, or "" for what a function of the database returns.
TABLES = {
    "Job": "jobs",
    "JobEvent": "job_events",
    "StoredArtifact": "artifacts",
    "WorkerSeen": "worker_heartbeats_v2",
}
ROWS: dict[str, Schema] = {
    "Job": row(**_JOB),
    "ClaimedJob": row(
        **{
            name: _JOB[name]
            for name in (
                "id", "workspace_id", "type", "status", "executor_id", "worker_id", "priority", "payload",
                "checkpoint", "attempts", "released", "max_attempts", "lease_until", "trace_id", "created_at",
            )
        },
        attempt=said(COUNT, "Of this claim: goes into every report."),
        lease_token=said(TEXT, "Goes into every report, and is told this once."),
        queue_ms=said(COUNT, "How long it had been due when it was claimed, by the database's clock."),
    ),
    "JobEvent": row(
        id=COUNT,
        job_id=UUID,
        workspace_id=UUID,
        seq=said({"type": "integer", "minimum": 1}, "1, 2, 3, … within the job, without a gap."),
        event_type=said(TEXT, "job.queued, job.claimed, …"),
        attempt=COUNT,
        payload=OBJECT,
        tx=said(TEXT, "The transaction that wrote it."),
        created_at=INSTANT,
    ),
    "StoredArtifact": row(
        id=UUID,
        job_id=UUID,
        workspace_id=UUID,
        attempt=COUNT,
        name=TEXT,
        mime=TEXT,
        size=said(COUNT, "Bytes."),
        sha256=nullable(TEXT),
        bucket=TEXT,
        path=TEXT,
        url=nullable(TEXT),
        width=said(nullable(COUNT), "Pixels."),
        height=said(nullable(COUNT), "Pixels."),
        same_as=said(nullable(UUID), "The earlier job's artifact whose file this is, which may be gone."),
        created_at=INSTANT,
    ),
    "WorkerSeen": row(
        worker_id=TEXT,
        agent_id=TEXT,
        workspace_id=UUID,
        executor_id=TEXT,
        status=TEXT,
        running=COUNT,
        capacity=COUNT,
        version=nullable(TEXT),
        metrics=OBJECT,
        last_seen=INSTANT,
    ),
    "DeadLetter": row(**_LETTER, type=TEXT, executor_id=TEXT, attempts=COUNT),
}  # fmt: skip
# Rows as lists show them: whichever of the columns `fields` names.
IN_LISTS: dict[str, Schema] = {
    f"{name}InList": {"type": "object", "properties": ROWS[name]["properties"]}
    for name in ("Job", "JobEvent", "StoredArtifact", "WorkerSeen", "DeadLetter")
}
