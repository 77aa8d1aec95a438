"""Who is at work."""

from dataclasses import replace

from sidejob import clock, columns
from sidejob.call import Call, Reply
from sidejob.database import Listed
from sidejob.pages import READ_BYTES, fitting


def workers_active(call: Call) -> Reply:
    """The heartbeats of the last 20 seconds by the database's clock, newest first, all on one page.

    Where they have no room in it, they come without their metrics: some 5,000 have room then, the newest.
    """
    call.query.only("fields")
    fields = columns.wanted(call.query, columns.WORKER, keys=(), on_request=False)
    rows = _ask(call, fields)
    kept = fitting(rows.items)
    if (rows.cut or len(kept) < len(rows.items)) and "metrics" in fields.read:
        without = tuple(name for name in fields.read if name != "metrics")
        fields = replace(fields, shown=without, read=without)
        kept = fitting(_ask(call, fields).items)
    items = [*map(fields.item, kept)]
    return Reply({"items": [*items], "count": len(items), "nextCursor": None, "ts": clock.now()})


def _ask(call: Call, fields: columns.Fields) -> Listed:
    return call.database.call_for_rows(
        "active_workers", {}, {"select": fields.select}, repeatable=True, max_bytes=READ_BYTES
    )
