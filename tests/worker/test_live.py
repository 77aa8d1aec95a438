"""The worker on Realtime: woken instead of polling, seen by others, and none the worse without it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from tests.stack import Person
from tests.worker.bench import Bench, running, settings_of_worker2
from tests.worker.jobs import Jobs, eventually
from tests.worker.wire import Wire, wire_to
from worker.runner import Runner

Start = Callable[..., AbstractAsyncContextManager[Runner]]
NEVER = "300"  # seconds: a poll that does not come within a test


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def wire(member: Person) -> AsyncIterator[Wire]:
    async with wire_to(member.stack.env["SUPABASE_URL"]) as wire:
        yield wire


@pytest.fixture
def start(wire: Wire, member: Person, jobs: Jobs, bench: Bench) -> Start:
    """Starts a worker that polls so seldom that only a wake-up can bring it a job."""
    env = member.stack.env

    @asynccontextmanager
    async def started(heartbeat: float | None = None, **changes: str) -> AsyncIterator[Runner]:
        pace = {"POLL_SECONDS": NEVER, "IDLE_POLL_SECONDS": NEVER, **changes}
        settings = settings_of_worker2(env, wire.url, jobs.executor, **pace)
        if heartbeat:  # longer than can be set
            settings = replace(settings, heartbeat_seconds=heartbeat)
        async with running(settings, bench) as runner:
            yield runner

    return started


def listens(runner: Runner) -> Callable[[], bool]:
    return lambda: runner.readiness()["realtime"] is True


async def test_a_new_job_wakes_an_idle_worker(start: Start, jobs: Jobs) -> None:
    async with start() as runner:
        await eventually(listens(runner))
        for _ in range(3):
            await jobs.until(jobs.ask("test.quick"), "succeeded")


async def test_a_burst_of_jobs_is_done_though_it_wakes_only_now_and_then(start: Start, jobs: Jobs) -> None:
    async with start() as runner:
        await eventually(listens(runner))
        for job_id in [jobs.ask("test.quick") for _ in range(12)]:
            await jobs.until(job_id, "succeeded")


async def test_a_cancelled_job_is_stopped_by_the_message(start: Start, jobs: Jobs, bench: Bench) -> None:
    async with start(heartbeat=3600) as runner:
        await eventually(listens(runner))
        job_id, other = jobs.ask("test.held"), jobs.ask("test.held")
        await eventually(lambda: len(bench.started) == 2)
        jobs.cancel(job_id)
        await eventually(lambda: bench.stopped == [job_id])
        assert jobs.row(other)["status"] == "running"
        jobs.cancel(other)


async def test_jobs_that_came_before_it_listened_are_found(start: Start, jobs: Jobs) -> None:
    job_id = jobs.ask("test.quick")
    async with start():
        await jobs.until(job_id, "succeeded")


async def test_a_lost_socket_comes_back_and_what_was_missed_is_found(
    start: Start, jobs: Jobs, wire: Wire
) -> None:
    async with start() as runner:
        await eventually(listens(runner))
        wire.cut()
        await eventually(lambda: not listens(runner)())
        missed = jobs.ask("test.quick")
        wire.mend()
        await jobs.until(missed, "succeeded")
        await eventually(listens(runner))
        await jobs.until(jobs.ask("test.quick"), "succeeded")


@pytest.mark.parametrize("wanted", ["false", "true"], ids=["switched off", "nobody there"])
async def test_without_realtime_the_queue_is_polled(
    start: Start, jobs: Jobs, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.live.Live._join", _nobody_there)
    async with start(REALTIME=wanted, POLL_SECONDS="0.1") as runner:
        await jobs.until(jobs.ask("test.quick"), "succeeded")
        assert not listens(runner)()
        await eventually(lambda: runner.readiness()["ready"])


async def _nobody_there(_: object) -> None:
    raise ConnectionRefusedError


async def test_members_see_who_is_at_work(start: Start, jobs: Jobs, bench: Bench, member: Person) -> None:
    said: list[tuple[str, Any]] = []
    async with start() as runner:
        await eventually(listens(runner))
        env = member.stack.env
        client = AsyncRealtimeClient(f"{env['SUPABASE_URL']}/realtime/v1", env["SUPABASE_PUBLISHABLE_KEY"])
        await client.set_auth(member.token)
        channel = client.channel(
            f"agents:{runner.agent_id}", {"config": {"private": True, "broadcast": None, "presence": None}}
        )
        channel.on_presence_sync(lambda: None)
        for event in ("agent.status", "worker.metrics"):
            channel.on_broadcast(event, lambda payload, event=event: said.append((event, payload["payload"])))  # type: ignore[misc]
        states: list[RealtimeSubscribeStates] = []
        await channel.subscribe(lambda state, _: states.append(state))
        assert states == [RealtimeSubscribeStates.SUBSCRIBED]
        try:
            (here,) = (await eventually(channel.presence_state))[runner.agent_id]
            assert {
                "agentId",
                "executorId",
                "status",
                "version",
                "lastSeenAt",
                "running",
                "capacity",
            } <= here.keys()
            job_id = jobs.ask("test.held")
            await eventually(
                lambda: ("agent.status", "busy", 1) in [(e, p.get("status"), p["running"]) for e, p in said]
            )
            bench.release.set()
            await jobs.until(job_id, "succeeded")
            metrics = await eventually(lambda: next((p for e, p in said if e == "worker.metrics"), False))
            assert metrics["agentId"] == runner.agent_id
            runner.drain()
            await eventually(lambda: not channel.presence_state())
        finally:
            await channel.unsubscribe()
            await client.close()


async def test_a_new_token_reaches_the_socket_before_the_old_one_ends(start: Start, jobs: Jobs) -> None:
    async with start() as runner:
        await eventually(listens(runner))
        live = runner._live
        assert live is not None
        tokens: list[str] = []
        original = live._token

        async def fresh() -> str:
            await runner._project._session.reject(await original())  # as if it had run out
            tokens.append(await original())
            return tokens[-1]

        live._token = fresh
        live.changed()
        await eventually(lambda: tokens)
        await asyncio.sleep(0)
        await jobs.until(jobs.ask("test.quick"), "succeeded")
        assert listens(runner)()
