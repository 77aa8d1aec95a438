"""POST task-assign: put a job into the queue."""

from sidejob.endpoint import endpoint
from sidejob.operations import task_assign as operation

task_assign = endpoint("POST")(operation.task_assign)
