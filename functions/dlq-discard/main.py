"""POST dlq-discard: throw away the letter of a job that failed for good."""

from sidejob.endpoint import endpoint
from sidejob.operations import dlq_discard as operation

dlq_discard = endpoint("POST")(operation.dlq_discard)
