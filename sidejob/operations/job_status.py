"""One job with all that happened to it."""

from hashlib import sha256

from sidejob import jsontext
from sidejob.call import Call, Reply
from sidejob.database import Listed
from sidejob.jsontext import JSON, Raw
from sidejob.pages import READ_BYTES, fitting

HISTORY = 1000  # events at most, and artifacts: the newest ones
NO_JOB = "`{}`: there is no such job, or not for you."


def job_status(call: Call) -> Reply:
    """`{job, artifacts, events}`: events in the order of their seq, artifacts newest first, and of both the
    newest that fit into 2 MB.

    The ETag changes with everything that is shown: with each column of the job, and with its files. Its
    events are those up to the row's `event_seq`. A request whose If-None-Match has it is answered 304.
    """
    call.query.only("id")
    call.notes["jobId"] = job_id = call.query.needed_uuid("id")
    job = call.database.row("jobs", {"select": "*", "id": f"eq.{job_id}"}, NO_JOB.format("id"))
    artifacts = call.database.listed(
        "artifacts",
        {"job_id": f"eq.{job_id}", "order": "created_at.desc,id.desc", "limit": str(HISTORY)},
        max_bytes=READ_BYTES,
    )
    shown = jsontext.dumps([job, *_newest(artifacts)])
    tag = f'W/"{job_id}-{job["event_seq"]}-{sha256(shown).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if _matches(call.headers.get("if-none-match", ""), tag):
        return Reply(None, 304, headers)
    # Not beyond the row read above, so that job and history tell the same.
    events = call.database.listed(
        "job_events",
        {
            "job_id": f"eq.{job_id}",
            "seq": f"lte.{job['event_seq']}",
            "order": "seq.desc",
            "limit": str(HISTORY),
        },
        max_bytes=READ_BYTES,
    )
    body: dict[str, JSON] = {"job": job, "artifacts": _newest(artifacts), "events": _newest(events)[::-1]}
    return Reply(body, headers=headers)


def _newest(rows: Listed) -> list[JSON]:
    return [*map(Raw, fitting(rows.items))]


def _matches(given: str, tag: str) -> bool:
    """Is it one of these? Weak or not is all the same here (RFC 9110, 13.1.2)."""
    tags = [each.strip().removeprefix("W/") for each in given.split(",")]
    return tag.removeprefix("W/") in tags or "*" in tags
