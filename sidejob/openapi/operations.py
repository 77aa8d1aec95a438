"""The table of all requests: what each takes, what it answers, and which failures it may meet."""

from dataclasses import dataclass, field

from sidejob import bodies, columns, cursor, query
from sidejob.history import HIGHEST_SEQ
from sidejob.openapi.schemas import (
    COUNT,
    INSTANT,
    OBJECT,
    SECONDS,
    STATE,
    TEXT,
    UUID,
    Schema,
    a,
    chosen,
    closed,
    listed,
    nullable,
    said,
    streamed,
    whole,
)
from sidejob.operations.sign_artifact import DEFAULT_SECONDS, HIGHEST_SECONDS, LOWEST_SECONDS
from sidejob.operations.task_assign import HEADER_KEY

CHANGED = closed(jobId=UUID, status=STATE)
SIGNED = closed(url={"type": "string", "format": "uri"}, bucket=TEXT, path=TEXT, expires=COUNT)


def place(*, numbered: bool = False) -> Schema:
    """The schema of a cursor."""
    sentence = "`nextCursor` of the page before, as it came; or a timestamp: rows older than it."
    return {**TEXT, "pattern": f"^{cursor.pattern(numbered=numbered)}$", "description": sentence}


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
    answer_headers: tuple[str, ...] = ()  # of the answer, beyond those that any answer has
    empty: str = ""  # when the answer is 204
    unchanged: str = ""  # when the answer is 304


ALL = "all of them"
BUT_PAYLOAD = "all but `payload`"
PAGED = {"limit": whole(1, 1000, 1000), "cursor": place(), "fields": chosen(columns.ARTIFACT, ALL)}
LOST = ("lease_lost", "not_found", "forbidden")

JOBS_RECENT = Operation(
    "Jobs, newest first.",
    listed("Job"),
    parameters={
        "limit": whole(1, 100, 20),
        "cursor": place(),
        "status": STATE,
        "executorId": {"type": "string", "pattern": f"^{query.NAME}$"},
        "type": {"type": "string", "pattern": f"^{query.JOB_TYPE}$"},
        "fields": chosen(columns.JOB, "all but `payload`, `result` and `checkpoint`"),
    },
)
JOB_STATUS = Operation(
    "One job, its artifacts (newest first) and its events (in order of seq).",
    closed(
        job=a("Job"),
        artifacts={"type": "array", "items": a("StoredArtifact")},
        events={"type": "array", "items": a("JobEvent")},
    ),
    parameters={"id": UUID},
    needed=frozenset({"id"}),
    errors=("not_found",),
    headers={"If-None-Match": said(TEXT, "An ETag: answered 304 as long as nothing has happened since.")},
    answer_headers=("ETag",),
    unchanged="Nothing has happened to the job since that ETag.",
)
JOB_EVENTS = Operation(
    "The job's events as they happen: Server-Sent Events, each with `id` (its seq), `event` (its type) and "
    "`data` (its row). Ends after the job's last event, when the token expires, or after 240 seconds.",
    streamed("JobEvent"),
    parameters={"id": UUID, "after": whole(0, HIGHEST_SEQ, 0)},
    needed=frozenset({"id"}),
    errors=("not_found", "too_many_streams", "streams_full"),
    headers={
        "Last-Event-ID": said(
            {"anyOf": [whole(0, HIGHEST_SEQ), {"const": ""}]},
            "The last seq seen; goes before `after`. Empty: none, as of an EventSource that has seen none.",
        )
    },
    media_type="text/event-stream",
    empty="The job has ended, and there is no event after that one.",
)
ARTIFACTS_LIST = Operation(
    "The files of a job, newest first.",
    listed("StoredArtifact"),
    parameters={"jobId": UUID, **PAGED},
    needed=frozenset({"jobId"}),
    errors=("not_found",),
)
TASK_ASSIGN = Operation(
    "Put a job into the queue. The same idempotency key, or `jobId`, twice is the same job.",
    closed(jobId=UUID, queued={"type": "boolean"}, status=STATE),
    bodies.TaskAssign,
    errors=(
        "idempotency_mismatch",
        "job_id_taken",
        "no_workspace",
        "payload_too_large",
        "forbidden",
        "not_found",
        "conflict",
    ),
    headers={
        "Idempotency-Key": {
            **TEXT,
            "pattern": f"^({HEADER_KEY})$",
            "description": "Instead of `idempotencyKey`: 1 to 200 printable ASCII characters, or quoted.",
        },
    },
)
TASK_CLAIM = Operation(
    "Take a job under a lease. Its `lease_token` is told this once.",
    closed(job=nullable(a("ClaimedJob"))),
    bodies.TaskClaim,
    errors=("forbidden",),
)
TASK_RESULT = Operation(
    "Report how an attempt ended. The same report twice changes nothing.",
    closed(ok={"const": True}, jobId=UUID, status=STATE),
    bodies.TaskResult,
    errors=(*LOST, "artifact_gone"),
)
WORKER_HEARTBEAT = Operation(
    "A worker says that it is alive.",
    closed(ok={"const": True}, ts=INSTANT, cancelled={"type": "array", "items": UUID}),
    bodies.WorkerHeartbeat,
    errors=("agent_id_taken", "forbidden"),
)
WORKERS_ACTIVE = Operation(
    "The workers heard of in the last 20 seconds.",
    listed("WorkerSeen"),
    parameters={"fields": chosen(columns.WORKER, ALL)},
)
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
                executorId=TEXT,
                type=TEXT,
                ready=said(COUNT, "May be claimed now."),
                delayed=said(COUNT, "Due later."),
                blocked=said(COUNT, "Wait for other jobs."),
                inFlight=COUNT,
                oldestReadySeconds=said(COUNT, "How long the first that is ready has been due."),
                paused={"type": "boolean"},
            ),
        },
        lastHour=closed(
            sampled=said(COUNT, "Successes looked at: the last 1,000 of a workspace."),
            meanAttempts=nullable(SECONDS),
            perMinute=SECONDS,
            runSeconds=closed(p50=nullable(SECONDS), p95=nullable(SECONDS)),
            waitSeconds=closed(p50=nullable(SECONDS), p95=nullable(SECONDS)),
        ),
        oldestTransactionSeconds=said(
            nullable(COUNT), "Above a minute the queue slows down: end that transaction."
        ),
        ts=INSTANT,
    ),
)
SIGN_QUERY = Operation(
    "A temporary URL for a file, by `artifactId`, or by `bucket` and `path`.",
    SIGNED,
    parameters={
        "artifactId": UUID,
        "bucket": TEXT,
        "path": TEXT,
        "expires": {
            "type": "integer",
            "default": DEFAULT_SECONDS,
            "description": f"Seconds; moved into {LOWEST_SECONDS}–{HIGHEST_SECONDS}.",
        },
    },
    errors=("not_found", "storage_unavailable", "storage_error"),
)
SIGN_BODY = Operation(
    SIGN_QUERY.summary,
    SIGNED,
    bodies.SignArtifact,
    errors=("not_found", "storage_unavailable", "storage_error"),
)

