"""Jobs, newest first."""

from sidejob import clock, columns, query
from sidejob.call import Call, Reply
from sidejob.pages import READ_BYTES, page


def jobs_recent(call: Call) -> Reply:
    """One page of the jobs that the caller may see, without payload, result and checkpoint unless `fields`
    asks for them."""
    call.query.only("limit", "cursor", "status", "executorId", "type", "fields")
    limit = call.query.number("limit", 20, 1, 100)
    place = call.query.cursor()
    fields = columns.wanted(call.query, columns.JOB)
    rows = call.database.call_for_rows(
        "recent_jobs",
        {
            "page_size": limit + 1,
            "before_created_at": clock.written(place.created_at) if place else None,
            "before_id": place.key if place else None,
            "status": call.query.one_of("status", query.STATES),
            "executor_id": call.query.matching("executorId", query.NAME),
            "type": call.query.matching("type", query.JOB_TYPE),
        },
        {"select": fields.select},
        repeatable=True,
        max_bytes=READ_BYTES,
    )
    return page(rows, limit, fields)
