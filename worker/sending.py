"""What the worker sends to the project: reports of attempts as bodies, delays as seconds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from worker.claims import Claim

MAX_BODY_BYTES = 1024 * 1024  # of a request to a function (docs/http.md)
MAX_DELAY_SECONDS = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Report:
    """How an attempt ended. Artifacts are rows as `finish_job` takes them; all of it is storable already."""

    ok: bool
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    artifacts: tuple[Mapping[str, Any], ...] = ()
    retry_after_seconds: float | None = None  # after a failure; None: the queue's own backoff
    give_up: bool = False


def fits_function(claim: Claim, report: Report) -> bool:
    """Whether `task-result` takes a body of this size."""
    return len(as_json(result_body(claim, report))) <= MAX_BODY_BYTES


def delay_seconds(after: timedelta) -> float:
    """As it is sent: never negative, a year at most. The database adds it to its own clock."""
    return min(max(after.total_seconds(), 0.0), MAX_DELAY_SECONDS)


def result_body(claim: Claim, report: Report) -> dict[str, Any]:
    """The body for `task-result`."""
    body: dict[str, Any] = {
        "jobId": claim.job.id,
        "type": claim.job.type,
        "attempt": claim.job.attempt,
        "leaseToken": claim.lease_token,
        "ok": report.ok,
        "result": report.result,
        "error": report.error,
        "artifacts": [_camel(row) for row in report.artifacts] or None,
        "retryAfterSeconds": report.retry_after_seconds,
        "giveUp": report.give_up or None,
    }
    return {name: value for name, value in body.items() if value is not None}


def as_json(body: Any) -> bytes:
    """Raises ValueError for NaN: whatever is sent has been made storable."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _camel(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"sameAs" if name == "same_as" else name: value for name, value in row.items()}
