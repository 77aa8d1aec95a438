"""The queue beside procrastinate, graphile-worker and pg-boss: one run, one server, rounds in turns.

`BENCH_QUEUE_ROUNDS` (3), `BENCH_QUEUE_JOBS` (1,000 jobs a drain one by one; ten times as many in batches) and
`BENCH_QUEUE_CHURN` (10,000 jobs done while an old transaction stays open) make it longer or shorter.
"""

import os
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psycopg

from bench.queue_peers import Client, Cost, Server, clients

ROUNDS = int(os.environ.get("BENCH_QUEUE_ROUNDS", "3"))
JOBS = int(os.environ.get("BENCH_QUEUE_JOBS", "1000"))
CHURN = int(os.environ.get("BENCH_QUEUE_CHURN", "10000"))
MANY = 10 * JOBS
PROBE = 100  # jobs that are done one at a time where the time of a single one is asked for

# What a rate is paid with. Read the rates beside this.
GIVES = {
    "sidejob": "history of every move, fence by attempt and token, finished rows kept, rights of the caller, 3 calls a job",
    "procrastinate": "history of every move, no fence, finished rows kept, one role",
    "graphile-worker": "no history, no fence by attempt, finished rows deleted, one role",
    "pg-boss": "no history, fence by id and state, finished rows kept until its maintenance, one role",
}
BATCHES = {
    "sidejob": "claim_jobs and finish_jobs, 500 at once; one line: finish_and_claim, reports of a turn with the claims for the next",
    "procrastinate": "has no batches: concurrency 16",
    "graphile-worker": "local queue of 500, completions together, concurrency 24",
    "pg-boss": "fetch and complete, 500 at once",
}
BATCH_CONCURRENCY = {"sidejob": 2, "procrastinate": 16, "graphile-worker": 24, "pg-boss": 2}


def measure() -> None:
    url = os.environ["SUPABASE_DB_URL"]
    server = Server(url)
    (version,) = server.sql.execute("select current_setting('server_version')").fetchone() or ("?",)
    (synced,) = server.sql.execute("select current_setting('synchronous_commit')").fetchone() or ("?",)
    print(
        f"\nqueues on Postgres {version}, synchronous_commit {synced}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" medians of {ROUNDS} rounds in turns, a handler that does nothing"
    )
    with clients(server, url) as queues:
        for queue in queues.values():
            drain(queue, 200, 4)  # connections, plans, code that is compiled as it runs
        _rates(queues)
        _old_snapshot(queues, server)
    with clients(server, url) as queues:
        _flat(queues["sidejob"])


def drain(queue: Client, jobs: int, concurrency: int, *, batch: bool = False, line: bool = False) -> Cost:
    queue.do("fill", jobs)
    return queue.do("drain", jobs, concurrency, batch=batch, line=line)


def _rates(queues: dict[str, Client]) -> None:
    ways: dict[str, tuple[int, Callable[[Client], Cost]]] = {
        f"one by one, concurrency {n}": (JOBS, partial(drain, jobs=JOBS, concurrency=n)) for n in (1, 4, 16)
    }
    ways["in batches"] = (
        MANY,
        lambda queue: drain(queue, MANY, BATCH_CONCURRENCY[queue.name], batch=True),
    )
    ways["enqueue one by one, concurrency 4"] = (
        JOBS,
        lambda queue: emptied(queue, JOBS, queue.do("enqueue", JOBS, 4, bulk=False)),
    )
    for n in (1, 2):
        ways[f"enqueue 500 at once, concurrency {n}"] = (MANY, partial(bulk, concurrency=n))
    for title, (jobs, way) in ways.items():
        turns: dict[str, Callable[[], Cost]] = {name: partial(way, queue) for name, queue in queues.items()}
        if title.startswith("one by one"):
            one_line = partial(drain, queues["sidejob"], jobs, int(title.split()[-1]), line=True)
            turns = {"sidejob, one line": one_line, **turns}
        costs: dict[str, list[Cost]] = {name: [] for name in turns}
        for _ in range(ROUNDS):
            for name in random.sample(list(turns), len(turns)):
                costs[name].append(turns[name]())
        print(table(title, jobs, costs))
    print("\nwhat each gives, and how its batches were made")
    for name in queues:
        print(f"{name:18}{GIVES[name]}\n{'':18}{BATCHES[name]}")


def bulk(queue: Client, concurrency: int) -> Cost:
    return emptied(queue, MANY, queue.do("enqueue", MANY, concurrency, bulk=True))


def emptied(queue: Client, jobs: int, cost: Cost) -> Cost:
    queue.do("drain", jobs, BATCH_CONCURRENCY[queue.name], batch=True, line=False)
    return cost


