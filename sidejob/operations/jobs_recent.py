"""Jobs, newest first."""

from sidejob import clock, query
from sidejob.call import Call, Reply
from sidejob.pages import page


def jobs_recent(call: Call) -> Reply:
    """One page of the jobs that the caller may see."""
    call.query.only("limit", "cursor", "status", "executorId", "type")
    limit = call.query.number("limit", 20, 1, 100)
    place = call.query.cursor()
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
        repeatable=True,
    )
    return page(rows, limit)
