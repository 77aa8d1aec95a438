"""Run a job once more that failed for good."""

from sidejob.call import Call, Reply


def dlq_retry(call: Call) -> Reply:
    """`{jobId}`: a new job that does the same work. A second call answers with that job again."""
    from sidejob.bodies import DlqRetry, parsed

    call.query.only()
    dlq_id = parsed(DlqRetry, call.body).dlq_id
    names = {"id": "dlqId"}
    row = call.database.call_for_row("retry_dead_letter", {"id": dlq_id}, repeatable=True, names=names)
    call.notes["jobId"] = row["job_id"]
    return Reply({"jobId": row["job_id"]})
