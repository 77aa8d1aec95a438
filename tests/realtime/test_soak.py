"""What breaks in a long life, on a stack of the test's own: after it, everyone has every event once and in order."""

import asyncio
import gc
import logging
import os
import signal
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from sidejob import watch as watching
from tests.end_to_end.own_stack import OwnStack
from tests.realtime.watchers import following
from tests.stack import Stack
from tests.worker.bench import Bench, running
from tests.worker.jobs import Jobs, eventually
from tests.worker.wire import Wire, wire_to
from worker.handlers import Done
from worker.runner import Runner
from worker.settings import Settings

pytestmark = [
    pytest.mark.soak,
    # What the official client does not mind would, made an error, end its listening; a fault tears sockets.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POLL_SECONDS = 2.0  # of the worker while it does not hear
FOLLOWED = 12  # jobs that are watched in every way


@pytest.fixture(scope="module")
def broken() -> Iterator[OwnStack]:
    """The stack that the tests of this file break."""
    with OwnStack.running("live") as own:
        yield own


@dataclass
class Scene:
    """A worker on the stack that is broken, and a wire to it for those who follow: work goes on while it is cut."""

    own: OwnStack
    wire: Wire
    jobs: Jobs
    runner: Runner
    stack: Stack  # past the wire: who looks is not cut off

    @property
    def env(self) -> dict[str, str]:
        """As a client behind the wire has it."""
        env, gateway = self.own.env, urlsplit(self.own.env["SUPABASE_URL"])
        functions = self.wire.url + urlsplit(env["FUNCTIONS_URL"]).path
        assert urlsplit(env["FUNCTIONS_URL"]).netloc == gateway.netloc
        return {**env, "SUPABASE_URL": self.wire.url, "FUNCTIONS_URL": functions}

    async def ask(self, **arguments: Any) -> str:
        """A job, asked for until the stack takes it: the same id each time, so that it is one job."""
        job_id = str(uuid.uuid4())
        while True:
            try:
                return await asyncio.to_thread(self.jobs.ask, "test.quick", job_id=job_id, **arguments)
            except (AssertionError, httpx.TransportError):
                await asyncio.sleep(0.3)  # the stack is broken just now

    def rows(self, query: str) -> list[dict[str, Any]]:
        """About this scene's jobs, on a connection of its own, since Postgres may have been started again."""
        with psycopg.connect(self.own.env["SUPABASE_DB_URL"], row_factory=dict_row) as sql:
            return sql.execute(query.encode(), [self.jobs.executor]).fetchall()

    def unfinished(self) -> int:
        (row,) = self.rows(
            "select count(*) as n from public.jobs where executor_id = %s and status <> 'succeeded'"
        )
        return int(row["n"])

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> bool:
        """Is there such a process?"""
        (child,) = [child for child in self.own.state["children"] if child["name"] == name]
        if not child["pid"]:
            return False
        try:
            os.kill(child["pid"], how)
        except ProcessLookupError:
            return False
        return True

    async def keep_down(self, name: str, seconds: float) -> None:
        """The supervisor starts it again, and it is ended again before it can answer."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.kill(name)
            await asyncio.sleep(0.1)


@pytest.fixture
async def scene(broken: OwnStack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(watching, "LONGEST_PAUSE_SECONDS", 5.0)
    logging.getLogger("realtime").setLevel(logging.CRITICAL)
    stack = Stack(broken.env)
    bench = Bench(outcome=lambda job: Done({"attempt": job.attempt}))
    jobs = Jobs(stack.sign_in("DEMO"))
    async with wire_to(broken.env["SUPABASE_URL"]) as wire:
        settings = Settings.read(
            {
                "SUPABASE_URL": broken.env["SUPABASE_URL"], "SUPABASE_PUBLISHABLE_KEY": broken.env["SUPABASE_PUBLISHABLE_KEY"],
                "WORKER_EMAIL": broken.env["WORKER_EMAIL"], "WORKER_PASSWORD": broken.env["WORKER_PASSWORD"],
                "EXECUTOR_ID": jobs.executor, "POLL_SECONDS": str(POLL_SECONDS), "IDLE_POLL_SECONDS": "5",
                "LEASE_SECONDS": "15", "SWEEP_SECONDS": "1", "MAX_JOBS": "4", "DRAIN_SECONDS": "5",
            }
        )  # fmt: skip
        async with running(settings, bench) as runner:
            await eventually(lambda: runner.readiness()["realtime"] is True)
            yield Scene(broken, wire, jobs, runner, stack)
    stack.close()
    gc.collect()  # here a torn socket's warning is known for what it is


Fault = Callable[[Scene], Awaitable[None]]


async def live_through(scene: Scene, fault: Fault, jobs: int, pause: float, due_within: float) -> None:
    """Asks for that many jobs while the fault happens; then everything is there, for everyone.

    The followed ones become due one after the other within so many seconds.
    """
    now = datetime.now(UTC)
    followed = [
        await scene.ask(run_at=(now + timedelta(seconds=due_within * n / FOLLOWED)).isoformat())
        for n in range(FOLLOWED)
    ]
    async with following(scene.env, followed) as ways:
        asking = asyncio.create_task(_keep_asking(scene, jobs - FOLLOWED, pause))
        await fault(scene)
        await asking
        await eventually(lambda: scene.unfinished() == 0, 120)
        _, late = await asyncio.wait([task for _, task in ways.values()], timeout=60)
        missing = {task.get_name(): ways[task.get_name()][0] for task in late}
        assert not missing
        for name, (seen, task) in ways.items():
            assert task.exception() is None, f"{name}: {task.exception()!r}"
            for job, seqs in seen.items():
                last = len(scene.jobs.events(job))
                assert seqs == [*range(1, last + 1)], f"{name} of {job}, which has {last} events"
    (counted,) = scene.rows("select count(*) as n from public.jobs where executor_id = %s")
    assert counted["n"] == jobs


async def _keep_asking(scene: Scene, jobs: int, pause: float) -> None:
    for _ in range(jobs):
        await scene.ask()
        await asyncio.sleep(pause)


async def test_a_minute_without_realtime_costs_only_the_pace_of_200_jobs(scene: Scene) -> None:
    moments: list[datetime] = []

    async def fault(scene: Scene) -> None:
        await asyncio.sleep(15)
        moments.append(datetime.now(UTC))
        await scene.keep_down("realtime", 60)
        moments.append(datetime.now(UTC))
        await eventually(lambda: scene.runner.readiness()["realtime"] is True, 60)
        moments.append(datetime.now(UTC))
        await asyncio.sleep(15)

    await live_through(scene, fault, 200, 0.5, due_within=90)
    down, up, heard = moments
    rows = scene.rows(
        "select created_at, extract(epoch from started_at - created_at)::float8 as seconds"
        " from public.jobs where executor_id = %s and next_run_at = created_at order by created_at"
    )
    before = [row["seconds"] for row in rows if row["created_at"] < down]
    while_down = [row["seconds"] for row in rows if down < row["created_at"] < up]
    after = [row["seconds"] for row in rows if row["created_at"] > heard]
    assert min(len(before), len(while_down), len(after)) >= 5
    # Who polls waits for half a pause in the middle; who is woken, for none. The rest is room for a busy machine.
    assert statistics.median(before) < POLL_SECONDS / 4
    assert max(while_down) < 5 * POLL_SECONDS
    assert statistics.median(while_down) < POLL_SECONDS
    assert statistics.median(after) < POLL_SECONDS / 4


async def test_realtime_killed_in_the_middle_of_a_thousand_jobs_costs_no_event(scene: Scene) -> None:
    async def fault(scene: Scene) -> None:
        for _ in range(3):
            await asyncio.sleep(8)
            await eventually(lambda: scene.kill("realtime"), 60)  # it may be on its way up still

    await live_through(scene, fault, 1000, 0.0, due_within=25)


@pytest.mark.parametrize("silent", [True, False], ids=["nothing passes", "connections end"])
async def test_a_network_cut_for_30_seconds_costs_no_event(scene: Scene, silent: bool) -> None:
    async def fault(scene: Scene) -> None:
        await asyncio.sleep(5)
        scene.wire.hold() if silent else scene.wire.cut()
        await asyncio.sleep(30)
        scene.wire.mend()

    await live_through(scene, fault, 60, 0.5, due_within=40)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["restarted", "killed"])
async def test_postgres_started_again_costs_no_event(scene: Scene, how: signal.Signals) -> None:
    async def fault(scene: Scene) -> None:
        for _ in range(2):
            await asyncio.sleep(8)
            await eventually(lambda: scene.kill("postgres", how), 60)

    await live_through(scene, fault, 100, 0.2, due_within=30)
