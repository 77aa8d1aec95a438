"""The columns of the rows that lists show, and which of them a caller has asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from sidejob import jsontext
from sidejob.jsontext import Raw
from sidejob.query import Query, refusal

JOB = (
    "id", "workspace_id", "type", "status", "executor_id", "worker_id", "agent_id", "priority", "payload",
    "result", "error", "progress", "checkpoint", "idempotency_key", "attempts", "released",
    "max_attempts", "backoff_seconds", "backoff_max_seconds", "blocked_by", "awaited", "next_run_at",
    "lease_owner", "lease_hash", "lease_until", "event_seq", "last_event", "last_detail", "progress_at",
    "created_by", "trace_id", "created_at", "updated_at", "started_at", "finished_at",
)  # fmt: skip
DEAD_LETTER = (
    "id", "job_id", "workspace_id", "type", "executor_id", "reason", "error", "payload", "attempts",
    "retries", "retried_at", "retried_as", "created_at",
)  # fmt: skip
EVENT = ("id", "job_id", "workspace_id", "seq", "event_type", "attempt", "payload", "tx", "created_at")
ARTIFACT = (
    "id", "job_id", "workspace_id", "attempt", "name", "mime", "size", "sha256", "bucket", "path", "url",
    "width", "height", "same_as", "created_at",
)  # fmt: skip
WORKER = (
    "worker_id", "agent_id", "workspace_id", "executor_id", "status", "running", "capacity", "version",
    "metrics", "last_seen",
)  # fmt: skip

# Payload, result and checkpoint have up to 1.5 MiB per row, so a list shows them only when `fields` asks.
ON_REQUEST = frozenset({"payload", "result", "checkpoint"})


@dataclass(frozen=True, slots=True)
class Fields:
    """The columns that the items of a list shall have."""

    shown: tuple[str, ...]
    read: tuple[str, ...]  # those, and what the cursor is made of

    @property
    def select(self) -> str:
        """As PostgREST's parameter of that name has it."""
        return ",".join(self.read)

    def item(self, row: bytes) -> Raw:
        """A row as the list shows it."""
        if self.shown == self.read:
            return Raw(row)
        columns = jsontext.read_members(row)
        return Raw(jsontext.dumps({name: columns[name] for name in self.shown if name in columns}))


def wanted(
    query: Query,
    columns: Sequence[str],
    *,
    keys: tuple[str, ...] = ("created_at", "id"),
    on_request: bool = True,
) -> Fields:
    """The columns that `fields` names, or all but those of `ON_REQUEST`.

    keys: the columns that the cursor is made of. on_request: some are left out unless they are asked for.

    Raises Refused 400 for a name that is no column.
    """
    given = query.text("fields")
    if given is None:
        shown = [name for name in columns if not (on_request and name in ON_REQUEST)]
    else:
        shown = [*dict.fromkeys(given.split(","))]
        for name in shown:
            if name not in columns:
                raise refusal(
                    "fields", f"names {name[:100]!r}, which is no column here. Known: {', '.join(columns)}."
                )
    return Fields(tuple(shown), tuple(dict.fromkeys((*shown, *keys))))
