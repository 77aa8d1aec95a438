"""How the queue is doing."""

from sidejob import clock
from sidejob.call import Call, Reply
from sidejob.errors import Unavailable


def metrics_overview(call: Call) -> Reply:
    """Counts, depths by executor and type, times and throughput over the workspaces of the caller."""
    call.query.only()
    overview = call.database.call("metrics_overview", {}, repeatable=True)
    if not isinstance(overview, dict):
        raise Unavailable("database_error", cause="metrics_overview gave no object")
    return Reply({"ok": True, **overview, "ts": clock.now()})
