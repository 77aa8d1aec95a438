"""The OpenAPI 3.1 document: bodies from their pydantic models, the rest from the table below.

    python -m sidejob.openapi > docs/openapi.json

No function imports this: `collab` serves the committed file.
"""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from pydantic.json_schema import models_json_schema

from sidejob import bodies, query
from sidejob.errors import CODES
from sidejob.operations.job_events import HIGHEST_SEQ
from sidejob.operations.sign_artifact import DEFAULT_SECONDS, HIGHEST_SECONDS, LOWEST_SECONDS

Schema = dict[str, Any]

UUID: Schema = {"type": "string", "format": "uuid"}
INSTANT: Schema = {"type": "string", "format": "date-time"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "number", "minimum": 0}
STATE: Schema = {"type": "string", "enum": list(query.STATES)}
ROW: Schema = {"type": "object", "description": "A row, in snake_case, as the table has it."}
CURSOR: Schema = {
    "type": "string",
    "description": "`nextCursor` of the page before, as it came; or a timestamp: rows older than it.",
}


def closed(**properties: Schema) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def whole(low: int, high: int, default: int) -> Schema:
    """A whole number between two bounds."""
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


LIST = closed(
    items={"type": "array", "items": ROW}, count=COUNT, nextCursor=nullable({"type": "string"}), ts=INSTANT
)
CHANGED = closed(jobId=UUID, status=STATE)
SIGNED = closed(
    url={"type": "string", "format": "uri"}, bucket={"type": "string"}, path={"type": "string"}, expires=COUNT
)


@dataclass(frozen=True)
class Operation:
    """One request and its answer."""

    summary: str
    answer: Schema
    body: type[bodies.Body] | None = None
    parameters: dict[str, Schema] = field(default_factory=dict)
    needed: frozenset[str] = frozenset()  # parameters that must be there
    errors: tuple[str, ...] = ()  # codes beyond those that any request may meet
    security: tuple[str, ...] = ("user",)  # any of these; none for everybody
    headers: dict[str, Schema] = field(default_factory=dict)  # of the request, that mean something here
    media_type: str = "application/json"  # of the answer
    empty: str = ""  # when the answer is 204


PAGED = {"limit": whole(1, 1000, 1000), "cursor": CURSOR}
LOST = ("lease_lost", "not_found", "forbidden")

