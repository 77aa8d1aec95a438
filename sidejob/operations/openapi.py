"""The function's part of the OpenAPI document, which deploy/stage.py puts beside main.py."""

import json
from pathlib import Path

from sidejob.call import Call, Reply
from sidejob.errors import Refused

FILE = Path(__file__).parents[2] / "openapi.json"


def openapi(call: Call) -> Reply:
    """The document, to anybody."""
    call.query.only()
    if not FILE.is_file():
        raise Refused("not_found", "This function was not staged, so it has no document of its own.")
    return Reply(json.loads(FILE.read_text()))
