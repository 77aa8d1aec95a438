"""Workers are killed, or stopped and continued when their leases are long over, and Postgres is restarted: every job is done
once, and so is what it does."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from local.setup import REPOSITORY
from tests.end_to_end.own_stack import OwnStack

CLAIMERS = 8
JOBS = 2000
DEADLINE_SECONDS = 420

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def own() -> Iterator[OwnStack]:
    with OwnStack.running("chaos") as own:
        yield own


@pytest.fixture
def crowd(own: OwnStack) -> Iterator["Crowd"]:
    crowd = Crowd(own)
    yield crowd
    crowd.end()


class Crowd:
    """Eight claimers on 2,000 jobs. One that was killed is followed by another."""

    def __init__(self, own: OwnStack) -> None:
        self.own = own
        self.counted: Counter[str] = Counter()
        self.names = (f"chaos-{n}" for n in itertools.count())
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.began = time.monotonic()
        with self.sql() as sql:
            sql.execute(
                "drop schema if exists chaos cascade; create schema chaos;"
                " create table chaos.effects (job_id uuid, attempt int, agent_id text);"  # no key: twice would be seen
                " create table chaos.late (job_id uuid, attempt int);"
                " grant usage on schema chaos to authenticated; grant insert on all tables in schema chaos to authenticated"
            )
            sql.execute("delete from public.jobs where executor_id = 'chaos'")
            (worker,) = sql.execute(
                "select user_id::text, workspace_id from public.workspace_members where role = 'worker'"
                " order by worker_id limit 1"
            ).fetchall()
            self.user_id: str = worker["user_id"]
            sql.execute(
                "insert into public.jobs (workspace_id, type, executor_id, max_attempts)"
                " select %s, 'chaos.job', 'chaos', 25 from generate_series(1, %s)",
                (worker["workspace_id"], JOBS),
            )
        for _ in range(CLAIMERS):
            self.start()

    def sql(self) -> psycopg.Connection[DictRow]:
        return psycopg.connect(self.own.env["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row)

    def ask(self, question: str, *values: object) -> list[dict[str, Any]]:
        """On a connection of its own, and again when the database is just being restarted."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with self.sql() as sql:
                    done = sql.execute(question, values)
                    return done.fetchall() if done.description else []
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the database does not come back"
                time.sleep(0.1)

    def start(self) -> None:
        name = next(self.names)
        command = [sys.executable, "-m", "tests.end_to_end.chaos_claimer", self.user_id, name]
        environment = {**os.environ, "SUPABASE_DB_URL": self.own.env["SUPABASE_DB_URL"]}
        self.running[name] = subprocess.Popen(command, cwd=REPOSITORY, env=environment)

    def open(self) -> int:
        (row,) = self.ask(
            "select count(*) as n from public.jobs where executor_id = 'chaos' and finished_at is null"
        )
        return int(row["n"])

    def victim(self) -> str:
        """Somebody in the middle of a job, where there is one."""
        holding = self.ask(
            "select distinct agent_id from public.jobs where executor_id = 'chaos' and status = 'running'"
        )
        names: list[str] = [row["agent_id"] for row in holding if row["agent_id"] in self.running]
        return random.choice(names or list(self.running))

    def kill(self) -> None:
        name = self.victim()
        process = self.running.pop(name)
        process.kill()
        process.wait()
        self.counted["killed"] += 1
        self.start()

    def stop_until_too_late(self) -> None:
        """Stops one, puts its leases' end into the past, and lets it go on when its jobs are somebody else's.

        It may have been stopped while it reports: that job is locked until it goes on, and is left to it."""
        name = self.victim()
        process = self.running[name]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            late = self.ask(
                "update public.jobs set lease_until = clock_timestamp() - interval '1 second' where id in ("
                " select id from public.jobs where executor_id = 'chaos' and agent_id = %s"
                " and status in ('assigned', 'running') for update skip locked) returning id",
                name,
            )
            self.until(lambda: self.holds(name, [job["id"] for job in late]) == 0)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        self.counted["stopped"] += 1

    def holds(self, name: str, jobs: list[uuid.UUID]) -> int:
        (row,) = self.ask(
            "select count(*) as n from public.jobs"
            " where id = any (%s) and agent_id = %s and status in ('assigned', 'running')",
            jobs,
            name,
        )
        return int(row["n"])

    def restart_postgres(self, how: signal.Signals) -> None:
        """SIGINT ends it in order, SIGQUIT at once, as a crash would; the stack starts it again."""
        (row,) = self.ask("select pg_postmaster_start_time() as at")
        pid = next(child["pid"] for child in self.own.state["children"] if child["name"] == "postgres")
        os.kill(pid, how)
        self.until(lambda: self.ask("select pg_postmaster_start_time() as at")[0]["at"] > row["at"], 60)
        self.counted["restarts of Postgres"] += 1

    def until(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.05)

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def judge(self) -> None:
        for process in self.running.values():
            assert process.wait(timeout=60) == 0, "a claimer ended with an error"
        assert self.ask(
            "select status, count(*) as n from public.jobs where executor_id = 'chaos' group by 1"
        ) == [{"status": "succeeded", "n": JOBS}]
        (effects,) = self.ask(
            "select count(*) as n, count(distinct e.job_id) as jobs, count(*) filter (where e.attempt = j.attempts) as of_the_last"
            " from chaos.effects e join public.jobs j on j.id = e.job_id"
        )
        assert effects == {"n": JOBS, "jobs": JOBS, "of_the_last": JOBS}
        (history,) = self.ask(
            "select count(*) as jobs, bool_and(low = 1 and high = n) as gapless, bool_and(succeeded = 1) as once,"
            " bool_and(claimed = attempts) as every_attempt, sum(expired)::int as expired from ("
            " select min(e.seq) as low, max(e.seq) as high, count(*) as n, j.attempts,"
            " count(*) filter (where e.event_type = 'job.succeeded') as succeeded,"
            " count(*) filter (where e.event_type = 'job.claimed') as claimed,"
            " count(*) filter (where e.event_type = 'job.lease_expired') as expired"
            " from public.jobs j join public.job_events e on e.job_id = j.id where j.executor_id = 'chaos' group by j.id) as lives"
        )
        self.counted["leases that expired"] = history.pop("expired")
        assert history == {"jobs": JOBS, "gapless": True, "once": True, "every_attempt": True}
        (late,) = self.ask("select count(*) as n from chaos.late")
        self.counted["late workers refused"] = int(late["n"])

    def __str__(self) -> str:
        counted = ", ".join(f"{n} {what}" for what, n in self.counted.items())
        return f"{JOBS:,} jobs, {CLAIMERS} claimers, {time.monotonic() - self.began:.0f} s: {counted}"


