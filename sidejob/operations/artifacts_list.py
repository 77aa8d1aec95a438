"""The files of one job."""

from sidejob import columns
from sidejob.call import Call, Reply
from sidejob.operations.job_status import NO_JOB
from sidejob.pages import READ_BYTES, older_than, page


def artifacts_list(call: Call) -> Reply:
    """One page, newest first. 404 when the caller sees no such job, as when there is none."""
    call.query.only("jobId", "limit", "cursor", "fields")
    call.notes["jobId"] = job_id = call.query.needed_uuid("jobId")
    limit = call.query.number("limit", 1000, 1, 1000)
    place = call.query.cursor()
    fields = columns.wanted(call.query, columns.ARTIFACT)
    call.database.row("jobs", {"select": "id", "id": f"eq.{job_id}"}, NO_JOB.format("jobId"))
    rows = call.database.listed(
        "artifacts",
        {
            "select": fields.select,
            "job_id": f"eq.{job_id}",
            "order": "created_at.desc,id.desc",
            "limit": str(limit + 1),
            **older_than(place),
        },
        max_bytes=READ_BYTES,
    )
    return page(rows, limit, fields)
