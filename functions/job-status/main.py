"""GET job-status: one job with its files and its history."""

from sidejob.endpoint import endpoint
from sidejob.operations import job_status as operation

job_status = endpoint("GET")(operation.job_status)
