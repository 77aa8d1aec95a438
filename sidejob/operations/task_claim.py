"""Take a job under a lease."""

from sidejob.call import Call, Reply
from sidejob.errors import Refused


def task_claim(call: Call) -> Reply:
    """`{job}`: the row with its `lease_token`, which is told this once; or `{job: null}`."""
    from sidejob.bodies import TaskClaim, parsed

    call.query.only()
    body = parsed(TaskClaim, call.body)
    if body.worker_id is not None:
        _check_is_callers_own(call, body.worker_id)
    jobs = call.database.call_for_rows(
        "claim_one_job",
        {
            "executor_id": body.executor_id,
            "lease_seconds": body.lease_seconds,
            "type_prefix": body.type_prefix,
        },
    ).rows()
    call.notes["jobId"] = jobs[0]["id"] if jobs else None
    return Reply({"job": jobs[0] if jobs else None})


def _check_is_callers_own(call: Call, worker_id: str) -> None:
    own = call.database.rows(
        "workspace_members",
        {
            "select": "worker_id",
            "user_id": f"eq.{call.caller.user_id}",
            "worker_id": f"eq.{worker_id}",
            "limit": "1",
        },
    )
    if not own:
        raise Refused(
            "forbidden",
            "`workerId` is not yours.",
            details={"field": "workerId"},
            hint="Leave it out: who you are is known from your token.",
        )
