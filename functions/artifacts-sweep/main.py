"""POST artifacts-sweep: remove stored files that nobody needs. A cron caller may use the secret key."""

from sidejob.endpoint import endpoint
from sidejob.operations import artifacts_sweep as operation

artifacts_sweep = endpoint("POST", who="user or secret")(operation.artifacts_sweep)
