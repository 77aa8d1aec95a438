"""One JSON object a line on stdout, as Google Cloud Logging reads it and as the functions write theirs.

What a task binds (job, attempt) is added to each of its lines. A line has a bound, and so has the number of
lines that one place in the code writes: a page or a server that can provoke a line can provoke millions.
"""

import json
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from sidejob.log import Severity, redacted
from worker.storable import utf8

MAX_TEXT = 16_000  # characters of a message, a field or a traceback; Cloud Logging takes 256 KiB a line
MAX_LINES = 600  # of one place in the code, a minute
MAX_TRACEBACKS = 60  # the same for lines with a traceback
MAX_LINES_OF_JOB = 30  # the same for one job

_WINDOW_SECONDS = 60.0
_MAX_WINDOWS = 10_000
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
            "severity": severity(record.levelno),
            "logger": record.name,
            "message": record.getMessage(),
            **_bound.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        bounded = {name: _shortened(value) for name, value in line.items()}
        text = json.dumps(bounded, ensure_ascii=False, default=lambda value: _shortened(str(value)))
        # Half an emoji cannot be written, and the line would be lost for it.
        text = redacted(utf8(text).decode())
        for secret in self._secrets:
            text = text.replace(secret, "***").replace(json.dumps(secret, ensure_ascii=False)[1:-1], "***")
        return text


def severity(level: int) -> Severity:
    """The name that Cloud Logging has for a level."""
    if level >= logging.CRITICAL:
        return "CRITICAL"
    if level >= logging.ERROR:
        return "ERROR"
    if level >= logging.WARNING:
        return "WARNING"
    return "INFO" if level >= logging.INFO else "DEBUG"


def _shortened(value: object) -> object:
    """A text is cut in its middle: a traceback tells most at its end."""
    if not isinstance(value, str) or len(value) <= MAX_TEXT:
        return value
    half = MAX_TEXT // 2
    return f"{value[:half]} … {len(value) - 2 * half} characters left out … {value[-half:]}"


class Repeats:
    """Counts lines by the place in the code that writes them: so many a minute for one job, and so many in
    all. Further ones are left out, and a line says how many there were."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[tuple[object, ...], _Window] = OrderedDict()  # the oldest first

    def admit(self, record: logging.LogRecord) -> bool:
        place = (record.pathname, record.lineno, record.levelno)
        job = _bound.get().get("jobId")
        in_all = self._window((*place, None), record)
        of_job = in_all if job is None else self._window((*place, str(job)), record)
        most = MAX_TRACEBACKS if record.exc_info else MAX_LINES
        if in_all.seen < most and (of_job is in_all or of_job.seen < MAX_LINES_OF_JOB):
            in_all.seen += 1
            if of_job is not in_all:
                of_job.seen += 1
            return True
        in_all.left_out += 1
        return False

    def ended(self) -> list[logging.LogRecord]:
        """A line for each place that left some out, a minute after its first one."""
        found = []
        while self._windows:
            window = next(iter(self._windows.values()))
            if self._clock() < window.ends and len(self._windows) <= _MAX_WINDOWS:
                break
            self._windows.popitem(last=False)
            if window.left_out:
                found.append(window.summary())
        return found

    def _window(self, key: tuple[object, ...], record: logging.LogRecord) -> "_Window":
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(self._clock() + _WINDOW_SECONDS, record)
        return window


class _Window:
    """A minute of one place in the code."""

    def __init__(self, ends: float, first: logging.LogRecord) -> None:
        self.ends = ends
        self.seen = self.left_out = 0
        self._first = first

    def summary(self) -> logging.LogRecord:
        said = str(self._first.msg)[:200]
        record = logging.LogRecord(
            self._first.name,
            self._first.levelno,
            self._first.pathname,
            self._first.lineno,
            "lines like this were left out: %s",
            (said,),
            None,
        )
        record.__dict__.update(fields(leftOut=self.left_out))
        return record


class Output(logging.StreamHandler[TextIO]):
    """Writes what `Repeats` lets through."""

    def __init__(self, stream: TextIO, repeats: Repeats) -> None:
        super().__init__(stream)
        self._repeats = repeats

    def emit(self, record: logging.LogRecord) -> None:
        for summary in self._repeats.ended():
            super().emit(summary)
        if self._repeats.admit(record):
            super().emit(record)


def configure(level: str, secrets: frozenset[str]) -> None:
    """Replaces all log output of the process. `secrets` are cut out of every line."""
    output = Output(sys.stdout, Repeats())
    output.setFormatter(JsonLines(secrets))
    logging.basicConfig(level=level.upper(), handlers=[output], force=True)
    for talkative in ("httpx", "httpcore", "hpack", "asyncio", "realtime"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
