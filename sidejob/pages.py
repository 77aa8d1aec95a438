"""The envelope of all lists: `{items, count, nextCursor, ts}`."""

from collections.abc import Mapping

from sidejob import clock, cursor, jsontext
from sidejob.call import Reply
from sidejob.columns import Fields
from sidejob.cursor import Cursor
from sidejob.database import Listed, Row
from sidejob.errors import Unavailable

PAGE_BYTES = 2_000_000  # a page ends before it has more, but for one that would be empty then
ROW_BYTES = 2 * 1024 * 1024  # more than any row has: payload, result, checkpoint and error have bounds
READ_BYTES = (
    PAGE_BYTES + ROW_BYTES
)  # of the database's answer: the page, and the row that tells of a next one
ENVELOPE_BYTES = 300  # what stands around the items, at most


def page(rows: Listed, limit: int, fields: Fields, key: str = "id") -> Reply:
    """A page out of rows of which one more was asked for than fits: the extra one tells that there are more.

    key: the column that breaks ties of `created_at`. `nextCursor` is null on the last page.
    """
    kept = fitting(rows.items[:limit])
    more = rows.cut or len(rows.items) > len(kept)
    next_cursor = _cursor_after(kept[-1], key) if more else None
    items = [*map(fields.item, kept)]
    return Reply({"items": [*items], "count": len(items), "nextCursor": next_cursor, "ts": clock.now()})


def _cursor_after(item: bytes, key: str) -> str:
    row = Row(jsontext.read_members(item))
    try:
        return cursor.after(row, key)
    except ValueError as error:
        raise Unavailable("database_error", cause=f"a row of an unexpected shape: {error}") from error


def fitting(items: list[bytes]) -> list[bytes]:
    """As many of the first as a page has room for, and one at least."""
    size = ENVELOPE_BYTES
    for number, item in enumerate(items):
        size += len(item) + 1
        if size > PAGE_BYTES and number:
            return items[:number]
    return items


def older_than(place: Cursor | None, key: str = "id") -> Mapping[str, str]:
    """PostgREST's filter for rows after this place in the order `created_at desc, <key> desc`."""
    if place is None:
        return {}
    instant = str(Cursor(place.created_at, None))
    if place.key is None:
        return {"created_at": f"lt.{instant}"}
    return {"or": f"(created_at.lt.{instant},and(created_at.eq.{instant},{key}.lt.{place.key}))"}
