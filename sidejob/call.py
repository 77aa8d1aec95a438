"""What a handler is given, and what it gives back."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sidejob.database import Database
from sidejob.jsontext import JSON
from sidejob.query import Query


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling."""

    kind: Literal["user", "secret", "nobody"]  # secret: the project's own key, as a cron job sends it
    user_id: str | None = None  # the Auth user's id
    token: str | None = field(
        default=None, repr=False
    )  # goes on to the database as it came: RLS decides there
    expires_at: int | None = None  # Unix seconds


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request."""

    caller: Caller
    query: Query  # the URL's query, and the variable parts of a Collab path
    body: bytes = field(repr=False)  # for `sidejob.bodies.parsed`
    headers: Mapping[str, str] = field(repr=False)  # names in lower case
    request_id: str
    trace_id: str  # of the W3C header traceparent, or a new one; 32 hex digits
    database: Database  # with the caller's rights
    notes: dict[str, object] = field(default_factory=dict, repr=False)  # for the request's line in the log


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a body that goes out as JSON, or none."""

    body: JSON | Mapping[str, JSON]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream(Reply):
    """An answer that goes on: Server-Sent Events. Only `sidejob.streaming` sends it.

    frames: made when the answer begins, and closed when the client is gone. Each is whole: `data: …\\n\\n`.
    """

    frames: Callable[[], AsyncGenerator[str, None]] = field(kw_only=True, repr=False)
    seconds: float = field(kw_only=True)  # how long it may last
    leave: Callable[[], None] = field(
        default=lambda: None, kw_only=True, repr=False
    )  # called when it is over


Handler = Callable[[Call], Reply]
