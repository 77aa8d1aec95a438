"""Who may hear and speak on which topic, asked the way Realtime asks; and what the database itself says there."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
import pytest

from sidejob import channels
from tests.database.callers import Caller, Workspace, lease


def may_hear(workspace: Workspace, caller: Caller, topic: str, extension: str = "broadcast") -> bool:
    """Realtime's question at a join: a probe row, and is it visible to this caller?"""
    with workspace.server.session.transaction(force_rollback=True):
        (probe,) = workspace.server.rows(
            "insert into realtime.messages (topic, extension) values (%s, %s) returning id", topic, extension
        )
        become(workspace.server, caller, topic)
        return bool(workspace.server.rows("select id from realtime.messages where id = %s", probe["id"]))


def may_speak(workspace: Workspace, caller: Caller, topic: str, extension: str = "broadcast") -> bool:
    """Realtime's question at the first message: may the caller insert a row?"""
    with workspace.server.session.transaction(force_rollback=True):
        become(workspace.server, caller, topic)
        try:
            workspace.server.run(
                "insert into realtime.messages (topic, extension) values (%s, %s)", topic, extension
            )
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True


def become(server: Caller, caller: Caller, topic: str) -> None:
    role = "authenticated" if caller.user_id else "anon"
    claims = f'{{"role": "{role}", "sub": "{caller.user_id}"}}' if caller.user_id else '{"role": "anon"}'
    server.rows(
        "select set_config('realtime.topic', %s, true), set_config('request.jwt.claims', %s, true),"
        " set_config('request.jwt.claim.sub', %s, true), set_config('role', %s, true)",
        topic,
        claims,
        caller.user_id or "",
        role,
    )


TOPICS = {
    "jobs:{job}": "viewer member owner worker",
    "agents:{agent}": "viewer member owner worker",
    "system:events": "viewer member owner worker other",
    "system.health": "viewer member owner worker other",
    "tasks.requests": "viewer member owner worker other",
    "executors:{workspace}:default": "worker",
    "executors:{elsewhere}:default": "",
    "jobs:{nothing}": "",
    "jobs:not-a-uuid": "",
    "jobs:{job}:more": "",
    "jobs:": "",
    "agents:nobody": "",
    "system:else": "",
    "executors:": "",
    "somebody-elses-topic": "",
}


@pytest.mark.parametrize(
    "open_policy", [False, True], ids=["own policies", "beside a policy that opens everything"]
)
@pytest.mark.parametrize("topic", TOPICS)
def test_who_hears_and_who_speaks(
    workspace: Workspace, other_workspace: Workspace, sign_in: Any, topic: str, open_policy: bool
) -> None:
    agent_id = f"agent-{uuid.uuid4()}"
    workspace.worker.call("worker_heartbeat", agent_id=agent_id)
    named = topic.format(
        job=workspace.enqueue(),
        agent=agent_id,
        workspace=workspace.id,
        elsewhere=other_workspace.id,
        nothing=uuid.uuid4(),
    )
    callers = {
        name: getattr(workspace, name)
        for name in ("viewer", "member", "owner", "worker", "worker2", "stranger")
    }
    callers |= {"other": other_workspace.member, "anon": sign_in(None)}
    hearers = set(TOPICS[topic].split()) | ({"worker2"} if "worker" in TOPICS[topic].split() else set())
    speakers = {"worker"} if topic == "agents:{agent}" else set()
    if open_policy:
        workspace.server.run(
            "create policy everybody on realtime.messages for all to public using (true) with check (true)"
        )
    try:
        if open_policy and topic == "somebody-elses-topic":
            hearers = speakers = set(callers)
        for extension in ("broadcast", "presence"):
            assert {
                n for n, caller in callers.items() if may_hear(workspace, caller, named, extension)
            } == hearers
            assert {
                n for n, caller in callers.items() if may_speak(workspace, caller, named, extension)
            } == speakers
    finally:
        if open_policy:
            workspace.server.run("drop policy everybody on realtime.messages")


