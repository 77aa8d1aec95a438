"""What a claim answers, read job by job: one that cannot be read fails alone, and the others run."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from worker import answers
from worker.answers import Unreadable
from worker.handlers import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job under a lease. Every write carries these three; the token is never logged."""

    job: Job
    lease_token: str
    trace_id: str | None = None  # W3C trace id of the request that asked for the job
    fault: str | None = None  # a sentence: why the job cannot be given to a handler

    @property
    def fence(self) -> dict[str, Any]:
        return {"job_id": self.job.id, "attempt": self.job.attempt, "lease_token": self.lease_token}

    def __repr__(self) -> str:
        return f"Claim({self.job.id}, attempt {self.job.attempt})"


def read(text: str) -> list[Claim]:
    """The claimed jobs of an answer of `claim_jobs`. A job whose payload cannot be read has a `fault`; one
    that does not even say which it is, is logged and left to its lease. Raises Unreadable when this is no
    such answer: no array, or one without a single job in it."""
    if not text.lstrip()[:1] == "[":
        raise Unreadable("is no array")
    entries = answers.split(text)
    claims = [claim for _, entry in entries if (claim := _claim(entry)) is not None]
    if entries and not claims:
        raise Unreadable("names no job")
    if len(claims) < len(entries):
        lost = len(entries) - len(claims)
        log.error("%d claimed jobs do not say which they are; they are left to their leases", lost)
    return claims


def _claim(text: str) -> Claim | None:
    try:
        row = _Row(answers.members(text))
    except Unreadable:
        return None
    job_id, token, attempt = row.text("id"), row.text("lease_token"), row.number("attempt")
    if not job_id or not token or attempt is None:
        return None
    row.fault = None
    claimed_at = row.moment("updated_at") or datetime.now(UTC)
    job = Job(
        id=job_id,
        type=row.text("type") or "",
        payload=row.mapping("payload"),
        workspace_id=row.text("workspace_id") or "",
        attempt=attempt,
        last_attempt=row.used_attempts() >= (row.number("max_attempts") or 1),
        due_at=claimed_at - timedelta(milliseconds=row.optional_number("queue_ms")),
        claimed_at=claimed_at,
        checkpoint=row.value("checkpoint"),
    )
    return Claim(job, token, row.trace_id(), row.fault)


class _Row:
    """A row's members, each decoded when it is asked for. `fault` says what was wrong with the first wrong
    one."""

    def __init__(self, members: Mapping[str, str]) -> None:
        self._members = members
        self.fault: str | None = None

    def value(self, name: str) -> Any:
        try:
            return answers.decode(self._members.get(name, "null"))
        except Unreadable as error:
            self._blame(name, str(error))
            return None

    def text(self, name: str) -> str | None:
        value = self.value(name)
        if isinstance(value, str) and value:
            return value
        self._blame(name, "is no text")
        return None

    def number(self, name: str) -> int | None:
        value = self.value(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self._blame(name, "is no whole number")
        return None

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.value(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self._blame(name, "is no object")
        return {}

    def used_attempts(self) -> int:
        return (self.number("attempts") or 1) - (self.number("released") or 0)

    def optional_number(self, name: str) -> float:
        """0 where there is none: databases before the column send none. At most a hundred years."""
        value = self.value(name)
        return min(max(value, 0), 3_155_760_000_000) if isinstance(value, int | float) else 0

    def moment(self, name: str) -> datetime | None:
        """By the database's clock; None when it does not say, which is no fault."""
        try:
            moment = datetime.fromisoformat(str(self.value(name)))
        except ValueError:
            return None
        return moment if moment.tzinfo and moment.year > 1900 else None

    def trace_id(self) -> str | None:
        value = self.value("trace_id")
        return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value) else None

    def _blame(self, name: str, reason: str) -> None:
        self.fault = self.fault or f"{name}: {reason}"
