"""Is the process there?"""

from sidejob import clock
from sidejob.call import Call, Reply


def health(call: Call) -> Reply:
    """`{ok: true, ts}`, to anybody. It asks nothing of the database."""
    call.query.only()
    return Reply({"ok": True, "ts": clock.now()})