def test_a_row_of_another_topic_cannot_be_slipped_in(workspace: Workspace) -> None:
    """The restrictive policy looks at the topic that was joined and at the one in the row."""
    agent_id, job_id = f"agent-{uuid.uuid4()}", workspace.enqueue()
    workspace.worker.call("worker_heartbeat", agent_id=agent_id)
    with workspace.server.session.transaction(force_rollback=True):
        become(workspace.server, workspace.worker, f"agents:{agent_id}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            workspace.server.run(
                "insert into realtime.messages (topic, extension) values (%s, 'broadcast')", f"jobs:{job_id}"
            )


@contextmanager
def open_policy(workspace: Workspace) -> Iterator[None]:
    """A policy that the project's own user might have written for topics of the project's own."""
    workspace.server.run(
        "create policy everybody on realtime.messages for all to public using (true) with check (true)"
    )
    try:
        yield
    finally:
        workspace.server.run("drop policy everybody on realtime.messages")


@pytest.mark.parametrize("generous", [False, True])
def test_a_row_of_another_topic_is_not_read_along(
    workspace: Workspace, other_workspace: Workspace, generous: bool
) -> None:
    """Who may listen to one topic sees rows of that topic, and none of another of ours."""
    mine, foreign = f"jobs:{workspace.enqueue()}", f"jobs:{other_workspace.enqueue()}"
    read = "select topic from realtime.messages where topic = any(%s) group by topic order by topic"
    with open_policy(workspace) if generous else nullcontext():
        for joined, seen in ((mine, [mine]), (foreign, []), ("a-topic-of-their-own", []), ("", [])):
            with workspace.server.session.transaction(force_rollback=True):
                become(workspace.server, workspace.member, joined)
                rows = workspace.server.rows(read, [mine, foreign])
                assert [row["topic"] for row in rows] == seen, joined


def test_rows_of_the_projects_own_topics_are_the_projects_own_affair(workspace: Workspace) -> None:
    """Whatever realtime.topic() says: it stays set after a broadcast of ours in the same transaction."""
    job_id, topic = workspace.enqueue(), f"their-own-{uuid.uuid4()}"
    with open_policy(workspace):
        for joined in ("", topic, f"jobs:{job_id}", "system:events"):
            for caller in (workspace.member, workspace.stranger):
                with workspace.server.session.transaction(force_rollback=True):
                    become(workspace.server, caller, joined)
                    workspace.server.run(
                        "insert into realtime.messages (topic, extension) values (%s, 'broadcast')", topic
                    )
                    found = workspace.server.rows("select from realtime.messages where topic = %s", topic)
                    assert len(found) == 1, joined


def said(workspace: Workspace, topic: str) -> list[dict[str, Any]]:
    return workspace.server.rows(
        "select event, payload, private from realtime.messages where topic = %s and extension = 'broadcast' order by inserted_at, (payload ->> 'seq')::int",
        topic,
    )


def test_every_event_of_a_job_is_broadcast_and_progress_as_often_as_it_is_reported(
    workspace: Workspace,
) -> None:
    job_id = workspace.enqueue(max_attempts=1)
    job = workspace.worker.claim()
    workspace.worker.call("start_job", **lease(job))
    for n in range(3):
        workspace.worker.call("report_progress", **lease(job), progress={"n": n})
    workspace.worker.call("renew_lease", **lease(job))
    workspace.worker.call("finish_job", **lease(job), ok=False, error={"code": "x"})
    messages = said(workspace, f"jobs:{job_id}")
    assert [message["event"] for message in messages] == [
        "job.queued", "job.claimed", "job.started", "job.progress", "job.progress", "job.progress", "job.failed", "job.dead_lettered"
    ]  # fmt: skip
    assert all(message["private"] for message in messages)
    kept = workspace.server.rows(
        "select to_jsonb(e) - 'tx' as event from public.job_events e where job_id = %s order by seq", job_id
    )
    stored = [message["payload"] for message in messages if message["payload"].get("seq")]
    assert stored == [row["event"] for row in kept]


