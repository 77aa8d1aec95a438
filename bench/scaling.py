"""What one project holds: the cost of each call of the queue, measured; and what that makes of many workers, simulated.

`BENCH_SCALING_CALLS` (2,000) and `BENCH_SCALING_JOBS` (2,000) make it longer or shorter.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psycopg

from bench.queue_clients.sidejob_client import Queue, repeat
from bench.queue_peers import Cost, Server, fresh_database, with_database
from bench.scaling_model import Fleet, Job, Plan, Prices, Tariff, Worker, per_million, simulate

CALLS = int(os.environ.get("BENCH_SCALING_CALLS", "2000"))
JOBS = int(os.environ.get("BENCH_SCALING_JOBS", "2000"))
CONCURRENCY = 4  # of the calls whose price is asked for
LOOK = "select * from public.claim_jobs(executor_id => 'bench-empty', max_jobs => 3)"
BEAT = "select * from public.worker_heartbeat(agent_id => %s, executor_id => 'bench')"
TEND = (  # what a worker asks every SWEEP_SECONDS, in one round trip here
    "select public.release_expired_leases(), public.settle_dependencies(), public.run_schedules()"
)


@dataclass(frozen=True)
class Price:
    """Of one call, or of one job."""

    cpu_ms: float  # of the whole server
    wal_bytes: float
    rate: float  # a second, at CONCURRENCY


def measure() -> None:
    url = os.environ["SUPABASE_DB_URL"]
    server = Server(url)
    name = "bench_scaling"
    with fresh_database(server, url, name, copy=True):
        database = with_database(url, name)
        queue = Queue(database)
        try:
            queue.enqueue_many(200)
            queue.drain(200, 4, batch=False)  # connections and plans
            prices = _prices(server, queue)
            _claimers(server, queue)
            _idle(server, queue)
            stored = _stored(database)
        finally:
            queue.close()
    _simulated(prices, stored)


def _paid(server: Server, calls: int, work: Callable[[], object]) -> Price:
    cpu, wal = server.now()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    later_cpu, later_wal = server.now()
    cost = Cost(seconds, later_cpu - cpu, later_wal - wal)
    return Price(cost.cpu_seconds / calls * 1000, cost.wal_bytes / calls, calls / cost.seconds)


def _prices(server: Server, queue: Queue) -> dict[str, Price]:
    def beat(number: int) -> None:
        queue.call(queue.worker, (BEAT, (f"agent-{number % 50}",)))

    prices = {
        "look at an empty queue": _paid(
            server, CALLS, lambda: repeat(lambda _: queue.call(queue.worker, (LOOK, ())), CALLS, CONCURRENCY)
        ),
        "heartbeat": _paid(server, CALLS, lambda: repeat(beat, CALLS, CONCURRENCY)),
        "tend": _paid(
            server,
            CALLS // 4,
            lambda: repeat(lambda _: queue.call(queue.worker, (TEND, ())), CALLS // 4, CONCURRENCY),
        ),
        "enqueue": _paid(server, JOBS, lambda: repeat(queue.enqueue_one, JOBS, CONCURRENCY)),
        "claim, start, finish": _paid(server, JOBS, lambda: queue.drain(JOBS, CONCURRENCY, batch=False)),
    }
    print(
        f"\nwhat a call costs the database ({os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {CONCURRENCY} at once)\n"
        f"{'':26}{'CPU ms':>9}{'WAL bytes':>11}{'a second':>10}"
    )
    for what, price in prices.items():
        print(f"{what:26}{price.cpu_ms:9.2f}{price.wal_bytes:11,.0f}{price.rate:10,.0f}")
    return prices


def _claimers(server: Server, queue: Queue) -> None:
    lines = [
        f"\n{JOBS:,} jobs that do nothing, taken one by one",
        f"{'claimers':>9}{'jobs/s':>9}{'CPU ms/job':>12}",
    ]
    for claimers in (1, 2, 4, 8, 16):
        queue.enqueue_many(JOBS)
        price = _paid(server, JOBS, lambda n=claimers: queue.drain(JOBS, n, batch=False))  # type: ignore[misc]
        lines.append(f"{claimers:9}{price.rate:9,.0f}{price.cpu_ms:12.2f}")
    print("\n".join(lines))


def _idle(server: Server, queue: Queue, workers: int = 200, seconds: float = 10) -> None:
    """So many idle workers at the pace of the default settings, by the clock: what of the server do they take?"""
    due = sorted(
        [
            (n / workers * every + turn * every, call)
            for n in range(workers)
            for every, call in PACE
            for turn in range(int(seconds // every) + 1)
        ],
        key=lambda entry: entry[0],
    )
    due = [(at, call) for at, call in due if at < seconds]
    began = time.perf_counter()

    def step(number: int) -> None:
        at, call = due[number]
        time.sleep(max(0.0, began + at - time.perf_counter()))
        values = (f"agent-{number % workers}",) if call is BEAT else ()
        queue.call(queue.worker, (call, values))

    price = _paid(server, len(due), lambda: repeat(step, len(due), 16))
    print(
        f"\n{workers} idle workers for {len(due) / price.rate:.0f} s: {price.rate:,.0f} calls/s,"
        f" {price.cpu_ms / 1000 * price.rate:.3f} cores, {price.wal_bytes * price.rate / 1024:,.0f} KiB of WAL a second"
    )


PACE = ((5.0, LOOK), (5.0, BEAT), (15.0, TEND))  # IDLE_POLL_SECONDS, HEARTBEAT_SECONDS, SWEEP_SECONDS


def _stored(database: str) -> float:
    """Bytes that a finished job takes in its tables and their indexes, its events included."""
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("vacuum full public.jobs, public.job_events")
        row = sql.execute(
            "select (pg_total_relation_size('public.jobs') + pg_total_relation_size('public.job_events'))::float8 / count(*), count(*) from public.jobs"
        ).fetchone() or (0, 0)
    print(
        f"\na finished job of small payload takes {row[0]:,.0f} bytes with its events and indexes ({row[1]:,} jobs)"
    )
    return float(row[0])


def _simulated(measured: dict[str, Price], stored: float) -> None:
    prices = Prices(
        look=measured["look at an empty queue"].cpu_ms / 1000,
        beat=measured["heartbeat"].cpu_ms / 1000,
        tend=measured["tend"].cpu_ms / 1000,
        enqueue=measured["enqueue"].cpu_ms / 1000,
        job=measured["claim, start, finish"].cpu_ms / 1000,
    )
    print(
        "\nsimulated with those prices: the database's cores are a queue of their own, jobs arrive at random"
    )
    _check(prices, measured)
    print(_table(prices, PLANS))
    bill = per_million(Job(3.0, 300e3, stored), Worker(), Tariff())
    print("\na million jobs of 3 seconds and 300 kB, in dollars at the list prices of scaling_model.py")
    print(
        "\n".join(f"{what:16}{dollars:9.2f}" for what, dollars in {**bill, "all": sum(bill.values())}.items())
    )


def _check(prices: Prices, measured: dict[str, Price]) -> None:
    """The model against a measurement that it was not made from: four claimers who wait for nothing else."""
    cores = os.cpu_count() or 1
    fleet = Fleet(workers=CONCURRENCY, slots=1, job_seconds=0.0)
    result = simulate(Plan("this machine", cores, 0, 0), fleet, prices, arrivals=10_000, seconds=5)
    price = measured["claim, start, finish"]
    print(
        f"{CONCURRENCY} claimers: {price.rate:,.0f} jobs/s measured, while the database had {price.rate * price.cpu_ms / 1000:.2f} cores;"
        f" {result.done:,.0f} simulated, if it had all {cores}"
    )


# cores of the database, sockets, messages a second: supabase.com/docs, "Compute and disk" and "Realtime limits".
PLANS = (
    Plan("2 cores, 500 sockets and messages a second (Pro)", 2, 500, 500),
    Plan("2 cores, 10,000 sockets, 2,500 messages a second (Pro without spend cap, Team)", 2, 10_000, 2_500),
    Plan("8 cores (2XL), 10,000 sockets, 2,500 messages a second", 8, 10_000, 2_500),
)


FLEETS = (
    (8, Fleet(10, 3, 3.0)),
    (40, Fleet(50, 3, 3.0)),
    (80, Fleet(100, 3, 3.0)),
    (80, Fleet(100, 3, 3.0, executors=10)),
    (80, Fleet(100, 3, 3.0, realtime=False)),
    (400, Fleet(500, 3, 3.0, realtime=False)),
    (1600, Fleet(2000, 3, 3.0, realtime=False)),
)


def _table(prices: Prices, plans: Iterable[Plan]) -> str:
    """Jobs of 3 seconds in the mean, three at once in each worker, one watcher a job."""
    lines = []
    for plan in plans:
        lines += [
            f"\n{plan.name}",
            f"{'workers':>9}{'jobs/s in':>11}{'done/s':>9}{'p95 wait s':>12}{'database':>10}{'messages/s':>12}{'sockets':>9}  fullest",
        ]
        for arrivals, fleet in FLEETS:
            result = simulate(plan, fleet, prices, arrivals=arrivals, seconds=20)
            how = "" if fleet.realtime else ", without Realtime"
            how += f", {fleet.executors} executors" if fleet.executors > 1 else ""
            lines.append(
                f"{fleet.workers:9,}{arrivals:11,}{result.done:9,.0f}{result.wait_p95:12.2f}{result.database:10.0%}"
                f"{result.messages:12,.0f}{result.sockets:9,}  {result.first_to_give}{how}"
            )
    return "\n".join(lines)