JOBS_RECENT = Operation(
    "Jobs, newest first.",
    LIST,
    parameters={
        "limit": whole(1, 100, 20),
        "cursor": CURSOR,
        "status": STATE,
        "executorId": {"type": "string", "pattern": f"^{query.NAME}$"},
        "type": {"type": "string", "pattern": f"^{query.JOB_TYPE}$"},
    },
)
JOB_STATUS = Operation(
    "One job, its artifacts (newest first) and its events (in order of seq). With an ETag.",
    closed(job=ROW, artifacts={"type": "array", "items": ROW}, events={"type": "array", "items": ROW}),
    parameters={"id": UUID},
    needed=frozenset({"id"}),
    errors=("not_found",),
)
JOB_EVENTS = Operation(
    "The job's events as they happen: Server-Sent Events, each with `id` (its seq), `event` (its type) and "
    "`data` (its row). Ends after the job's last event, when the token expires, or after 240 seconds.",
    {"type": "string"},
    parameters={"id": UUID, "after": whole(0, HIGHEST_SEQ, 0)},
    needed=frozenset({"id"}),
    errors=("not_found",),
    headers={"Last-Event-ID": {**COUNT, "description": "The last seq seen; goes before `after`."}},
    media_type="text/event-stream",
    empty="The job has ended, and there is no event after that one.",
)
ARTIFACTS_LIST = Operation(
    "The files of a job, newest first.",
    LIST,
    parameters={"jobId": UUID, **PAGED},
    needed=frozenset({"jobId"}),
    errors=("not_found",),
)
TASK_ASSIGN = Operation(
    "Put a job into the queue. `Idempotency-Key` may be a header.",
    closed(jobId=UUID, queued={"type": "boolean"}, status=STATE),
    bodies.TaskAssign,
    errors=(
        "idempotency_mismatch",
        "job_id_taken",
        "no_workspace",
        "payload_too_large",
        "forbidden",
        "not_found",
    ),
)
TASK_CLAIM = Operation(
    "Take a job under a lease. Its `lease_token` is told this once.",
    closed(job=nullable(ROW)),
    bodies.TaskClaim,
    errors=("forbidden",),
)
TASK_RESULT = Operation(
    "Report how an attempt ended. The same report twice changes nothing.",
    closed(ok={"const": True}, jobId=UUID, status=STATE),
    bodies.TaskResult,
    errors=LOST,
)
WORKER_HEARTBEAT = Operation(
    "A worker says that it is alive.",
    closed(ok={"const": True}, ts=INSTANT, cancelled={"type": "array", "items": UUID}),
    bodies.WorkerHeartbeat,
    errors=("agent_id_taken", "forbidden"),
)
WORKERS_ACTIVE = Operation("The workers heard of in the last 20 seconds.", LIST)
METRICS_OVERVIEW = Operation(
    "How the queue is doing, over the caller's workspaces.",
    closed(
        ok={"const": True},
        counts=closed(**dict.fromkeys(query.STATES, COUNT)),
        oldestQueuedSeconds=nullable({"type": "number"}),
        latest=nullable(INSTANT),
        executors={
            "type": "array",
            "items": closed(
                workspaceId=UUID,
                executorId={"type": "string"},
                type={"type": "string"},
                ready={**COUNT, "description": "May be claimed now."},
                delayed={**COUNT, "description": "Due later."},
                blocked={**COUNT, "description": "Wait for other jobs."},
                inFlight=COUNT,
                oldestReadySeconds={**COUNT, "description": "How long the first that is ready has been due."},
                paused={"type": "boolean"},
            ),
        },
        lastHour=closed(
            sampled={**COUNT, "description": "Successes looked at: the last 1,000 of a workspace."},
            meanAttempts=nullable(SECONDS),
            perMinute=SECONDS,
            runSeconds=closed(p50=nullable(SECONDS), p95=nullable(SECONDS)),
            waitSeconds=closed(p50=nullable(SECONDS), p95=nullable(SECONDS)),
        ),
        oldestTransactionSeconds={
            **nullable(COUNT),
            "description": "Above a minute the queue slows down: end that transaction.",
        },
        ts=INSTANT,
    ),
)
SIGN_QUERY = Operation(
    "A temporary URL for a file, by `artifactId`, or by `bucket` and `path`.",
    SIGNED,
    parameters={
        "artifactId": UUID,
        "bucket": {"type": "string"},
        "path": {"type": "string"},
        "expires": {
            "type": "integer",
            "default": DEFAULT_SECONDS,
            "description": f"Seconds; moved into {LOWEST_SECONDS}–{HIGHEST_SECONDS}.",
        },
    },
    errors=("not_found", "storage_unavailable"),
)
SIGN_BODY = Operation(
    SIGN_QUERY.summary, SIGNED, bodies.SignArtifact, errors=("not_found", "storage_unavailable")
)

FUNCTIONS: dict[str, dict[str, Operation]] = {
    "task-assign": {"post": TASK_ASSIGN},
    "task-claim": {"post": TASK_CLAIM},
    "task-result": {"post": TASK_RESULT},
    "job-cancel": {
        "post": Operation("Stop a job.", CHANGED, bodies.JobCancel, errors=("not_found", "forbidden"))
    },
    "jobs-recent": {"get": JOBS_RECENT},
    "job-status": {"get": JOB_STATUS},
    "job-events": {"get": JOB_EVENTS},
    "artifacts-list": {"get": ARTIFACTS_LIST},
    "sign-artifact": {"get": SIGN_QUERY, "post": SIGN_BODY},
    "workers-active": {"get": WORKERS_ACTIVE},
    "worker-heartbeat": {"post": WORKER_HEARTBEAT},
    "leases-release": {
        "post": Operation(
            "Put jobs back whose worker is gone.",
            closed(released=COUNT),
            bodies.Empty,
            errors=("forbidden", "invalid_key"),
            security=("user", "secret"),
        )
    },
    "metrics-overview": {"get": METRICS_OVERVIEW},
    "dlq-list": {
        "get": Operation(
            "Jobs that failed for good, newest first.",
            LIST,
            parameters={"limit": whole(1, 100, 20), "cursor": CURSOR},
        )
    },
    "dlq-retry": {
        "post": Operation(
            "Put a job that failed for good into the queue once more, as a new job. Twice is the same job.",
            closed(jobId=UUID),
            bodies.DlqRetry,
            errors=("not_found", "forbidden"),
        )
    },
    "artifacts-sweep": {
        "post": Operation(
            "Remove files whose job is no more, and those that no result named, an hour after its end.",
            closed(removed=COUNT, scannedTo=nullable({"type": "string"})),
            bodies.ArtifactsSweep,
            errors=("forbidden", "invalid_key", "storage_unavailable"),
            security=("user", "secret"),
        )
    },
}
COLLAB: dict[str, dict[str, Operation]] = {
    "health": {"get": Operation("Is it there?", closed(ok={"const": True}, ts=INSTANT), security=())},
    "openapi.json": {"get": Operation("This document.", {"type": "object"}, security=())},
    "task.assign": {"post": TASK_ASSIGN},
    "task.claim": {"post": TASK_CLAIM},
    "task.result": {"post": TASK_RESULT},
    "job/{id}": {"get": JOB_STATUS},
    "job/{id}/summary": {
        "get": Operation(
            "What a list shows of one job.",
            closed(
                id=UUID,
                status=STATE,
                type={"type": "string"},
                attempts=COUNT,
                createdAt=INSTANT,
                finishedAt=nullable(INSTANT),
                artifacts=COUNT,
                error=nullable({"type": "object"}),
            ),
            parameters={"id": UUID},
            needed=frozenset({"id"}),
            errors=("not_found",),
        )
    },
    "jobs/recent": {"get": JOBS_RECENT},
    "artifacts/by-job/{jobId}": {"get": ARTIFACTS_LIST},
    "events/by-job/{jobId}": {
        "get": Operation(
            "The history of a job, newest first: in falling order of seq.",
            LIST,
            parameters={"jobId": UUID, "limit": whole(1, 1000, 100), "cursor": CURSOR},
            needed=frozenset({"jobId"}),
            errors=("not_found",),
        )
    },
    "metrics/overview": {"get": METRICS_OVERVIEW},
    "workers/heartbeat": {"post": WORKER_HEARTBEAT},
    "workers/active": {"get": WORKERS_ACTIVE},
}

