"""job-events: each event once and in order, over lost connections; and how a stream ends."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from deploy.stage import serving
from sidejob import history
from sidejob.call import Call, Caller, Stream
from sidejob.database import Database
from sidejob.operations import job_events as operation
from sidejob.query import Query
from tests.functions.conftest import Project
from tests.functions.test_job_flow import assign, claim, lease
from tests.stack import Person, Stack, done, refused

Event = dict[str, Any]


@dataclass
class Listener:
    """One open stream, read as a client reads it."""

    response: httpx.Response

    def __post_init__(self) -> None:
        assert self.response.status_code == 200, self.response.read()
        assert self.response.headers["content-type"] == "text/event-stream"
        self._lines = self.response.iter_lines()
        self.comments = 0

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name and value:
                fields[name] = value
            elif line.startswith(":"):
                self.comments += 1
            elif "data" in fields:
                row: Event = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (str(row["seq"]), row["event_type"])
                yield row
                fields = {}

    def next(self) -> str:
        return str(next(iter(self))["event_type"])


@contextmanager
def listening(person: Person, job_id: str, url: str = "", **query: Any) -> Iterator[Listener]:
    url = url or f"{person.stack.env['FUNCTIONS_URL']}/job-events"
    headers = {"Accept": "text/event-stream", **person.headers}
    with (
        httpx.Client(timeout=60, trust_env=False) as http,
        http.stream("GET", url, params={"id": job_id, **query}, headers=headers) as response,
    ):
        yield Listener(response)


def seqs(events: list[Event]) -> list[int]:
    return [event["seq"] for event in events]


def fence(job: dict[str, Any]) -> dict[str, Any]:
    return {"job_id": job["id"], "attempt": job["attempt"], "lease_token": job["lease_token"]}


def test_each_event_comes_when_it_happens_and_the_last_one_ends_the_stream(
    member: Person, viewer: Person, worker: Person, executor: str
) -> None:
    job_id = assign(member, executor)["jobId"]
    with listening(viewer, job_id) as stream:
        assert stream.next() == "job.queued"
        job = claim(worker, executor)
        assert stream.next() == "job.claimed"
        done(worker.rest("POST", "rpc/start_job", fence(job)))
        assert stream.next() == "job.started"
        done(worker.rest("POST", "rpc/report_progress", {**fence(job), "progress": {"n": "ü\n"}}))
        progress = next(iter(stream))
        done(worker.post("task-result", {**lease(job), "ok": True}))
        assert [event["event_type"] for event in stream] == ["job.succeeded"]
    (stored,) = [event for event in done(member.get("job-status", id=job_id))["events"] if event["seq"] == 4]
    assert progress == stored, "the row as job-status has it"


@pytest.mark.parametrize("ok", [True, False])
def test_a_job_that_has_ended_is_told_at_once_and_whole(
    member: Person, worker: Person, executor: str, ok: bool
) -> None:
    job_id = assign(member, executor, maxAttempts=1)["jobId"]
    done(worker.post("task-result", {**lease(claim(worker, executor)), "ok": ok}))
    with listening(member, job_id) as stream:
        events = [*stream]
    assert events == done(member.get("job-status", id=job_id))["events"]
    assert events[-1]["event_type"] == ("job.succeeded" if ok else "job.dead_lettered")


def test_a_stream_resumes_after_the_last_event_id_or_after(member: Person, executor: str) -> None:
    job_id = assign(member, executor)["jobId"]
    done(member.post("job-cancel", {"jobId": job_id}))
    with listening(member, job_id, after=1) as stream:
        assert seqs([*stream]) == [2]
    with listening(member.adding(last_event_id="1"), job_id, after=0) as stream:
        assert seqs([*stream]) == [2], "the header is where the client is, the parameter where it began"
    finished = member.adding(last_event_id="2").get("job-events", id=job_id)
    assert (finished.status_code, finished.content) == (204, b""), "so that an EventSource stays away"


def keep_moving(worker: Person, executor: str, rounds: int) -> None:
    """Two events a round, and two at the end."""
    for _ in range(rounds):
        failed = {**lease(claim(worker, executor)), "ok": False, "error": "again", "retryAfterSeconds": 0}
        done(worker.post("task-result", failed))
    done(worker.post("task-result", {**lease(claim(worker, executor)), "ok": True}))


def test_over_many_cut_connections_nothing_is_skipped_or_doubled(
    member: Person, worker: Person, executor: str
) -> None:
    job_id = assign(member, executor, maxAttempts=25)["jobId"]
    seen: list[Event] = []
    streams = 0
    with ThreadPoolExecutor(1) as threads:
        moving = threads.submit(keep_moving, worker, executor, 20)
        while not seen or seen[-1]["event_type"] not in history.LAST_EVENTS:
            if moving.done():
                moving.result()  # else a failure there would be waited for here without end
            resuming = member.adding(last_event_id=str(seen[-1]["seq"])) if seen else member
            streams += 1
            with listening(resuming, job_id) as stream:
                for event, _ in zip(stream, range(random.randint(1, 6)), strict=False):
                    seen.append(event)
    assert seqs(seen) == [*range(1, 43 + 1)]
    assert streams > 6


def test_what_one_may_not_see_is_404(member: Person, stranger: Person, executor: str) -> None:
    job_id = assign(member, executor)["jobId"]
    hidden = refused(stranger.get("job-events", id=job_id), 404, "not_found")
    missing = refused(member.get("job-events", id=str(uuid.uuid4())), 404, "not_found")
    assert hidden["error"] == missing["error"]


@pytest.mark.parametrize(
    ("query", "header", "names"),
    [
        ({}, None, "`id`"),
        ({"id": "7"}, None, "`id`"),
        ({"id": "ID", "after": "-1"}, None, "`after`"),
        ({"id": "ID", "after": "x"}, None, "`after`"),
        ({"id": "ID", "after": str(2**31)}, None, "`after`"),
        ({"id": "ID"}, "1.5", "`Last-Event-ID`"),
        ({"id": "ID", "limit": "1"}, None, "`limit`"),
    ],
)
def test_a_wrong_parameter_is_400_and_named(
    member: Person, query: dict[str, str], header: str | None, names: str
) -> None:
    query = {name: str(uuid.uuid4()) if value == "ID" else value for name, value in query.items()}
    person = member.adding(last_event_id=header) if header else member
    assert names in refused(person.get("job-events", **query), 400, "invalid_parameter")["error"]


def test_the_function_answers_as_all_others_do(member: Person, nobody: Person, executor: str) -> None:
    url = f"{member.stack.env['FUNCTIONS_URL']}/job-events?id={assign(member, executor)['jobId']}"
    http = member.stack.http
    head = http.head(url, headers=member.headers)
    assert (head.status_code, head.headers["content-type"], head.content) == (200, "text/event-stream", b"")
    options = http.options(url)
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "last-event-id" in options.headers["access-control-allow-headers"]
    posted = http.post(url, headers=member.headers, json={})
    refused(posted, 405, "method_not_allowed")
    assert posted.headers["allow"] == "GET, HEAD, OPTIONS"
    assert posted.headers["access-control-allow-origin"] == "*"
    refused(nobody.get("job-events", id=str(uuid.uuid4())), 401, "missing_token")


def short_lived(person: Person, seconds: float) -> Person:
    """The same user with a token that expires soon, as Auth would sign it."""
    claims = jwt.decode(person.token, options={"verify_signature": False})
    claims["exp"] = int(time.time() + seconds)
    token = jwt.encode(claims, person.stack.env["SUPABASE_JWT_SECRET"], "HS256")
    return Person(person.stack, {"Authorization": f"Bearer {token}"})


def test_a_stream_ends_when_the_token_expires(member: Person, executor: str) -> None:
    job_id = assign(member, executor)["jobId"]
    begun = time.time()
    with listening(short_lived(member, 5), job_id) as stream:
        assert seqs([*stream]) == [1]
    assert time.time() > begun + 3, "not before"


def test_who_loses_his_rights_hears_no_more(
    stack: Stack, member: Person, viewer: Person, executor: str
) -> None:
    job_id = assign(member, executor)["jobId"]
    (was,) = viewer.rest("GET", "workspace_members", select="*", user_id=f"eq.{user_id(viewer)}").json()
    with listening(viewer, job_id) as stream:
        assert stream.next() == "job.queued"
        stack.sql.execute("delete from public.workspace_members where user_id = %s", [was["user_id"]])
        try:
            assert [*stream] == []
            refused(viewer.get("job-events", id=job_id), 404, "not_found")
        finally:
            stack.sql.execute(
                "insert into public.workspace_members select * from json_populate_record"
                "(null::public.workspace_members, %s)", [json.dumps(was)]
            )  # fmt: skip


def user_id(person: Person) -> str:
    return str(jwt.decode(person.token, options={"verify_signature": False})["sub"])


@dataclass
class Alone:
    """The staged function as its only process, on a port of its own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def said(self, words: str) -> bool:
        return words in self.log.read_text()


