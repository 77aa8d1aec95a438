"""GET job-events: what happens to a job, as it happens, as Server-Sent Events."""

from sidejob.operations import job_events as operation
from sidejob.streaming import endpoint

job_events = endpoint("GET")(operation.job_events)
