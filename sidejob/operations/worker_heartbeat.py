"""A worker says that it is alive."""

from sidejob import clock
from sidejob.call import Call, Reply


def worker_heartbeat(call: Call) -> Reply:
    """`{ok, ts, cancelled}`: the jobs that were cancelled in the hands of this process.

    Whose heartbeat it is, the caller's membership says; the row is written anew.
    """
    from sidejob.bodies import WorkerHeartbeat, parsed

    call.query.only()
    body = parsed(WorkerHeartbeat, call.body)
    beat = {**body.model_dump(), "metrics": body.written("metrics")}
    row = call.database.call_for_row("worker_heartbeat", beat, repeatable=True)
    return Reply(
        {"ok": True, "ts": clock.written(clock.parsed(str(row["ts"]))), "cancelled": row["cancelled"]}
    )
