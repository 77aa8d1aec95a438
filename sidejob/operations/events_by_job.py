"""The history of one job."""

from sidejob import columns
from sidejob.call import Call, Reply
from sidejob.history import HIGHEST_SEQ
from sidejob.operations.job_status import NO_JOB
from sidejob.pages import READ_BYTES, page


def events_by_job(call: Call) -> Reply:
    """One page, newest first, as all lists are. The order is that of `seq`, and the cursor ends in it: `seq`
    has no gap and no tie, which timestamps do not promise."""
    call.query.only("jobId", "limit", "cursor", "fields")
    call.notes["jobId"] = job_id = call.query.needed_uuid("jobId")
    limit = call.query.number("limit", 100, 1, 1000)
    place = call.query.cursor(numbered=True)
    fields = columns.wanted(call.query, columns.EVENT, keys=("created_at", "seq"), on_request=False)
    filters = {
        "select": fields.select,
        "job_id": f"eq.{job_id}",
        "order": "seq.desc",
        "limit": str(limit + 1),
    }
    if place and place.key is not None:
        filters["seq"] = f"lt.{min(int(place.key), HIGHEST_SEQ)}"
    elif place:
        filters["created_at"] = f"lt.{place}"
    call.database.row("jobs", {"select": "id", "id": f"eq.{job_id}"}, NO_JOB.format("jobId"))
    return page(call.database.listed("job_events", filters, max_bytes=READ_BYTES), limit, fields, "seq")
