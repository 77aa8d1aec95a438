"""GET dlq-list: jobs that failed for good, newest first, in pages."""

from sidejob.endpoint import endpoint
from sidejob.operations import dlq_list as operation

dlq_list = endpoint("GET")(operation.dlq_list)