def test_every_job_is_done_once_while_workers_are_killed_and_stopped(
    crowd: Crowd, capsys: pytest.CaptureFixture[str]
) -> None:
    for turn in itertools.count():
        if not crowd.open():
            break
        assert time.monotonic() - crowd.began < DEADLINE_SECONDS, crowd
        again = time.monotonic() + 1
        if turn % 3 == 2:
            crowd.stop_until_too_late()
        else:
            crowd.kill()
        crowd.until(lambda again=again: time.monotonic() >= again)  # type: ignore[misc]
    crowd.judge()
    with capsys.disabled():
        print(f"\nchaos: {crowd}")
    assert crowd.counted["killed"] >= 10
    assert crowd.counted["leases that expired"] >= 10
    assert crowd.counted["late workers refused"] >= 1


def test_every_job_is_done_once_while_postgres_is_restarted_twice(
    crowd: Crowd, capsys: pytest.CaptureFixture[str]
) -> None:
    for left, how in ((JOBS * 3 // 4, signal.SIGINT), (JOBS // 3, signal.SIGQUIT)):
        crowd.until(lambda left=left: crowd.open() <= left, DEADLINE_SECONDS)  # type: ignore[misc]
        crowd.kill()
        crowd.restart_postgres(how)
    crowd.until(lambda: crowd.open() == 0, DEADLINE_SECONDS)
    crowd.judge()
    with capsys.disabled():
        print(f"\nchaos: {crowd}")
    assert crowd.counted["restarts of Postgres"] == 2
