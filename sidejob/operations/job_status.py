"""One job with all that happened to it."""

from sidejob.call import Call, Reply

HISTORY = 1000  # events at most, and artifacts: the newest ones


def job_status(call: Call) -> Reply:
    """`{job, artifacts, events}`: events in the order of their seq, artifacts newest first.

    The ETag is the job's id and last seq; a request whose If-None-Match has it is answered 304.
    """
    call.query.only("id")
    call.notes["jobId"] = job_id = call.query.needed_uuid("id")
    job = call.database.row("jobs", {"select": "*", "id": f"eq.{job_id}"})
    last = job["event_seq"]
    tag = f'W/"{job_id}-{last}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in [given.strip() for given in call.headers.get("if-none-match", "").split(",")]:
        return Reply(None, 304, headers)
    # Not beyond the row read above, so that job and history tell the same.
    events = call.database.rows(
        "job_events",
        {"job_id": f"eq.{job_id}", "seq": f"lte.{last}", "order": "seq.desc", "limit": str(HISTORY)},
    )
    artifacts = call.database.rows(
        "artifacts",
        {"job_id": f"eq.{job_id}", "order": "created_at.desc,id.desc", "limit": str(HISTORY)},
    )
    return Reply({"job": job, "artifacts": [*artifacts], "events": [*reversed(events)]}, headers=headers)
