"""Stop a job."""

from sidejob.call import Call, Reply


def job_cancel(call: Call) -> Reply:
    """`{jobId, status}`. A job that is over stays what it was, so a repeat does no harm."""
    from sidejob.bodies import JobCancel, parsed

    call.query.only()
    call.notes["jobId"] = job_id = str(parsed(JobCancel, call.body).job_id)
    row = call.database.call_for_row("cancel_job", {"job_id": job_id}, repeatable=True)
    return Reply({"jobId": row["job_id"], "status": row["status"]})
