"""The envelope of all lists: `{items, count, nextCursor, ts}`."""

from collections.abc import Mapping

from sidejob import clock, cursor
from sidejob.call import Reply
from sidejob.cursor import Cursor
from sidejob.database import Row


def page(rows: list[Row], limit: int, key: str = "id") -> Reply:
    """A page out of rows of which one more was asked for than fits: the extra one tells that there are more.

    key: the column that breaks ties of `created_at`. `nextCursor` is null on the last page.
    """
    items = rows[:limit]
    more = len(rows) > limit
    next_cursor = cursor.after(dict(items[-1]), key) if more else None
    return Reply({"items": [*items], "count": len(items), "nextCursor": next_cursor, "ts": clock.now()})


def older_than(place: Cursor | None, key: str = "id") -> Mapping[str, str]:
    """PostgREST's filter for rows after this place in the order `created_at desc, <key> desc`."""
    if place is None:
        return {}
    instant = str(Cursor(place.created_at, None))
    if place.key is None:
        return {"created_at": f"lt.{instant}"}
    return {"or": f"(created_at.lt.{instant},and(created_at.eq.{instant},{key}.lt.{place.key}))"}
