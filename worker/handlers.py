"""The contract between the worker and a handler.

A handler is `async def handle(job, context) -> Outcome`. It knows its engine, and nothing of leases,
uploads, the worker's settings or Supabase. It is cancelled when the lease is lost, the job is cancelled or
the worker drains: then it cleans up and lets the cancellation through. An exception that it raises is a
bug, and costs an attempt.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Job:
    """What a handler may know of a job."""

    id: str
    type: str
    payload: Mapping[str, Any]
    workspace_id: str
    attempt: int  # counts claims from 1; part of the fence and of artifact paths
    last_attempt: bool  # a failure of this attempt is final
    due_at: datetime  # when it could first have been claimed; both by the database's clock
    claimed_at: datetime
    checkpoint: Any = None  # what an earlier attempt left


@dataclass(frozen=True, slots=True)
class Error:
    """Why an attempt failed: a code for machines, and a sentence that is safe to show to those who asked."""

    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {**self.details, "code": self.code, "message": self.message}


class Verdict(Enum):
    """What the code of a failure says about another attempt."""

    RETRY = "retry"
    RETRY_ONCE = "retry once"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class File:
    """A file to be stored as an artifact. Width and height are pixels, read from the file itself."""

    name: str
    mime: str
    content: bytes | Path
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that lies in Storage already. It becomes an artifact when the job ends with it in `Done`."""

    name: str
    mime: str
    size: int  # bytes
    sha256: str  # hexadecimal
    path: str  # in the bucket
    width: int | None = None
    height: int | None = None
    id: str | None = None  # of the earlier job's artifact whose file it is; none: it was stored for this job


@dataclass(frozen=True, slots=True)
class Earlier:
    """A job of the same workspace and type that succeeded before: its result and its artifacts."""

    result: Mapping[str, Any]
    files: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """A success. What cannot be stored of the result is replaced (`worker.storable`), and above 1 MiB it is
    the failure `result_too_large`. Files of one name are numbered.

    `result["source"]`, where there is one, is how `Context.earlier` finds this job later."""

    result: Mapping[str, Any]
    files: tuple[File | Stored, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryLater:
    """A failed attempt. `after` says how long to wait before the next one; without it the queue's own backoff
    decides. `files` show why it failed."""

    error: Error
    after: timedelta | None = None
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class Postpone:
    """Hands the job back, to be claimed again `after` a while: nothing was wrong with it, so this costs no
    attempt. `checkpoint`, when given, is what the next attempt finds as `job.checkpoint`; one of more than
    256 KiB is not kept."""

    after: timedelta
    reason: str
    checkpoint: Any = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A failure that no further attempt can change. `files` show why."""

    error: Error
    files: tuple[File, ...] = ()


Outcome: TypeAlias = Done | RetryLater | Postpone | GiveUp


async def _not_here(*_: object) -> Any:
    raise NotImplementedError("this context has no Storage")


async def _none(_: str) -> AsyncGenerator[Earlier]:
    nothing: tuple[Earlier, ...] = ()
    for earlier in nothing:
        yield earlier


@dataclass(frozen=True, slots=True)
class Context:
    """What a running handler may use. What touches Storage raises StorageFailed."""

    folder: Callable[[], Path]  # the attempt's own folder, made at the first call, removed at the end
    progress: Callable[
        ..., Awaitable[None]
    ]  # progress(values, checkpoint=None); never raises, may be dropped
    # Stores a file now and not at the end, so that the next attempt finds it: put it into the checkpoint.
    store: Callable[[File], Awaitable[Stored]] = _not_here
    # earlier(source): jobs whose result has this `source`, the newest first, each read when it is asked for.
    earlier: Callable[[str], AsyncGenerator[Earlier]] = _none
    # adopt(file, name): a file of an earlier attempt or job as one of this job's; None when it is gone. What
    # `earlier` gave is shared, not copied: should it be gone at the end, the handler runs once more without.
    adopt: Callable[[Stored, str], Awaitable[Stored | None]] = _not_here


class StorageFailed(Exception):
    """Storage does not take or give a file now; the attempt fails and is tried again."""


class FileTooLarge(Exception):
    """A file is larger than an artifact may be, and will be so in each further attempt."""


Handler: TypeAlias = Callable[[Job, Context], Awaitable[Outcome]]
