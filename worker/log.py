"""One JSON object a line on stdout. What a task binds (job, attempt) is added to each of its lines."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from sidejob.log import redacted

_bound: ContextVar[Mapping[str, object]] = ContextVar("bound", default={})  # noqa: B039  never changed, only replaced


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Adds `fields` to every line that this task, and the tasks it starts, log within the block."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def fields(**values: object) -> dict[str, Any]:
    """`log.info("text", extra=fields(code=…))` puts `code` into the line."""
    return {"fields": values}


class JsonLines(logging.Formatter):
    """Formats a record; whatever message and traceback say, no key, token or password gets through."""

    def __init__(self, secrets: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_bound.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = redacted(json.dumps(line, ensure_ascii=False, default=str))
        for secret in self._secrets:
            text = text.replace(secret, "***").replace(json.dumps(secret, ensure_ascii=False)[1:-1], "***")
        return text


def configure(level: str, secrets: frozenset[str]) -> None:
    """Replaces all log output of the process. `secrets` are cut out of every line."""
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(JsonLines(secrets))
    logging.basicConfig(level=level.upper(), handlers=[output], force=True)
    for talkative in ("httpx", "httpcore", "hpack", "asyncio", "realtime"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
