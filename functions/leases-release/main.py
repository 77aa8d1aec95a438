"""POST leases-release: put jobs back whose worker is gone. A cron caller may use the secret key."""

from sidejob.endpoint import endpoint
from sidejob.operations import leases_release as operation

leases_release = endpoint("POST", who="user or secret")(operation.leases_release)
