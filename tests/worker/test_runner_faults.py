"""A worker on the running stack that meets what nobody planned: odd answers, clocks, types, values, bugs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings

from tests.stack import Person
from tests.worker.bench import FILE, Bench, running, settings_of_worker2
from tests.worker.gate import Gate, gate_to
from tests.worker.jobs import Jobs, eventually
from tests.worker.test_reports import outcomes
from worker.handlers import Done, Error, Outcome, Postpone, RetryLater
from worker.project import Project
from worker.runner import Runner

Start = Callable[..., AbstractAsyncContextManager[Runner]]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def gate(member: Person) -> Iterator[Gate]:
    with gate_to(member.stack.env["SUPABASE_URL"]) as gate:
        yield gate


@pytest.fixture
def start(gate: Gate, member: Person, jobs: Jobs, bench: Bench) -> Start:
    """Starts a worker behind the gate; it drains at the end of the block."""
    env = member.stack.env

    @asynccontextmanager
    async def started(browser: Callable[[], bool] = lambda: True, **changes: str) -> AsyncIterator[Runner]:
        pace = {
            "POLL_SECONDS": "0.1", "HEARTBEAT_SECONDS": "0.2", "LEASE_SECONDS": "60", "SWEEP_SECONDS": "1",
            "REALTIME": "false", **changes,
        }  # fmt: skip
        settings = settings_of_worker2(env, gate.url, jobs.executor, **pace)
        async with running(settings, bench, browser) as runner:
            yield runner

    return started


def spoiled(payload: str) -> Callable[[bytes], bytes]:
    """The answer of a claim, in which the jobs that ask for it have this payload."""

    def spoil(content: bytes) -> bytes:
        rows = json.loads(content)
        texts = [
            json.dumps(row | {"payload": "SPOILED"} if row["payload"].get("spoil") else row) for row in rows
        ]
        return "[{}]".format(",".join(texts)).replace('"SPOILED"', payload).encode()

    return spoil


@pytest.mark.parametrize(
    "payload",
    ['{"a":' * 1500 + "1" + "}" * 1500, '{"n": ' + "7" * 5000 + "}", "[1]", '{"a": tru}'],
    ids=["1,500 deep", "5,000 digits", "a list", "no JSON"],
)
async def test_a_payload_that_cannot_be_read_fails_alone_with_a_name(
    start: Start, gate: Gate, jobs: Jobs, payload: str
) -> None:
    gate.close("claim_jobs", spoiled(payload))
    before, bad, after = (jobs.ask("test.quick", {"spoil": n == 1}) for n in range(3))
    async with start(MAX_JOBS="3"):
        for job_id in (before, after):
            assert (await jobs.until(job_id, "succeeded", "failed"))["status"] == "succeeded"
        row = await jobs.until(bad, "failed")
    assert row["error"]["code"] == "payload_unreadable"
    assert row["error"]["message"].startswith("payload: ")
    assert [jobs.row(job_id)["attempts"] for job_id in (before, bad, after)] == [1, 1, 1]


async def test_a_proxy_s_page_in_the_place_of_every_answer_is_survived(
    start: Start, gate: Gate, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.runner._LONGEST_PAUSE_SECONDS", 0.3)
    async with start() as runner:
        await eventually(lambda: runner.readiness()["ready"])
        for path in (
            "worker_heartbeat",
            "release_expired_leases",
            "report_progress",
            "task-result",
            "/storage/",
        ):
            gate.close(path, lambda _: b"<html>maintenance</html>", 2)
        gate.close("claim_jobs", lambda _: b"<html>maintenance</html>", 1)  # a second one might hold the job
        await eventually(lambda: not runner.readiness()["ready"])
        job_id = jobs.ask("test.quick")
        await jobs.until(job_id, "succeeded")
        assert len(jobs.artifacts(job_id)) == 1
        gate.open()
        seen = jobs.heartbeat(runner.agent_id)["last_seen"]
        await eventually(lambda: jobs.heartbeat(runner.agent_id)["last_seen"] > seen)
    assert "Traceback" not in caplog.text


async def test_a_renewal_that_nobody_understands_is_no_renewal(
    start: Start, gate: Gate, jobs: Jobs, bench: Bench
) -> None:
    job_id = jobs.ask("test.held")
    async with start() as runner:
        await eventually(lambda: bench.started)
        gate.close("renew_lease", lambda _: b"<html>", 1)
        (attempt,) = runner._attempts
        ends = attempt._lease._ends
        runner.look(job_id)
        await eventually(lambda: attempt._lease._ends > ends)
        assert sum("renew_lease" in path for path in gate.passed) > 1
        bench.release.set()
        await jobs.until(job_id, "succeeded")


async def test_a_bug_in_the_heartbeat_does_not_end_it(
    start: Start, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original, failures = Project.heartbeat, ["one", "two"]

    async def heartbeat(self: Project, *arguments: Any) -> Any:
        if failures and arguments[1] != "offline":
            raise KeyError(failures.pop())
        return await original(self, *arguments)

    async with start() as runner:
        await eventually(lambda: runner.readiness()["ready"])
        monkeypatch.setattr(Project, "heartbeat", heartbeat)
        await eventually(lambda: not failures)
        seen = jobs.heartbeat(runner.agent_id)["last_seen"]
        await eventually(lambda: jobs.heartbeat(runner.agent_id)["last_seen"] > seen)
    assert caplog.text.count("heartbeats met a bug") >= 1


async def test_a_cancel_in_a_second_workspace_is_told_by_the_heartbeat(
    start: Start, jobs: Jobs, bench: Bench, member: Person
) -> None:
    """There the worker has another name."""
    other, sql = Jobs(member.stack.sign_in("OTHER")), member.stack.sql
    other.executor = jobs.executor
    env = member.stack.env
    who = [env["OTHER_WORKSPACE_ID"], env["WORKER2_EMAIL"]]
    sql.execute(
        "insert into public.workspace_members (workspace_id, user_id, role, worker_id)"
        " select %s, u.id, 'worker', 'worker-2-elsewhere' from auth.users u where u.email = %s",
        who,
    )
    try:
        async with start() as runner:
            job_id = other.ask("test.held")
            await eventually(lambda: bench.started)
            (attempt,) = runner._attempts
            other.cancel(job_id)
            await eventually(lambda: bench.stopped == [job_id])
            assert attempt._lease._ends - time.monotonic() > 0, "long before the lease was to be renewed"
    finally:
        sql.execute(
            "delete from public.workspace_members where workspace_id = %s"
            " and user_id = (select id from auth.users where email = %s)",
            who,
        )


async def test_a_type_that_a_worker_does_not_know_waits_for_one_that_does(
    start: Start, jobs: Jobs, bench: Bench
) -> None:
    job_id = jobs.ask("test.new", max_attempts=1)
    async with start():
        await eventually(lambda: "released" in jobs.events(job_id))
        row = jobs.row(job_id)
    assert (row["status"], row["released"], row["error"]) == ("queued", 1, None)
    assert due_in(jobs, job_id) > timedelta(seconds=1)
    jobs.hurry(job_id)
    known = bench.handlers()
    bench.handlers = lambda: known | {"test.new": bench.quick}  # type: ignore[method-assign]
    async with start():
        await jobs.until(job_id, "succeeded")


async def test_without_a_browser_only_what_needs_none_is_claimed(
    start: Start, gate: Gate, jobs: Jobs
) -> None:
    there = [False]
    waiting, figma = jobs.ask("test.quick"), jobs.ask("figma.quick")
    async with start(lambda: there[0]) as runner:
        await jobs.until(figma, "succeeded")
        await eventually(lambda: runner.readiness()["queue"])
        state = runner.readiness()
        assert (state["ready"], state["browser"], state["queue"]) == (False, False, True)
        claims = sum("claim_jobs" in path for path in gate.passed)
        await eventually(lambda: sum("claim_jobs" in path for path in gate.passed) > claims + 2)
        assert jobs.events(waiting) == ["queued"]
        there[0] = True
        assert runner.readiness()["ready"]
        await jobs.until(waiting, "succeeded")


def due_in(jobs: Jobs, job_id: str) -> timedelta:
    """By the database's clock."""
    return datetime.fromisoformat(jobs.row(job_id)["next_run_at"]) - jobs.now()