def table(title: str, jobs: int, costs: dict[str, list[Cost]]) -> str:
    """Medians; the spread beside them says how far they carry. CPU and WAL are the whole server's, by the job."""
    rates = {name: [jobs / cost.seconds for cost in taken] for name, taken in costs.items()}
    best = next(iter(rates))
    ours = statistics.median(rates[best])
    lines = [
        f"\n{title} ({jobs:,} jobs)",
        f"{'':18}{'jobs/s':>9}{'least':>9}{'most':>9}{'the first is':>13}{'CPU µs/job':>12}{'WAL B/job':>11}",
    ]
    for name, taken in costs.items():
        rate = statistics.median(rates[name])
        cpu = statistics.median(cost.cpu_seconds for cost in taken) / jobs * 1e6
        wal = statistics.median(cost.wal_bytes for cost in taken) / jobs
        lines.append(
            f"{name:18}{rate:9,.0f}{min(rates[name]):9,.0f}{max(rates[name]):9,.0f}{ours / rate:12.2f}×{cpu:12,.0f}{wal:11,.0f}"
        )
    return "\n".join(lines)


def _old_snapshot(queues: dict[str, Client], server: Server) -> None:
    """How far a transaction that is left open slows each of them down: no dead row of its time can be removed."""
    lines = [
        f"\na job, one at a time, in ms: before, while a transaction has stayed open for {CHURN:,} jobs, and when it is over",
        f"{'':18}{'before':>9}{'held':>9}{'ratio':>8}{'after':>9}{'ratio':>8}",
    ]
    for name, queue in queues.items():
        before = _probe(queue)
        with _held_open(queue.database):
            drain(queue, CHURN, BATCH_CONCURRENCY[name], batch=True)
            held = _probe(queue)
        _vacuum(queue.database)
        after = _probe(queue)
        lines.append(
            f"{name:18}{before:9.2f}{held:9.2f}{held / before:8.2f}{after:9.2f}{after / before:8.2f}"
        )
    print("\n".join(lines))
    (oldest,) = server.sql.execute(
        "select coalesce(max(age(backend_xmin)), 0) from pg_stat_activity where backend_xmin is not null"
    ).fetchone() or (0,)
    print(f"oldest snapshot left on the server: {oldest} transactions")


def _probe(queue: Client) -> float:
    """Milliseconds a job, one after the other."""
    return statistics.median(drain(queue, PROBE, 1).seconds / PROBE * 1000 for _ in range(3))


@contextmanager
def _held_open(database: str) -> Iterator[None]:
    with psycopg.connect(database) as session:
        session.execute("set transaction isolation level repeatable read")
        session.execute("select count(*) from pg_class")
        yield


def _vacuum(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("vacuum analyze")


def _flat(queue: Client) -> None:
    """Does a claim cost with a full table what it costs with an empty one?"""
    finished, queued = 1_000_000, 100_000
    with psycopg.connect(queue.database, autocommit=True) as sql:
        drain(queue, PROBE, 1)
        empty = [_claims(queue, sql, fill=100)]
        (workspace,) = sql.execute(
            "select workspace_id from public.workspace_members limit 1"
        ).fetchone() or (None,)
        sql.execute(
            "set session_replication_role = replica"
        )  # rows alone: their history is no part of the question
        sql.execute(
            "insert into public.jobs (workspace_id, type, executor_id, status, attempts, event_seq, last_event, created_at, finished_at)"
            " select %s, 'bench.noop', 'bench', 'succeeded', 1, 4, 'job.succeeded', at, at"
            " from (select now() - n * interval '1 second' as at from generate_series(1, %s) as n) as past",
            (workspace, finished),
        )
        sql.execute(
            "insert into public.jobs (workspace_id, type, executor_id, event_seq, last_event)"
            " select %s, 'bench.noop', 'bench', 1, 'job.queued' from generate_series(1, %s)",
            (workspace, queued),
        )
        sql.execute("reset session_replication_role")
        sql.execute("vacuum analyze")
        full = _claims(queue, sql, fill=0)
        sql.execute("truncate public.jobs cascade")
        empty.append(_claims(queue, sql, fill=100))  # once more: the machine may have changed meanwhile
    print(
        f"\none claim, by the server's clock: {empty[0]:.3f} and {empty[1]:.3f} ms with an empty table, before and after,"
        f" {full:.3f} ms with {finished:,} finished and {queued:,} queued, ratio {full / statistics.mean(empty):.2f}"
        " (target: 1.20 at most)"
    )


def _claims(queue: Client, sql: psycopg.Connection[tuple[object, ...]], fill: int) -> float:
    """The median of 100 claims of one job, each rolled back, in milliseconds."""
    if fill:
        queue.do("fill", fill)
        sql.execute("vacuum analyze public.jobs")
    row = sql.execute("select user_id::text from public.workspace_members where role = 'worker'").fetchone()
    taken = []
    for _ in range(120):
        with sql.transaction(force_rollback=True):
            sql.execute(
                "select set_config('role', 'authenticated', true), set_config('request.jwt.claim.sub', %s, true),"
                " set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, true)",
                (row[0], row[0]) if row else None,
            )
            plan = sql.execute(
                "explain (analyze, timing off, format json) select * from public.claim_jobs('bench')"
            ).fetchone()
            taken.append(float(plan[0][0]["Execution Time"]))  # type: ignore[index]
    return statistics.median(taken[20:])
