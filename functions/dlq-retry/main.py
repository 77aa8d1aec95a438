"""POST dlq-retry: put a job that failed for good into the queue once more."""

from sidejob.endpoint import endpoint
from sidejob.operations import dlq_retry as operation

dlq_retry = endpoint("POST")(operation.dlq_retry)
