"""POST worker-heartbeat: a worker says that it is alive."""

from sidejob.endpoint import endpoint
from sidejob.operations import worker_heartbeat as operation

worker_heartbeat = endpoint("POST")(operation.worker_heartbeat)