DOCUMENT = Operation("What is served here, as OpenAPI 3.1.", OBJECT, security=())

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
            listed("DeadLetter"),
            parameters={
                "limit": whole(1, 100, 20),
                "cursor": place(numbered=True),
                "fields": chosen(columns.DEAD_LETTER, BUT_PAYLOAD),
            },
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
    "dlq-discard": {
        "post": Operation(
            "Throw a dead letter away. The job and its history stay.",
            closed(ok={"const": True}),
            bodies.DlqDiscard,
            errors=("not_found", "forbidden"),
        )
    },
    "artifacts-sweep": {
        "post": Operation(
            "Remove files whose job is no more, and those that no result named, an hour after its end.",
            closed(removed=COUNT, scannedTo=nullable(TEXT)),
            bodies.ArtifactsSweep,
            errors=("forbidden", "invalid_key", "storage_unavailable", "storage_error"),
            security=("user", "secret"),
        )
    },
}
COLLAB: dict[str, dict[str, Operation]] = {
    "health": {"get": Operation("Is it there?", closed(ok={"const": True}, ts=INSTANT), security=())},
    "openapi.json": {"get": DOCUMENT},
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
                type=TEXT,
                attempts=COUNT,
                createdAt=INSTANT,
                finishedAt=nullable(INSTANT),
                artifacts=COUNT,
                error=nullable(OBJECT),
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
            listed("JobEvent"),
            parameters={
                "jobId": UUID,
                "limit": whole(1, 1000, 100),
                "cursor": place(numbered=True),
                "fields": chosen(columns.EVENT, ALL),
            },
            needed=frozenset({"jobId"}),
            errors=("not_found",),
        )
    },
    "metrics/overview": {"get": METRICS_OVERVIEW},
    "workers/heartbeat": {"post": WORKER_HEARTBEAT},
    "workers/active": {"get": WORKERS_ACTIVE},
}
