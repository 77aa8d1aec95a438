"""Jobs that failed for good, newest first."""

from sidejob import clock
from sidejob.call import Call, Reply
from sidejob.pages import page


def dlq_list(call: Call) -> Reply:
    """One page of the dead letters that the caller may see."""
    call.query.only("limit", "cursor")
    limit = call.query.number("limit", 20, 1, 100)
    place = call.query.cursor(numbered=True)
    rows = call.database.call_for_rows(
        "recent_dead_letters",
        {
            "page_size": limit + 1,
            "before_created_at": clock.written(place.created_at) if place else None,
            "before_id": int(place.key) if place and place.key else None,
        },
        repeatable=True,
    )
    return page(rows, limit)
