"""What happens to a job, as it happens: Server-Sent Events."""

import asyncio
import time
from collections.abc import AsyncGenerator

from sidejob import history, jsontext
from sidejob.call import Call, Reply, Stream
from sidejob.database import Database, Row
from sidejob.errors import Refused, Unavailable
from sidejob.operations.job_status import NO_JOB
from sidejob.pages import READ_BYTES
from sidejob.query import Query

LONGEST_SECONDS = 240  # below the 300 that Cloud Run gives a request by default
PING_SECONDS = 15
RETRY_MS = 1000  # how long a client waits before it comes back
QUICKEST_SECONDS, SLOWEST_SECONDS = 0.25, 1.0  # between two looks at the table
SLOWER = 1.3  # times the pause, after each look that found nothing
PAGE = 500  # rows a look


def job_events(call: Call) -> Reply:
    """The events after `Last-Event-ID`, or `after`, or all; then each as it comes, to the job's last.

    204 when the job has ended and there is nothing more: that tells an EventSource not to come back.
    """
    call.query.only("id", "after")
    call.notes["jobId"] = job_id = call.query.needed_uuid("id")
    after = call.query.number("after", 0, 0, history.HIGHEST_SEQ)
    if seen := call.headers.get("last-event-id", "").strip():
        after = Query([("Last-Event-ID", seen)]).number("Last-Event-ID", 0, 0, history.HIGHEST_SEQ)
    if history.is_over(_job(call.database, job_id), after):
        return Reply(None, 204)
    expires_at = call.caller.expires_at
    left = LONGEST_SECONDS if expires_at is None else expires_at - time.time()
    return Stream(
        None,
        frames=lambda: _frames(call.database, job_id, after),
        seconds=max(0.0, min(LONGEST_SECONDS, left)),
    )


async def _frames(database: Database, job_id: str, after: int) -> AsyncGenerator[str, None]:
    """A failure of the database is waited out; a refusal ends the stream, and coming back tells why."""
    yield f"retry: {RETRY_MS}\n\n"
    said_at, pause = time.monotonic(), QUICKEST_SECONDS
    while True:
        rows: list[Row] = []
        try:
            rows = await asyncio.to_thread(_news, database, job_id, after)
        except Refused:
            return
        except Unavailable:
            pause = SLOWEST_SECONDS
        for row in rows:
            data = jsontext.dumps(row).decode()
            yield f"id: {row['seq']}\nevent: {row['event_type']}\ndata: {data}\n\n"
            if row["event_type"] in history.LAST_EVENTS:
                return
        if rows:
            after += len(rows)
            said_at, pause = time.monotonic(), QUICKEST_SECONDS
        elif time.monotonic() - said_at >= PING_SECONDS - SLOWEST_SECONDS:
            yield ": ping\n\n"
            said_at = time.monotonic()
        if len(rows) < PAGE:
            await asyncio.sleep(pause)
            pause = min(pause * SLOWER, SLOWEST_SECONDS)


def _news(database: Database, job_id: str, after: int) -> list[Row]:
    """The events after `after`. While there are none, this costs one row of `jobs` by its key."""
    job = _job(database, job_id)
    if int(str(job["event_seq"])) <= after:
        return []
    listed = database.listed(
        "job_events",
        {"job_id": f"eq.{job_id}", "seq": f"gt.{after}", "order": "seq", "limit": str(PAGE)},
        max_bytes=READ_BYTES,
    )
    return history.following(listed.rows(), after)


def _job(database: Database, job_id: str) -> Row:
    wanted = {"select": "status,event_seq", "id": f"eq.{job_id}"}
    return database.row("jobs", wanted, NO_JOB.format("id"))
