"""Jobs that failed for good, newest first."""

from sidejob import clock, columns
from sidejob.call import Call, Reply
from sidejob.pages import READ_BYTES, page


def dlq_list(call: Call) -> Reply:
    """One page of the dead letters that the caller may see, without payload unless `fields` asks for it."""
    call.query.only("limit", "cursor", "fields")
    limit = call.query.number("limit", 20, 1, 100)
    place = call.query.cursor(numbered=True)
    fields = columns.wanted(call.query, columns.DEAD_LETTER)
    rows = call.database.call_for_rows(
        "recent_dead_letters",
        {
            "page_size": limit + 1,
            "before_created_at": clock.written(place.created_at) if place else None,
            "before_id": int(place.key) if place and place.key else None,
        },
        {"select": fields.select},
        repeatable=True,
        max_bytes=READ_BYTES,
    )
    return page(rows, limit, fields)
