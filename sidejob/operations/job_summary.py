"""What a list of jobs shows of one."""

from sidejob.call import Call, Reply
from sidejob.operations.job_status import NO_JOB

MOST = 1000  # artifacts that are counted


def job_summary(call: Call) -> Reply:
    """`{id, status, type, attempts, createdAt, finishedAt, artifacts: how many, to 1,000, error}`"""
    call.query.only("id")
    call.notes["jobId"] = job_id = call.query.needed_uuid("id")
    wanted = "id,status,type,attempts,created_at,finished_at,error"
    job = call.database.row("jobs", {"select": wanted, "id": f"eq.{job_id}"}, NO_JOB.format("id"))
    artifacts = call.database.rows(
        "artifacts", {"select": "id", "job_id": f"eq.{job_id}", "limit": str(MOST)}
    )
    return Reply(
        {
            "id": job["id"],
            "status": job["status"],
            "type": job["type"],
            "attempts": job["attempts"],
            "createdAt": job["created_at"],
            "finishedAt": job["finished_at"],
            "artifacts": len(artifacts),
            "error": job["error"],
        }
    )
