"""POST job-cancel: stop a job."""

from sidejob.endpoint import endpoint
from sidejob.operations import job_cancel as operation

job_cancel = endpoint("POST")(operation.job_cancel)
