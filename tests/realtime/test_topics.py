"""Our own topics, over the socket: who hears a job, who speaks of it, and the change stream of its events."""

import os
import re
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.setup import NODE_FOLDER, REPOSITORY, node_program
from sidejob import channels
from tests.realtime.conftest import Realtime
from tests.realtime.sockets import Socket
from tests.stack import Person, Stack, done

LIFE = ["queued", "claimed", "started", "progress", "succeeded"]


def assign(member: Person, executor: str, **more: str) -> str:
    return str(
        done(member.post("task-assign", {"type": "test.live", "executorId": executor, **more}))["jobId"]
    )


def live_through(worker: Person, executor: str) -> None:
    """A worker takes the job and does it, one transition after the other."""
    (job,) = worker.rest("POST", "rpc/claim_one_job", {"executor_id": executor}).json()
    lease = {"job_id": job["id"], "attempt": job["attempt"], "lease_token": job["lease_token"]}
    done(worker.rest("POST", "rpc/start_job", lease))
    done(worker.rest("POST", "rpc/report_progress", {**lease, "progress": {"percent": 50}}))
    done(worker.rest("POST", "rpc/finish_job", {**lease, "ok": True, "result": {}}))


def test_a_member_hears_every_event_of_a_job_in_order(
    realtime: Realtime, member: Person, viewer: Person, worker: Person, executor: str
) -> None:
    job_id = assign(member, executor)
    sockets = [realtime.socket(version) for version in ("2.0.0", "1.0.0")]
    for socket, person in zip(sockets, (member, viewer), strict=True):
        socket.joined(channels.job(job_id), person.token, private=True)
    live_through(worker, executor)
    for socket in sockets:
        heard = [socket.event("broadcast") for _ in LIFE[1:]]
        assert [message["event"] for message in heard] == [f"job.{name}" for name in LIFE[1:]]
        assert [message["payload"]["seq"] for message in heard] == [2, 3, 4, 5]
        assert all(message["payload"]["job_id"] == job_id for message in heard)


def test_a_stranger_and_whoever_is_not_signed_in_hear_nothing(
    realtime: Realtime, member: Person, worker: Person, stranger: Person, executor: str
) -> None:
    job_id = assign(member, executor)
    socket = realtime.socket()
    assert "Unauthorized" in socket.refused(channels.job(job_id), stranger.token, private=True)
    assert "Unauthorized" in realtime.socket().refused(channels.job(job_id), private=True)
    # The public topic of the same name is another one: nobody who matters speaks there.
    public = realtime.socket()
    public.joined(channels.job(job_id), stranger.token)
    live_through(worker, executor)
    assert [message for message in public.silent() if message.event == "broadcast"] == []


@pytest.mark.parametrize("who", ["member", "owner", "worker"])
def test_nobody_but_the_database_speaks_of_a_job(
    realtime: Realtime, member: Person, executor: str, who: str, request: pytest.FixtureRequest
) -> None:
    person: Person = request.getfixturevalue(who)
    job_id = assign(member, executor)
    listener, speaker = realtime.socket(), realtime.socket()
    listener.joined(channels.job(job_id), member.token, private=True)
    speaker.joined(channels.job(job_id), person.token, private=True, broadcast={"ack": True})
    lie = {"type": "broadcast", "event": "job.succeeded", "payload": {"seq": 9}}
    assert speaker.reply(f"realtime:{channels.job(job_id)}", "broadcast", lie)["status"] == "error"
    heard = [message.payload["event"] for message in listener.silent() if message.event == "broadcast"]
    assert lie["event"] not in heard  # that the job was queued may come a moment after the joining


@pytest.fixture
def open_to_everybody(stack: Stack) -> Iterator[None]:
    """A policy that the project's own user might have written for his own topics."""
    stack.sql.execute("create policy everybody on realtime.messages for all using (true) with check (true)")
    yield
    stack.sql.execute("drop policy everybody on realtime.messages")


@pytest.mark.usefixtures("open_to_everybody")
def test_a_generous_policy_of_the_projects_own_does_not_open_our_topics(
    realtime: Realtime, member: Person, stranger: Person, executor: str
) -> None:
    job_id = assign(member, executor)
    for topic in (channels.job(job_id), f"executors:{uuid.uuid4()}:default", "agents:somebody"):
        assert "Unauthorized" in realtime.socket().refused(topic, stranger.token, private=True)
    realtime.socket().joined(f"his-own-{uuid.uuid4()}", stranger.token, private=True)


