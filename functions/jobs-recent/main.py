"""GET jobs-recent: jobs, newest first, in pages."""

from sidejob.endpoint import endpoint
from sidejob.operations import jobs_recent as operation

jobs_recent = endpoint("GET")(operation.jobs_recent)