@pytest.mark.parametrize("minutes", [-10, 10], ids=["slow", "fast"])
async def test_a_worker_s_wrong_clock_changes_no_time_of_a_job(
    start: Start, jobs: Jobs, bench: Bench, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    turn_clocks(monkeypatch, timedelta(minutes=minutes))
    ends: dict[str, Outcome] = {
        "retry": RetryLater(Error("busy", "Busy."), after=timedelta(seconds=100)),
        "postpone": Postpone(timedelta(seconds=100), "rate limit"),
        "done": Done({}),
    }
    bench.outcome = lambda job: ends[job.payload["end"]]
    ids = {end: jobs.ask("test.quick", {"end": end}) for end in ends}
    async with start():
        row = await jobs.until(ids["done"], "succeeded")
        for end in ("retry", "postpone"):
            await eventually(lambda end=end: jobs.events(ids[end])[-1] in ("retry_scheduled", "released"))  # type: ignore[misc]
            assert timedelta(seconds=30) < due_in(jobs, ids[end]) <= timedelta(seconds=100)
        assert [jobs.row(ids[end])["attempts"] for end in ("retry", "postpone")] == [1, 1]
    for measured in ("queueMs", "totalMs"):
        assert 0 <= row["result"]["timings"][measured] < 300_000


def turn_clocks(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """All of the worker's wall clocks; the monotonic one is right."""
    import sys

    class Turned(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Turned":
            return cls.fromtimestamp((datetime.now(UTC) + by).timestamp(), tz)

    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + by.total_seconds())
    for name, module in list(sys.modules.items()):
        if name.startswith("worker.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Turned)


async def test_a_long_poll_is_no_illness(start: Start) -> None:
    async with start(POLL_SECONDS="300", SWEEP_SECONDS="3600") as runner:
        await eventually(lambda: runner.readiness()["ready"])
        await eventually(lambda: runner._stalled_at - time.monotonic() > 300)
        assert runner.alive()
        runner._stalled_at = time.monotonic() - 1
        assert not runner.alive(), "a loop that is so much later than it had planned is ill"


async def test_files_of_one_name_are_kept_apart(start: Start, jobs: Jobs, bench: Bench) -> None:
    bench.outcome = lambda _: Done({}, (FILE, FILE))
    job_id = jobs.ask("test.quick")
    async with start():
        await jobs.until(job_id, "succeeded")
    assert [artifact["name"] for artifact in jobs.artifacts(job_id)] == ["note-2.txt", "note.txt"]


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.soak)])
async def test_whatever_handlers_return_the_database_takes_it(
    start: Start, jobs: Jobs, bench: Bench, caplog: pytest.LogCaptureFixture, examples: int
) -> None:
    """The model of `test_reports.py` says what Postgres says."""
    made: list[Any] = []

    @hypothesis_settings(max_examples=examples, phases=[Phase.generate], database=None, deadline=None)
    @given(outcomes)
    def collect(outcome: Any) -> None:
        made.append(outcome)

    await asyncio.to_thread(collect)
    bench.outcome = lambda job: made[job.payload["n"]]
    ids = [jobs.ask("test.quick", {"n": n}, max_attempts=1) for n in range(len(made))]
    async with start(MAX_JOBS="8", HEARTBEAT_SECONDS="2"):
        for number, job_id in enumerate(ids):
            if isinstance(made[number], Postpone):
                await eventually(lambda job_id=job_id: jobs.row(job_id)["released"] > 0)  # type: ignore[misc]
                continue
            row = await jobs.until(job_id, "succeeded", "failed")
            if row["status"] == "succeeded":
                assert isinstance(made[number], Done)
            else:
                assert (row["error"] or {}).get("code") not in ("result_refused", "lease_expired"), row[
                    "error"
                ]
    assert "was not taken" not in caplog.text
