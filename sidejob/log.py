"""One JSON object a line on standard output, as Google Cloud Logging reads it.

Source of the special names: Cloud Logging, "Structured logging" (`severity`, `message`,
`logging.googleapis.com/trace`, `logging.googleapis.com/spanId`).
"""

import json
import re
import sys
from typing import Literal

Severity = Literal["DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL"]

# The last net, not the first: nothing secret should be given to `line` at all.
_SECRETS = re.compile(
    r"sb_secret_[A-Za-z0-9_-]+"
    r"|eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"
    r"|(?<=[?&]token=)[^&\s\"']+"
)


def redacted(text: str) -> str:
    """The text without secret keys, tokens, and the tokens of signed URLs."""
    return _SECRETS.sub("[redacted]", text)


def line(severity: Severity, message: str, **fields: object) -> None:
    """Write one line. A field that is None is left out; what JSON does not know is written as text."""
    record: dict[str, object] = {"severity": severity, "message": message}
    record |= {name: value for name, value in fields.items() if value is not None}
    sys.stdout.write(redacted(json.dumps(record, default=str)) + "\n")
    sys.stdout.flush()
