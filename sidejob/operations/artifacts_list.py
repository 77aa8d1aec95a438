"""The files of one job."""

from sidejob.call import Call, Reply
from sidejob.pages import older_than, page


def artifacts_list(call: Call) -> Reply:
    """One page, newest first. 404 when the caller sees no such job, as when there is none."""
    call.query.only("jobId", "limit", "cursor")
    call.notes["jobId"] = job_id = call.query.needed_uuid("jobId")
    limit = call.query.number("limit", 1000, 1, 1000)
    place = call.query.cursor()
    call.database.row("jobs", {"select": "id", "id": f"eq.{job_id}"})
    rows = call.database.rows(
        "artifacts",
        {
            "job_id": f"eq.{job_id}",
            "order": "created_at.desc,id.desc",
            "limit": str(limit + 1),
            **older_than(place),
        },
    )
    return page(rows, limit)