ANY_REQUEST = ("invalid_parameter", "method_not_allowed", "body_too_large", "internal_error")
WITH_TOKEN = (
    "missing_token", "invalid_token", "secret_key_in_browser", "auth_unavailable",
    "database_unavailable", "schema_outdated", "database_timeout", "database_error",
)  # fmt: skip
WITH_BODY = ("invalid_json", "unsupported_media_type", "invalid_body", "invalid_argument")


def document() -> Schema:
    """The whole document, ready for JSON."""
    tables = {f"/functions/v1/{name}": methods for name, methods in FUNCTIONS.items()}
    tables |= {f"/api/collab/{path}": methods for path, methods in COLLAB.items()}
    used = [operation for methods in tables.values() for operation in methods.values()]
    models = sorted(
        {operation.body for operation in used if operation.body}, key=lambda model: model.__name__
    )
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sidejob",
            "version": "1",
            "description": "Jobs beside a Supabase project. `/functions/v1/` and `/api/collab/` share their "
            "handlers. Match an error's `code`, never its sentence.",
        },
        "paths": {
            path: {method: _operation(path, method, operation) for method, operation in methods.items()}
            for path, methods in tables.items()
        },
        "components": {
            "schemas": {**schemas["$defs"], "Error": _error_schema()},
            "responses": {
                "Error": {
                    "description": "One of these codes.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
            "securitySchemes": {
                "user": {"type": "http", "scheme": "bearer", "description": "A user's access token."},
                "secret": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "apikey",
                    "description": "The secret key.",
                },
            },
        },
    }


def _operation(path: str, method: str, operation: Operation) -> Schema:
    codes = list(ANY_REQUEST) + list(operation.errors)
    codes += WITH_TOKEN if operation.security else ()
    codes += WITH_BODY if operation.body else ()
    by_status: dict[int, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(CODES[code].status, []).append(code)
    described: Schema = {
        "operationId": f"{method}_{path.strip('/').translate(str.maketrans('/.-{}', '_____'))}",
        "summary": operation.summary,
        "security": [{name: []} for name in operation.security],
        "parameters": [
            {
                "name": name,
                "in": "path" if f"{{{name}}}" in path else "query",
                "required": name in operation.needed,
                "schema": schema,
            }
            for name, schema in operation.parameters.items()
        ]
        + [
            {"name": name, "in": "header", "required": False, "schema": schema}
            for name, schema in operation.headers.items()
        ],
        "responses": {
            "200": {"description": "Done.", "content": {operation.media_type: {"schema": operation.answer}}},
            **({"204": {"description": operation.empty}} if operation.empty else {}),
            **{
                str(status): {
                    "$ref": "#/components/responses/Error",
                    "description": ", ".join(f"`{code}`" for code in named),
                }
                for status, named in sorted(by_status.items())
            },
        },
    }
    if operation.body:
        schema = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        needed = operation.body is not bodies.Empty
        described["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema}}}
    return described


def _error_schema() -> Schema:
    return closed(
        error={"type": "string", "description": "One sentence for people."},
        code={"type": "string", "enum": sorted(CODES)},
        details={},
        hint=nullable({"type": "string"}),
        requestId={"type": "string"},
    )


def text() -> str:
    """The document as docs/openapi.json holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
