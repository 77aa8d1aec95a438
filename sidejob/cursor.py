"""Cursors of lists: where the next page begins, `2026-11-23T18:13:31.078735Z~<key>`.

The key, a row's id, breaks ties of rows made in the same microsecond. Nothing in a cursor has to be
percent-encoded: people paste it into a URL as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sidejob import clock
from sidejob.errors import Refused

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_NUMBER = r"[0-9]{1,15}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of the page before: the next page begins right after it."""

    created_at: datetime  # UTC
    key: (
        str | None
    )  # the row's uuid or number; None when the caller gave a bare timestamp: rows older than it

    def __str__(self) -> str:
        instant = clock.written(self.created_at)
        return instant if self.key is None else f"{instant}~{self.key}"


def pattern(*, numbered: bool = False) -> str:
    """What `read` takes, as a regular expression for JSON Schema."""
    return f"{clock.INSTANT}(?:~{_NUMBER if numbered else _UUID})?"


def after(row: Mapping[str, object], key: str = "id") -> str:
    """The cursor that continues after this row, as PostgREST gave it."""
    return str(Cursor(clock.parsed(str(row["created_at"])), str(row[key])))


def read(text: str, *, numbered: bool = False, name: str = "cursor") -> Cursor:
    """The cursor in a query value. numbered: its key is a number instead of a uuid. Raises Refused (400)."""
    if text in ("null", "None", "undefined", ""):
        raise Refused(
            "invalid_parameter",
            f"`{name}={text}` is no cursor: `nextCursor` was null, so that page was the last. Stop there.",
            details={"field": name},
        )
    if not re.fullmatch(pattern(numbered=numbered), text):
        raise Refused(
            "invalid_parameter",
            f"`{name}` is not a cursor of this list: send `nextCursor` as it came, or an ISO 8601 timestamp.",
            details={"field": name},
        )
    instant, mark, key = text.partition("~")
    created_at = clock.parsed(instant)
    if not mark:
        return Cursor(created_at, None)
    return Cursor(created_at, str(int(key)) if numbered else str(UUID(key)))
