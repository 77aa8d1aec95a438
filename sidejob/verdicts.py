"""The one classification of failures: what a failed request to the project means for the same request.

`later`: nothing is wrong with the request, and it may work when it is sent again. `never`: it will fail in
the same way each time. `lost`: the lease that it was sent under is not the caller's any more, so that nothing
of it may be written. Functions, worker and clients all ask here, because three lists had come to differ.

`later` allows a repetition; how often, the caller decides: an answer is an answer, and only silence may be
repeated for as long as a lease lasts.
"""

import re
from collections.abc import Mapping
from typing import Literal

from sidejob.errors import CODES

Verdict = Literal["later", "never", "lost"]

# SQLSTATEs by class, the first two characters (PostgreSQL, appendix A). A class not listed is `never`.
_LATER_CLASSES = frozenset(
    {
        "00",  # no error at all: an answer that is not understood
        "08",  # connection exception
        "25",  # transaction state: a server that was made a replica is read-only, an idle one was ended
        "28",  # the project's own connection was not let in
        "3D",  # its database is being restored
        "40",  # conflict with another transaction: serialization failure, deadlock
        "53",  # no room: connections, memory, disk
        "55",  # something is held by somebody else: lock not available, object in use
        "57",  # an operator, a time limit or a shutdown ended it
        "58",  # the system around Postgres
        "72",  # snapshot too old
        "F0",  # configuration file
        "HV",  # foreign data
        "XX",  # internal error
    }
)
_EXCEPTIONS: Mapping[str, Verdict] = {
    "0A000": "later",  # "cached plan must not change result type": the schema has just been migrated
    "40002": "never",  # integrity constraint violation, though its class is that of conflicts
    "SJ300": "lost",
    "PGRST300": "later",  # PostgREST has no secret to check tokens with
}
# PostgREST's groups (docs/references/errors.rst): 0 its connection, 2 its schema cache, which a migration
# makes stale for a moment, X its own bugs. 1 (the request) and 3 (the token) fail in the same way each time.
_LATER_POSTGREST = re.compile(r"PGRST[02X]")
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_RAISED_STATUS = re.compile(r"PT([1-5][0-9]{2})")  # `raise … using errcode = 'PT409'` sets the HTTP status

_LATER_STATUSES = frozenset({408, 421, 423, 425, 429})


def verdict(code: str | None, status: int | None = None) -> Verdict:
    """The verdict on a failed request.

    code: the SQLSTATE, PostgREST's code, or the `code` of a function's error. status: of the HTTP answer,
    which decides when the code says nothing. Both missing, or a status that is no failure, is an answer in an
    unexpected shape, such as a proxy's page of HTML: `later`.
    """
    code = code or ""
    if code in _EXCEPTIONS:
        return _EXCEPTIONS[code]
    if code == "lease_lost":
        return "lost"
    if code in CODES:
        return _of_status(CODES[code].status)
    if raised := _RAISED_STATUS.fullmatch(code):
        return _of_status(int(raised[1]))
    if code.startswith("PGRST"):
        return "later" if _LATER_POSTGREST.match(code) else "never"
    if _SQLSTATE.fullmatch(code):
        return "later" if code[:2] in _LATER_CLASSES else "never"
    if re.fullmatch(r"[1-5][0-9]{2}", code):  # supabase-py's code for an answer that is no JSON
        return _of_status(int(code))
    return _of_status(status)


def _of_status(status: int | None) -> Verdict:
    refused = status is not None and 400 <= status < 500 and status not in _LATER_STATUSES
    return "never" if refused else "later"