@pytest.fixture
def alone(stack: Stack, staged: dict[str, Path], tmp_path: Path) -> Iterator[Alone]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_JWT_SECRET")
    environment = {"PATH": os.environ["PATH"], **{name: stack.env[name] for name in names}}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            serving(staged["job-events"], "job_events", port),
            cwd=staged["job-events"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    function = Alone(process, f"http://127.0.0.1:{port}/", log)
    until(lambda: listens(port) or process.poll() is not None)
    yield function
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # gunicorn's worker, too
    process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(holds: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # between two looks


def test_sigterm_ends_the_streams_and_the_process_at_once(
    alone: Alone, member: Person, executor: str
) -> None:
    job_id = assign(member, executor)["jobId"]
    with listening(member, job_id, alone.url) as stream:
        assert stream.next() == "job.queued"
        alone.process.send_signal(signal.SIGTERM)
        assert [*stream] == [], "a clean end, not a broken connection"
    alone.process.wait(timeout=60)
    assert alone.said("the process stops")


def test_a_client_that_is_gone_is_noticed(alone: Alone, member: Person, executor: str) -> None:
    job_id = assign(member, executor)["jobId"]
    with listening(member, job_id, alone.url) as stream:
        assert stream.next() == "job.queued"
    until(lambda: alone.said("the client is gone"), 2)


def test_many_streams_are_served_at_once(alone: Alone, member: Person, executor: str) -> None:
    """Under threads the seventeenth would wait for the first to end."""
    job_id = assign(member, executor)["jobId"]
    told: list[list[Event]] = []

    def follow() -> None:
        with listening(member, job_id, alone.url) as stream:
            told.append([*stream])

    threads = [threading.Thread(target=follow) for _ in range(40)]
    for thread in threads:
        thread.start()
    until(lambda: alone.log.read_text().count("GET job_events 200") == 40)
    done(member.post("job-cancel", {"jobId": job_id}))
    for thread in threads:
        thread.join(300)
    assert [seqs(events) for events in told] == [[1, 2]] * 40


def test_a_killed_function_is_a_broken_connection_that_can_be_resumed(
    alone: Alone, member: Person, executor: str
) -> None:
    job_id = assign(member, executor)["jobId"]
    with listening(member, job_id, alone.url) as stream:
        assert stream.next() == "job.queued"
        for child in Path(f"/proc/{alone.process.pid}/task/{alone.process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            stream.next()
    done(member.post("job-cancel", {"jobId": job_id}))
    until(lambda: alone.said("GET job_events 200"))
    with listening(member.adding(last_event_id="1"), job_id, alone.url) as stream:
        assert seqs([*stream]) == [2], "gunicorn starts another worker"


# What takes a project that misbehaves, or a long time, is asked of the operation itself.


def opened(query: dict[str, str], caller: Caller) -> AsyncGenerator[str, None]:
    database = Database("request-1", token=caller.token)
    reply = operation.job_events(Call(caller, Query(query.items()), b"", {}, "request-1", "0" * 32, database))
    assert isinstance(reply, Stream)
    return reply.frames()


def event(seq: int, event_type: str = "job.progress") -> dict[str, object]:
    return {"seq": seq, "event_type": event_type}


JOB = {"id": str(uuid.uuid4())}
SOMEBODY = Caller("user", str(uuid.uuid4()), "token")
RUNNING = (200, [{"status": "running", "event_seq": 3}])


async def test_a_quiet_stream_pings(monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
    monkeypatch.setattr(operation, "PING_SECONDS", operation.SLOWEST_SECONDS + 0.1)
    project.answers = [(200, [{"status": "running", "event_seq": 0}])]
    frames = opened(JOB, SOMEBODY)
    assert [await anext(frames), await anext(frames)] == ["retry: 1000\n\n", ": ping\n\n"]
    await frames.aclose()


async def test_a_gap_is_held_back_until_the_table_has_it(project: Project) -> None:
    project.answers = [
        RUNNING,
        RUNNING, (200, [event(1), event(3)]),
        RUNNING, (200, [event(3)]),
        RUNNING, (200, [event(2), event(3, "job.succeeded")]),
    ]  # fmt: skip
    frames = [frame async for frame in opened(JOB, SOMEBODY)]
    assert [frame.partition("\n")[0] for frame in frames] == ["retry: 1000", "id: 1", "id: 2", "id: 3"]


async def test_an_outage_is_waited_out_and_a_refusal_ends_the_stream(
    monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    monkeypatch.setattr(operation, "SLOWEST_SECONDS", 0.05)
    away: tuple[int, object] = (503, {"code": "PGRST000"})
    project.answers = [
        RUNNING, away, away, None, away, RUNNING, (200, [event(1)]), (401, {"code": "PGRST303"})
    ]  # fmt: skip
    frames = [frame async for frame in opened(JOB, SOMEBODY)]
    assert [frame.partition("\n")[0] for frame in frames] == ["retry: 1000", "id: 1"]


def test_a_stream_lasts_240_seconds_or_as_long_as_the_token(project: Project) -> None:
    project.answers = [RUNNING]
    for left, lasts in ((3600, 240), (100, 100), (-20, 0)):
        caller = Caller("user", str(uuid.uuid4()), "token", int(time.time()) + left)
        reply = operation.job_events(
            Call(caller, Query(JOB.items()), b"", {}, "request-1", "0" * 32, Database("request-1"))
        )
        assert isinstance(reply, Stream)
        assert lasts - 30 <= reply.seconds <= lasts


@pytest.mark.soak
def test_a_quiet_stream_stays_alive_through_the_gateway(member: Person, executor: str) -> None:
    job_id = assign(member, executor)["jobId"]
    with listening(short_lived(member, 40), job_id) as stream:
        assert seqs([*stream]) == [1]
        assert stream.comments == 2, "one in 15 seconds"


def test_the_last_events_are_those_that_nothing_follows(stack: Stack) -> None:
    """Of all jobs that this stack has seen."""
    (row,) = stack.sql.execute(
        "select array_agg(distinct e.event_type) as kinds from public.jobs j join public.job_events e"
        " on e.job_id = j.id and e.seq = j.event_seq where j.status = any(%s)", [[*history.FINAL_STATES]]
    ).fetchall()  # fmt: skip
    assert set(row["kinds"]) <= history.LAST_EVENTS
    (row,) = stack.sql.execute(
        "select count(*) as n from public.jobs j join public.job_events e on e.job_id = j.id"
        " where e.event_type = any(%s) and (e.seq <> j.event_seq or j.status <> all(%s))",
        [[*history.LAST_EVENTS], [*history.FINAL_STATES]],
    ).fetchall()
    assert row["n"] == 0
