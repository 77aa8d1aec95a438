"""GET workers-active: the workers heard of in the last 20 seconds."""

from sidejob.endpoint import endpoint
from sidejob.operations import workers_active as operation

workers_active = endpoint("GET")(operation.workers_active)
