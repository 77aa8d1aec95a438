"""POST task-claim: take a job under a lease."""

from sidejob.endpoint import endpoint
from sidejob.operations import task_claim as operation

task_claim = endpoint("POST")(operation.task_claim)
