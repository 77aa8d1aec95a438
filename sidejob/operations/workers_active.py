"""Who is at work."""

from sidejob import clock
from sidejob.call import Call, Reply


def workers_active(call: Call) -> Reply:
    """The heartbeats of the last 20 seconds by the database's clock, newest first, all on one page."""
    call.query.only()
    rows = call.database.call_for_rows("active_workers", {}, repeatable=True)
    return Reply({"items": [*rows], "count": len(rows), "nextCursor": None, "ts": clock.now()})
