"""Sidejob: the calls that PostgREST would make, in its envelope: a transaction, the user's claims, the role, one function."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import LifoQueue
from typing import Any

import psycopg
from psycopg.rows import dict_row

BATCH = 500
CONNECTIONS = 16
EXECUTOR = "bench"
ENVELOPE = (
    "select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true),"
    " set_config('request.jwt.claim.sub', %s, true), set_config('request.jwt.claim.role', 'authenticated', true)"
)
# What a handler needs of a job; over REST `?select=` says the same.
CLAIM = "select id, type, payload, attempt, lease_token from public.claim_jobs(executor_id => 'bench', max_jobs => %s)"
START = "select * from public.start_job(%s, %s, %s)"
FINISH = "select * from public.finish_job(%s, %s, %s, ok => true)"
FINISH_MANY = "select * from public.finish_jobs(reports => %s::jsonb)"
ENQUEUE = (
    "select * from public.enqueue_job(type => 'bench.noop', payload => %s::jsonb, executor_id => 'bench')"
)
ENQUEUE_MANY = "select * from public.enqueue_jobs(jobs => %s::jsonb)"
# What a client without enqueue_jobs does: one INSERT of many rows, as PostgREST writes it.
INSERT_MANY = (
    "insert into public.jobs (type, executor_id, payload) select r.type, r.executor_id, r.payload"
    " from jsonb_to_recordset(%s::jsonb) as r (type text, executor_id text, payload jsonb)"
)
FINISH_AND_CLAIM = "select public.finish_and_claim(reports => %s::jsonb, executor_id => 'bench', max_jobs => %s, start => true)"
AHEAD = 8  # claims for each handler: one in its hands, and as many as it may end until the next call
Row = dict[str, Any]


def report(job: Row) -> Row:
    return {
        "job_id": str(job["id"]),
        "attempt": job["attempt"],
        "lease_token": job["lease_token"],
        "ok": True,
    }


class Queue:
    """One member and one worker of one workspace. Each call takes the connection that was used last, as node's driver
    does: that one has its plans at hand."""

    def __init__(self, conninfo: str) -> None:
        self.idle: LifoQueue[psycopg.Connection[Row]] = LifoQueue()
        for _ in range(CONNECTIONS):
            self.idle.put(psycopg.connect(conninfo, row_factory=dict_row, autocommit=True))
        with self.connection() as session:
            self.member, self.worker = self._people(session)
            self.finishes_many = self._has(session, "finish_jobs")
            self.enqueues_many = self._has(session, "enqueue_jobs")

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Row]]:
        session = self.idle.get()
        try:
            yield session
        finally:
            self.idle.put(session)

    def close(self) -> None:
        for _ in range(CONNECTIONS):
            self.idle.get().close()

    @staticmethod
    def _people(session: psycopg.Connection[Any]) -> tuple[str, str]:
        people = session.execute(
            "with place as (insert into public.workspaces (name) values ('bench') returning id),"
            " people as (insert into auth.users (id, email) select id, id || '@example.com'"
            "   from (select gen_random_uuid() as id from generate_series(1, 2)) as made returning id)"
            " insert into public.workspace_members (workspace_id, user_id, role, is_default, worker_id)"
            " select place.id, people.id, case n when 1 then 'member' else 'worker' end, true,"
            "        case n when 2 then 'bench-' || place.id end"
            " from place, (select id, row_number() over () as n from people) as people"
            " returning user_id::text, role"
        ).fetchall()
        by_role = {person["role"]: person["user_id"] for person in people}
        return by_role["member"], by_role["worker"]

    @staticmethod
    def _has(session: psycopg.Connection[Any], function: str) -> bool:
        found = session.execute(
            "select from pg_proc where proname = %s and pronamespace = 'public'::regnamespace", (function,)
        )
        return found.rowcount > 0

    def call(self, user: str, *statements: tuple[str, tuple[object, ...]]) -> list[Row]:
        """The statements in one transaction as this user, sent together; the rows of the last one."""
        with self.connection() as session:
            with session.pipeline():
                session.execute("begin")
                session.execute(ENVELOPE, (json.dumps({"sub": user, "role": "authenticated"}), user))
                answers = [session.execute(statement, values) for statement, values in statements]
                session.execute("commit")
            return answers[-1].fetchall() if answers[-1].description else []

    def enqueue_many(self, jobs: int, concurrency: int = 1) -> None:
        def batch(number: int) -> None:
            start = number * BATCH
            rows = [
                {"type": "bench.noop", "executor_id": EXECUTOR, "payload": {"n": n}}
                for n in range(start, min(jobs, start + BATCH))
            ]
            self.call(self.member, (ENQUEUE_MANY if self.enqueues_many else INSERT_MANY, (json.dumps(rows),)))

        repeat(batch, math.ceil(jobs / BATCH), concurrency)

    def enqueue_one(self, n: int) -> None:
        self.call(self.member, (ENQUEUE, (json.dumps({"n": n}),)))

    def do_one(self) -> int:
        """Claim, start and finish, three calls."""
        jobs = self.call(self.worker, (CLAIM, (1,)))
        for job in jobs:
            fence = (job["id"], job["attempt"], job["lease_token"])
            self.call(self.worker, (START, fence))
            self.call(self.worker, (FINISH, fence))
        return len(jobs)

    def do_many(self) -> int:
        """Claim and finish, two calls. Without a call that finishes many, one for each in one transaction."""
        jobs = self.call(self.worker, (CLAIM, (BATCH,)))
        if not jobs:
            return 0
        if self.finishes_many:
            reports = json.dumps([report(job) for job in jobs])
            self.call(self.worker, (FINISH_MANY, (reports,)))
        else:
            finishes = [(FINISH, (job["id"], job["attempt"], job["lease_token"])) for job in jobs]
            self.call(self.worker, *finishes)
        return len(jobs)

    def one_line(self, jobs: int, concurrency: int) -> float:
        """So many handlers, and one line to the database: each call brings what has been done since the last one,
        and takes as many as will be needed until the next: claims are ahead of need, reports are flushed together."""
        ahead = AHEAD * concurrency
        began, done, reports = time.perf_counter(), 0, list[Row]()
        while done < jobs:
            (answer,) = self.call(self.worker, (FINISH_AND_CLAIM, (json.dumps(reports), ahead)))
            answer = answer["finish_and_claim"]
            done += sum(each["status"] == "succeeded" for each in answer["finished"])
            reports = [report(job) for job in answer["claimed"]]  # the handlers: they do nothing
        return time.perf_counter() - began

    def enqueue(self, jobs: int, concurrency: int, *, bulk: bool) -> float:
        began = time.perf_counter()
        if bulk:
            self.enqueue_many(jobs, concurrency)
        else:
            repeat(self.enqueue_one, jobs, concurrency)
        return time.perf_counter() - began

    def drain(self, jobs: int, concurrency: int, *, batch: bool) -> float:
        began = time.perf_counter()
        done = together(self.do_many if batch else self.do_one, concurrency)
        seconds = time.perf_counter() - began
        if done != jobs:
            raise SystemExit(f"{done} of {jobs} jobs were done")
        return seconds


def repeat(step: Callable[[int], object], times: int, concurrency: int) -> None:
    """The step so often, by so many threads; each call knows its number."""
    numbers = iter(range(times))
    lock = threading.Lock()

    def one() -> int:
        with lock:
            number = next(numbers, None)
        if number is None:
            return 0
        step(number)
        return 1

    together(one, concurrency)


def together(step: Callable[[], int], concurrency: int) -> int:
    """Repeats the step in so many threads until it has nothing more to do; how much it did."""
    counts = [0] * concurrency

    def run(me: int) -> None:
        while n := step():
            counts[me] += n

    threads = [threading.Thread(target=run, args=(me,)) for me in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def main() -> None:
    queue = Queue(os.environ["BENCH_DATABASE"])
    for line in sys.stdin:
        command = json.loads(line)
        seconds = 0.0
        if command["do"] == "fill":
            queue.enqueue_many(command["jobs"])
        elif command["do"] == "enqueue":
            seconds = queue.enqueue(command["jobs"], command["concurrency"], bulk=command["bulk"])
        else:
            way = queue.one_line if command["line"] else partial(queue.drain, batch=command["batch"])
            seconds = way(command["jobs"], command["concurrency"])
        print(json.dumps({"seconds": seconds}), flush=True)
    queue.close()


if __name__ == "__main__":
    main()
