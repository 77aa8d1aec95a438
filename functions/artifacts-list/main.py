"""GET artifacts-list: the files of one job."""

from sidejob.endpoint import endpoint
from sidejob.operations import artifacts_list as operation

artifacts_list = endpoint("GET")(operation.artifacts_list)
