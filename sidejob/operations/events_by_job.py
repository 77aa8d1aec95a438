"""The history of one job."""

from sidejob.call import Call, Reply
from sidejob.history import HIGHEST_SEQ
from sidejob.pages import page


def events_by_job(call: Call) -> Reply:
    """One page, newest first, as all lists are. The order is that of `seq`, and the cursor ends in it: `seq`
    has no gap and no tie, which timestamps do not promise."""
    call.query.only("jobId", "limit", "cursor")
    call.notes["jobId"] = job_id = call.query.needed_uuid("jobId")
    limit = call.query.number("limit", 100, 1, 1000)
    place = call.query.cursor(numbered=True)
    filters = {"job_id": f"eq.{job_id}", "order": "seq.desc", "limit": str(limit + 1)}
    if place and place.key is not None:
        filters["seq"] = f"lt.{min(int(place.key), HIGHEST_SEQ)}"
    elif place:
        filters["created_at"] = f"lt.{place}"
    call.database.row("jobs", {"select": "id", "id": f"eq.{job_id}"})
    return page(call.database.rows("job_events", filters), limit, "seq")