def test_a_new_job_is_announced_to_the_workers_of_its_executor(
    realtime: Realtime, stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    topic = channels.executor(stack.env["DEMO_WORKSPACE_ID"], executor)
    socket = realtime.socket()
    socket.joined(topic, worker.token, private=True)
    assert "Unauthorized" in realtime.socket().refused(topic, member.token, private=True)
    job_id = str(uuid.uuid4())
    done(
        member.post(
            "task-assign",
            {
                "jobId": job_id,
                "type": "browser.screenshot",
                "executorId": executor,
                "payload": {"url": "https://supabase.com"},
            },
        )
    )
    heard = socket.event("broadcast")
    assert heard["event"] == "task.assign"
    told = {"jobId": job_id, "type": "browser.screenshot", "payload": {"url": "https://supabase.com"}}
    assert {name: heard["payload"][name] for name in told} == told


def test_a_removed_jobs_events_tell_a_stranger_nothing_of_the_job(
    realtime: Realtime, stack: Stack, member: Person, worker: Person, stranger: Person, executor: str
) -> None:
    """Realtime asks no policy about a deleted row, so the row's identity must not say whose it was."""
    all_changes = {"event": "*", "schema": "public", "table": "job_events"}
    sockets = [realtime.socket() for _ in range(2)]
    for socket, person in zip(sockets, (stranger, member), strict=True):
        socket.joined(f"db-{uuid.uuid4()}", person.token, postgres_changes=[all_changes])
    job_id = assign(member, executor)
    live_through(worker, executor)

    def own(change: dict[str, Any]) -> bool:
        return bool(change.get("record", {}).get("job_id") == job_id)

    heard: list[dict[str, Any]] = []
    while len(list(filter(own, heard))) < len(LIFE):
        heard.append(sockets[1].event("postgres_changes")["data"])
    assert [change["record"]["event_type"] for change in filter(own, heard)] == [
        f"job.{name}" for name in LIFE
    ]
    stack.sql.execute(
        "update public.jobs set finished_at = now() - interval '400 days' where id = %s", [job_id]
    )
    while stack.count("public.jobs", id=job_id):
        done(worker.rest("POST", "rpc/remove_old_jobs", {}))
    while len([change for change in heard if change["type"] == "DELETE"]) < len(LIFE):
        heard.append(sockets[1].event("postgres_changes")["data"])
    texts = [str(message.payload) for message in sockets[0].silent()]
    texts += [str(change) for change in heard if change["type"] == "DELETE"]
    assert [text for text in texts if job_id in text or stack.env["DEMO_WORKSPACE_ID"] in text] == []


def test_the_server_announces_on_system_events_and_on_the_older_names(
    realtime: Realtime, stack: Stack, stranger: Person
) -> None:
    """Members of any workspace hear them, and cannot speak there."""
    for topic in (channels.SYSTEM_EVENTS, channels.resolve("HEARTBEAT"), channels.resolve("TASKS")):
        socket: Socket = realtime.socket()
        socket.joined(topic, stranger.token, private=True, broadcast={"ack": True, "self": True})
        word = {"type": "broadcast", "event": "notice", "payload": {"text": "mine"}}
        assert socket.reply(f"realtime:{topic}", "broadcast", word)["status"] == "error"
        sent = stack.http.post(
            f"{stack.env['SUPABASE_URL']}/realtime/v1/api/broadcast",
            headers={"apikey": stack.env["SUPABASE_SECRET_KEY"]},
            json={
                "messages": [
                    {"topic": topic, "event": "notice", "payload": {"text": "hello"}, "private": True}
                ]
            },
        )
        assert sent.status_code == 202
        assert socket.event("broadcast")["payload"] == {"text": "hello"}


def test_the_owners_subscription_prints_each_event_of_a_job_in_order(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    """His TypeScript as it stands, with one line before it that signs in."""
    job_id = str(uuid.uuid4())
    # Node finds the client's package from the file's own folder.
    script = NODE_FOLDER / f"{job_id}.ts"
    script.write_text((REPOSITORY / "tests" / "realtime" / "owner_subscription.ts").read_text())
    try:
        seen = watched(script, stack, member, worker, executor, job_id)
    finally:
        script.unlink()
    assert [name for _, name in seen] == [f"job.{name}" for name in LIFE]
    assert [seq for seq, _ in seen] == [1, 2, 3, 4, 5]


def watched(
    script: Path, stack: Stack, member: Person, worker: Person, executor: str, job_id: str
) -> list[tuple[int, str]]:
    """What the script prints of a job that begins once it listens."""
    environment = {**stack.env, "JOB_ID": job_id, "PATH": os.environ["PATH"]}
    command = [str(node_program()), "--disable-warning=ExperimentalWarning", "--experimental-strip-types"]
    printed: list[str] = []
    with subprocess.Popen(
        [*command, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        reader = threading.Thread(target=printed.extend, args=(process.stdout,))
        reader.start()
        too_long = threading.Timer(30, process.kill)
        too_long.start()
        try:
            seq = 0
            while not printed:  # it says nothing when it listens: speak until it hears
                seq -= 1
                stack.sql.execute(
                    "insert into public.job_events (job_id, workspace_id, seq, event_type, attempt)"
                    " values (%s, %s, %s, 'job.progress', 0)",
                    [job_id, stack.env["DEMO_WORKSPACE_ID"], seq],
                )
                stack.sql.execute("select pg_sleep(0.05)")
                assert process.poll() is None, "it never heard anything"
            assign(member, executor, jobId=job_id)
            live_through(worker, executor)
            while "job.succeeded" not in "".join(printed):
                stack.sql.execute("select pg_sleep(0.05)")
                assert process.poll() is None, "the end never came"
        finally:
            too_long.cancel()
            process.kill()
            reader.join()
    events = "".join(printed).split("job_event:")[1:]
    found = [
        (re.search(r"seq: (-?\d+)", event), re.search(r"event_type: '([\w.]+)'", event)) for event in events
    ]
    return [(int(seq[1]), name[1]) for seq, name in found if seq and name and int(seq[1]) > 0]
