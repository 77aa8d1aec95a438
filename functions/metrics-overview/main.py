"""GET metrics-overview: how the queue is doing."""

from sidejob.endpoint import endpoint
from sidejob.operations import metrics_overview as operation

metrics_overview = endpoint("GET")(operation.metrics_overview)
