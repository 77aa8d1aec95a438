"""A worker on the running stack, with handlers of these tests' own: claims, outcomes, outages, drains."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.stack import Person
from tests.worker.bench import Bench, running, settings_of_worker2
from tests.worker.gate import Gate, gate_to
from tests.worker.jobs import Jobs, eventually
from worker.errors import Refused, SignInRefused
from worker.handlers import Error, GiveUp, Outcome, Postpone, RetryLater
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
    async def started(**changes: str) -> AsyncIterator[Runner]:
        pace = {
            "POLL_SECONDS": "0.1", "HEARTBEAT_SECONDS": "0.2", "LEASE_SECONDS": "15", "SWEEP_SECONDS": "1",
            "REALTIME": "false", **changes,
        }  # fmt: skip
        settings = settings_of_worker2(env, gate.url, jobs.executor, **pace)
        async with running(settings, bench) as runner:
            yield runner

    return started


async def test_a_job_goes_all_the_way(start: Start, jobs: Jobs, bench: Bench) -> None:
    async with start() as runner:
        job_id = jobs.ask("test.quick", {"n": 1})
        row = await jobs.until(job_id, "succeeded")
        assert jobs.events(job_id) == ["queued", "claimed", "started", "progress", "succeeded"]
        (artifact,) = jobs.artifacts(job_id)
        assert (artifact["name"], artifact["mime"], artifact["size"], artifact["attempt"]) == (
            "note.txt",
            "text/plain",
            5,
            1,
        )
        assert jobs.bytes_of(artifact["id"]) == b"hello"
        assert row["result"]["artifacts"][0]["path"] == artifact["path"]
        assert {"queueMs", "uploadMs", "totalMs"} <= row["result"]["timings"].keys()
        assert bench.started[0].payload == {"n": 1}
        assert row["agent_id"] == runner.agent_id
        counted = 'jobs_total{outcome="succeeded",type="test.quick"} 1'
        await eventually(lambda: counted in runner.metrics_text())


async def test_more_jobs_than_slots_are_all_done_and_never_too_many_at_once(
    start: Start, jobs: Jobs, bench: Bench
) -> None:
    ids = [jobs.ask("test.held") for _ in range(5)]
    async with start() as runner:
        await eventually(lambda: len(bench.started) == 2)
        assert runner.readiness()["running"] == 2
        bench.release.set()
        for job_id in ids:
            await jobs.until(job_id, "succeeded")


async def test_each_outcome_becomes_what_it_says(start: Start, jobs: Jobs, bench: Bench) -> None:
    outcomes: dict[str, Outcome] = {
        "after": RetryLater(Error("busy", "Busy.", {"stage": 3}), after=timedelta(hours=1)),
        "backoff": RetryLater(Error("busy", "Busy.")),
        "postpone": Postpone(timedelta(hours=2), "rate limit", checkpoint={"crashes": 1}),
        "give up": GiveUp(Error("never", "Never.")),
    }
    bench.outcome = lambda job: outcomes[job.payload["end"]]
    ids = {end: jobs.ask("test.quick", {"end": end}) for end in outcomes}
    last = jobs.ask("test.quick", {"end": "backoff"}, max_attempts=1)

    def due(end: str) -> timedelta:
        return datetime.fromisoformat(jobs.row(ids[end])["next_run_at"]) - datetime.now(UTC)

    async with start():
        await eventually(lambda: all("claimed" in jobs.events(job_id) for job_id in ids.values()))
        assert (await jobs.until(last, "failed"))["error"] == {"code": "busy", "message": "Busy."}
        for end, history in {
            "after": "retry_scheduled", "backoff": "retry_scheduled", "postpone": "released",
        }.items():  # fmt: skip
            await jobs.until(ids[end], "queued")
            assert jobs.events(ids[end])[-1] == history
    assert jobs.row(ids["after"])["error"] == {"code": "busy", "message": "Busy.", "stage": 3}
    assert timedelta(minutes=59) < due("after") < timedelta(minutes=61)
    assert timedelta(minutes=119) < due("postpone") < timedelta(minutes=121)
    assert due("backoff") < timedelta(minutes=1)
    assert (jobs.row(ids["postpone"])["released"], jobs.row(ids["postpone"])["attempts"]) == (1, 1)
    assert jobs.row(ids["postpone"])["checkpoint"] == {"crashes": 1}
    assert (jobs.row(ids["give up"])["status"], jobs.row(ids["give up"])["error"]["code"]) == (
        "failed",
        "never",
    )


@pytest.mark.parametrize(
    ("job_type", "code", "status"),
    [
        ("test.broken", "internal_error", "queued"),
        ("test.full", "disk_full", "queued"),
    ],
)
async def test_what_a_handler_cannot_answer_has_its_code(
    start: Start, jobs: Jobs, caplog: pytest.LogCaptureFixture, job_type: str, code: str, status: str
) -> None:
    job_id = jobs.ask(job_type)
    async with start():
        row = await eventually(lambda: (row := jobs.row(job_id))["error"] and row)
    assert (row["error"]["code"], row["status"]) == (code, status)
    assert ("KeyError" in caplog.text) == (code == "internal_error")


async def test_a_cancelled_job_stops_with_the_next_heartbeat(start: Start, jobs: Jobs, bench: Bench) -> None:
    job_id = jobs.ask("test.held")
    async with start() as runner:
        await eventually(lambda: bench.started)
        jobs.cancel(job_id)
        await eventually(lambda: bench.stopped == [job_id])
        await eventually(lambda: runner.readiness()["running"] == 0)
    assert jobs.events(job_id) == ["queued", "claimed", "started", "cancelled"]


async def test_a_swept_job_is_left_alone_and_done_by_its_next_attempt(
    start: Start, jobs: Jobs, bench: Bench
) -> None:
    job_id = jobs.ask("test.held")
    async with start() as runner:
        await eventually(lambda: bench.started)
        jobs.expire(job_id)
        await eventually(lambda: len(bench.started) == 2)
        assert [job.attempt for job in bench.started] == [1, 2]
        runner.look(job_id)
        await eventually(lambda: bench.stopped == [job_id])
        bench.release.set()
        row = await jobs.until(job_id, "succeeded")
    assert row["result"]["attempt"] == 2
    assert jobs.events(job_id)[3:] == ["lease_expired", "claimed", "started", "succeeded"]


async def test_a_worker_that_is_thrown_out_stops(start: Start, jobs: Jobs, bench: Bench) -> None:
    """As if its membership were gone, or the job: to it the job does not exist any more."""
    job_id = jobs.ask("test.held")
    async with start() as runner:
        await eventually(lambda: bench.started)
        jobs.move(job_id, "OTHER")
        runner.look(job_id)
        await eventually(lambda: bench.stopped == [job_id])
        await eventually(lambda: runner.readiness()["running"] == 0)
    jobs.move(job_id, "DEMO")
    jobs.cancel(job_id)


async def test_a_drain_finishes_what_it_can_and_hands_back_the_rest(
    start: Start, jobs: Jobs, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with start(DRAIN_SECONDS="30") as runner:
        finishing = jobs.ask("test.held")
        await eventually(lambda: bench.started)
        runner.drain()
        await eventually(lambda: "draining" in caplog.messages)  # a claim that was on its way has come in
        waiting = jobs.ask("test.quick")
        await eventually(lambda: jobs.heartbeat(runner.agent_id).get("status") == "draining")
        assert runner.readiness()["ready"] is False
        bench.release.set()
    assert jobs.events(finishing)[-1] == "succeeded"
    assert jobs.events(waiting) == ["queued"]
    assert jobs.heartbeat(runner.agent_id)["status"] == "offline"

    bench.release.clear()
    bench.started.clear()
    handed_back = jobs.ask("test.held")
    async with start(DRAIN_SECONDS="0.2"):
        await eventually(lambda: any(job.id == handed_back for job in bench.started))
    row = jobs.row(handed_back)
    assert (row["status"], row["attempts"], row["released"]) == ("queued", 1, 1)
    assert jobs.events(handed_back)[-1] == "released"
    assert bench.stopped == [handed_back]


@pytest.mark.parametrize("how", [500, 400, "cut"])
async def test_a_call_of_the_upkeep_that_fails_stops_neither_the_others_nor_the_claims(
    start: Start, gate: Gate, jobs: Jobs, caplog: pytest.LogCaptureFixture, how: Any
) -> None:
    failing = ("release_expired_leases", "run_schedules", "remove_old_jobs")
    for call in failing:
        gate.close(f"rpc/{call}", how)
    job_id = jobs.ask("test.quick")
    async with start():
        others = {"settle_dependencies", "remove_leftovers", "begin_object_sweep"}
        await eventually(lambda: others <= set(called(gate)))
        await eventually(lambda: called(gate).count("settle_dependencies") > 1)
        await jobs.until(job_id, "succeeded")
    assert all(f"{call} failed" in caplog.text for call in failing)
    assert not set(called(gate)) & set(failing)


def called(gate: Gate) -> list[str]:
    """The functions of the database that were asked for."""
    return [path.partition("rpc/")[2] for path in gate.passed if "rpc/" in path]


async def test_a_call_of_the_upkeep_that_takes_long_delays_no_claim(
    start: Start, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def tend(_: Project, __: str) -> int:
        asked.set()
        await answer.wait()
        return 0

    monkeypatch.setattr(Project, "tend", tend)
    async with start():
        await asyncio.wait_for(asked.wait(), 60)
        await jobs.until(jobs.ask("test.quick"), "succeeded")


async def test_a_second_signal_hands_back_at_once(start: Start, jobs: Jobs, bench: Bench) -> None:
    job_id = jobs.ask("test.held")
    async with start(DRAIN_SECONDS="600") as runner:
        await eventually(lambda: bench.started)
        runner.drain()
        runner.drain()
        await jobs.until(job_id, "queued")


async def test_a_lost_answer_is_asked_for_again_and_counts_once(start: Start, gate: Gate, jobs: Jobs) -> None:
    gate.close("task-result", "lose", 2)
    gate.close("/storage/", "lose", 1)
    job_id = jobs.ask("test.quick")
    async with start():
        await jobs.until(job_id, "succeeded")
        await eventually(lambda: sum("task-result" in path for path in gate.passed) == 3)
    assert jobs.events(job_id).count("succeeded") == 1
    assert len(jobs.artifacts(job_id)) == 1


@pytest.mark.parametrize("how", [404, 503])
async def test_without_functions_the_result_goes_to_the_database(
    start: Start, gate: Gate, jobs: Jobs, caplog: pytest.LogCaptureFixture, how: int
) -> None:
    gate.close("task-result", how)
    job_id = jobs.ask("test.quick")
    async with start():
        await jobs.until(job_id, "succeeded")
        await eventually(lambda: "finished directly in the database" in caplog.text)
    assert len(jobs.artifacts(job_id)) == 1


async def test_a_refused_upload_is_tried_again_later_and_history_says_so(
    start: Start, gate: Gate, jobs: Jobs
) -> None:
    gate.close("/storage/", 507)
    job_id = jobs.ask("test.quick")
    async with start():
        row = await eventually(lambda: (row := jobs.row(job_id))["error"] and row)
    assert (row["status"], row["error"]["code"]) == ("queued", "upload_failed")
    assert jobs.events(job_id)[-1] == "retry_scheduled"
    assert jobs.artifacts(job_id) == []


@pytest.mark.parametrize("how", [503, "cut"])
async def test_an_outage_is_survived(
    start: Start, gate: Gate, jobs: Jobs, bench: Bench, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    monkeypatch.setattr("worker.runner._LONGEST_PAUSE_SECONDS", 0.3)
    held = jobs.ask("test.held")
    async with start() as runner:
        await eventually(lambda: bench.started and runner.readiness()["ready"])
        gate.close("/", how)
        await eventually(lambda: not runner.readiness()["ready"])
        assert runner.alive()
        bench.release.set()
        later = jobs.ask("test.quick")
        gate.open()
        await jobs.until(held, "succeeded")
        await jobs.until(later, "succeeded")
        assert runner.readiness()["ready"]


async def test_a_project_that_is_not_there_yet_is_waited_for(start: Start, gate: Gate, jobs: Jobs) -> None:
    gate.close("/auth/", 503, 2)
    job_id = jobs.ask("test.quick")
    async with start():
        await jobs.until(job_id, "succeeded")


async def test_a_refused_token_is_replaced_once(
    start: Start, gate: Gate, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with start() as runner:
        await eventually(lambda: runner.readiness()["ready"])
        for path in ("claim_jobs", "/storage/", "task-result"):
            gate.close(path, 401, 1)
        job_id = jobs.ask("test.quick")
        await jobs.until(job_id, "succeeded")
    assert caplog.messages.count("signed in") >= 3
    assert jobs.events(job_id).count("claimed") == 1


def age(runner: Runner, left: float) -> None:
    """Of the session, `left` seconds are left."""
    session = runner._project._session
    session._renew_at, session._ends_at = 0.0, time.monotonic() + left


async def test_a_session_that_cannot_be_renewed_is_used_while_it_lasts(
    start: Start, gate: Gate, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as runner:
        await eventually(lambda: runner.readiness()["ready"])
        gate.close("/auth/", 503)
        age(runner, 55)
        await jobs.until(jobs.ask("test.quick"), "succeeded")
        assert "going on with the session there is" in caplog.text
        assert runner.readiness()["ready"]


async def test_a_worker_whose_password_was_changed_hands_back_and_ends(
    start: Start, gate: Gate, jobs: Jobs, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.session._AGAIN_SECONDS", 0)
    held = jobs.ask("test.held")

    async def lose_the_password() -> None:
        async with start() as runner:
            await eventually(lambda: bench.started)
            gate.close("/auth/", 400)
            age(runner, 55)
            await jobs.until(jobs.ask("test.quick"), "succeeded")
            assert not runner.readiness()["draining"], "it may have been a mistake"
            age(runner, 15)
            await eventually(lambda: runner.readiness()["draining"])

    with pytest.raises(SignInRefused, match="WORKER_PASSWORD"):
        await lose_the_password()
    assert (jobs.row(held)["status"], jobs.row(held)["released"]) == ("queued", 1)


async def test_heartbeats_tell_how_busy_the_worker_is(start: Start, jobs: Jobs, bench: Bench) -> None:
    async with start() as runner:
        await eventually(lambda: runner.agent_id and jobs.heartbeat(runner.agent_id).get("status") == "idle")
        jobs.ask("test.held")
        row = await eventually(
            lambda: (row := jobs.heartbeat(runner.agent_id)).get("status") == "busy" and row
        )
        assert (row["running"], row["capacity"], row["executor_id"]) == (1, 2, jobs.executor)
        bench.release.set()
        await eventually(lambda: jobs.heartbeat(runner.agent_id).get("status") == "idle")


async def test_a_wrong_sign_in_ends_the_worker_and_a_member_is_no_worker(
    start: Start, member: Person
) -> None:
    with pytest.raises(SignInRefused, match="WORKER_PASSWORD"):
        async with start(WORKER_PASSWORD="wrong"):
            await asyncio.sleep(0)
    env = member.stack.env
    with pytest.raises(Refused, match="not_a_worker"):
        async with start(WORKER_EMAIL=env["DEMO_EMAIL"], WORKER_PASSWORD=env["DEMO_PASSWORD"]):
            await asyncio.sleep(0)


async def test_an_idle_worker_asks_little(start: Start, gate: Gate) -> None:
    async with start(POLL_SECONDS="0.5", HEARTBEAT_SECONDS="2", SWEEP_SECONDS="60") as runner:
        await eventually(lambda: runner.readiness()["ready"])
        before = len(gate.passed)
        await eventually(lambda: sum("claim_jobs" in path for path in gate.passed) == 4)
        assert len(gate.passed) - before <= 6
