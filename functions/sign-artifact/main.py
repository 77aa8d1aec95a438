"""GET or POST sign-artifact: a temporary URL for a file."""

from sidejob.endpoint import endpoint
from sidejob.operations import sign_artifact as operation

sign_artifact = endpoint("GET", "POST")(operation.sign_artifact)
