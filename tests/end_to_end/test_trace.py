"""One trace id from the client's request into the job, through the worker's log, and back with its result."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from tests.functions.test_job_events import until
from tests.stack import Person, done

LOGS = Path(os.environ.get("SIDEJOB_TEST_ENV", "")).parent / "logs"
DEADLINE_SECONDS = 300


def lines(log: str, trace: str) -> list[dict[str, Any]]:
    """The lines of this log that belong to the trace."""
    texts = (LOGS / log).read_text(errors="replace").splitlines()
    return [json.loads(text) for text in texts if text.startswith("{") and trace in text]


def test_a_trace_is_the_same_from_the_client_to_the_worker_and_back(member: Person) -> None:
    trace = secrets.token_hex(16)
    asking = member.adding(traceparent=f"00-{trace}-{secrets.token_hex(8)}-01")
    job = {"type": "browser.screenshot", "payload": {"html": "<h1>Traced</h1>"}}
    job_id = done(asking.post("task-assign", job))["jobId"]
    until(lambda: bool(lines("function-task-result.log", trace)), DEADLINE_SECONDS)
    assert done(member.get("job-status", id=job_id))["job"]["trace_id"] == trace
    (assigned,) = lines("function-task-assign.log", trace)
    (reported,) = lines("function-task-result.log", trace)
    worked = lines("worker-0.log", trace)
    assert {line["jobId"] for line in (assigned, reported, *worked)} == {job_id}
    assert {line["traceId"] for line in (assigned, reported, *worked)} == {trace}
    assert "claimed" in {line["message"] for line in worked}
    assert (assigned["method"], assigned["status"]) == ("POST", 200)
    assert assigned["requestId"] != reported["requestId"]
    assert assigned["userId"] != reported["userId"]
    for line in (assigned, reported):
        assert {"severity", "durationMs", "function", "logging.googleapis.com/trace"} <= set(line)
