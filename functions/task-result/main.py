"""POST task-result: report how an attempt ended."""

from sidejob.endpoint import endpoint
from sidejob.operations import task_result as operation

task_result = endpoint("POST")(operation.task_result)
