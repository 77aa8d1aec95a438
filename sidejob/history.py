"""The order of a job's events: `seq` counts 1, 2, 3, … and some event is the last."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

# Nothing follows these. `job.failed` is none: `job.dead_lettered` follows it, in the same transaction.
LAST_EVENTS = frozenset({"job.succeeded", "job.cancelled", "job.dead_lettered"})
HIGHEST_SEQ = 2**31 - 1  # an integer of Postgres
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})

Row = TypeVar("Row", bound=Mapping[str, Any])


def following(rows: Iterable[Row], seq: int) -> list[Row]:
    """Of rows in order, those that follow `seq` without a gap: none twice, none skipped."""
    found: list[Row] = []
    for row in rows:
        if row["seq"] == seq + len(found) + 1:
            found.append(row)
    return found


def is_over(job: Mapping[str, Any], seq: int) -> bool:
    """Is `seq` the end of this job's history? job: its `status` and `event_seq`."""
    return job["status"] in FINAL_STATES and int(str(job["event_seq"])) <= seq
