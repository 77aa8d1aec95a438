"""The Collab API: the same handlers under /api/collab/…, for callers that want one address."""

from sidejob.endpoint import Route
from sidejob.operations.artifacts_list import artifacts_list
from sidejob.operations.events_by_job import events_by_job
from sidejob.operations.health import health
from sidejob.operations.job_status import job_status
from sidejob.operations.job_summary import job_summary
from sidejob.operations.jobs_recent import jobs_recent
from sidejob.operations.metrics_overview import metrics_overview
from sidejob.operations.openapi import openapi
from sidejob.operations.task_assign import task_assign
from sidejob.operations.task_claim import task_claim
from sidejob.operations.task_result import task_result
from sidejob.operations.worker_heartbeat import worker_heartbeat
from sidejob.operations.workers_active import workers_active
from sidejob.routes import table

collab = table(
    "collab",
    "/api/collab/",
    [
        Route("GET", health, "anybody", "health"),
        Route("GET", openapi, "anybody", "openapi.json"),
        Route("POST", task_assign, path="task.assign"),
        Route("POST", task_claim, path="task.claim"),
        Route("POST", task_result, path="task.result"),
        Route("GET", job_status, path="job/{id}"),
        Route("GET", job_summary, path="job/{id}/summary"),
        Route("GET", jobs_recent, path="jobs/recent"),
        Route("GET", artifacts_list, path="artifacts/by-job/{jobId}"),
        Route("GET", events_by_job, path="events/by-job/{jobId}"),
        Route("GET", metrics_overview, path="metrics/overview"),
        Route("POST", worker_heartbeat, path="workers/heartbeat"),
        Route("GET", workers_active, path="workers/active"),
    ],
)