def wake_ups(workspace: Workspace, executor_id: str) -> list[dict[str, Any]]:
    return said(workspace, f"executors:{workspace.id}:{executor_id}")


def test_a_new_job_wakes_its_executor_once_in_a_while(workspace: Workspace) -> None:
    job_id = workspace.enqueue(payload={"n": 1})
    assert [
        (m["event"], m["payload"]["jobId"], m["payload"]["type"], m["payload"]["payload"])
        for m in wake_ups(workspace, "default")
    ] == [("task.assign", job_id, "test.job", {"n": 1})]
    workspace.server.run(
        "update sidejob.wake_ups set sent_at = clock_timestamp() + interval '1 hour' where workspace_id = %s",
        workspace.id,
    )
    workspace.enqueue()
    assert len(wake_ups(workspace, "default")) == 1, "a burst is one wake-up"
    workspace.server.run(
        "update sidejob.wake_ups set sent_at = clock_timestamp() - interval '1 second' where workspace_id = %s",
        workspace.id,
    )
    workspace.enqueue(payload={"large": "x" * 3000})
    assert "payload" not in wake_ups(workspace, "default")[-1]["payload"]
    workspace.enqueue(executor_id="later", run_at="2099-01-01")
    assert wake_ups(workspace, "later") == []


def test_a_job_that_comes_back_wakes_its_executor(workspace: Workspace) -> None:
    workspace.enqueue(executor_id="again")
    job = workspace.worker.claim(executor_id="again")
    workspace.server.run(
        "update sidejob.wake_ups set sent_at = clock_timestamp() - interval '1 second' where workspace_id = %s",
        workspace.id,
    )
    workspace.worker.call("release_job", **lease(job))
    assert len(wake_ups(workspace, "again")) == 2


def test_a_job_that_waits_no_longer_wakes_its_executor(workspace: Workspace) -> None:
    parent = workspace.enqueue()
    workspace.enqueue(executor_id="after", depends_on=(parent,))
    assert wake_ups(workspace, "after") == []
    workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=True)
    assert len(wake_ups(workspace, "after")) == 1


def test_a_statement_that_moves_many_jobs_wakes_and_says_no_more(workspace: Workspace) -> None:
    workspace.server.run(
        "insert into public.jobs (workspace_id, type) select %s, 'test.many' from generate_series(1, 21)",
        workspace.id,
    )
    job_ids = [str(job["id"]) for job in workspace.worker.rpc("claim_jobs", max_jobs=21)]
    assert len(job_ids) == 21
    assert all(said(workspace, channels.job(job_id)) == [] for job_id in job_ids)
    assert len(wake_ups(workspace, "default")) == 1
    for job_id in job_ids[:2]:
        assert workspace.events(job_id) == ["queued", "claimed"], "the history has them all the same"


def test_a_message_that_cannot_be_sent_does_not_hold_up_the_job(workspace: Workspace) -> None:
    workspace.server.run(
        "alter table realtime.messages add constraint mute check (topic not like 'jobs:%%') not valid"
    )
    try:
        workspace.enqueue()
        assert workspace.worker.claim()["status"] == "assigned"
    finally:
        workspace.server.run("alter table realtime.messages drop constraint mute")


def test_older_names_lead_to_topics_that_the_policies_know(workspace: Workspace) -> None:
    assert channels.resolve("HEARTBEAT") == "system.health"
    assert channels.resolve("DISCOVERY") == "agents.orchestrator"
    assert channels.resolve("TASKS") == "tasks.requests"
    assert channels.resolve("TASKS.RESULTS") == "tasks.results"
    assert channels.resolve("jobs:1") == "jobs:1"
    for group in channels.CHANNELS.values():
        for topic in group.values():
            (row,) = workspace.server.rows("select sidejob.is_older_topic(%s) as known", topic)
            assert row["known"], topic
