"""A fleet of workers at one database, event by event. Nothing here talks to a server."""

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

_IDLE_LOOK_SECONDS = 5.0  # IDLE_POLL_SECONDS
_LOOK_SECONDS = 2.0  # POLL_SECONDS
_BEAT_SECONDS = 5.0  # HEARTBEAT_SECONDS
_TEND_SECONDS = 15.0  # SWEEP_SECONDS
_PRESENCE_SECONDS = 10.0
_METRICS_SECONDS = 5.0
_WAKE_SECONDS = 0.1  # at most one wake-up in this time, for each executor
_JOB_BROADCASTS = 3  # claimed, started, ended


@dataclass(frozen=True)
class Plan:
    """What a project is given. 0: not limited."""

    name: str
    cores: int
    sockets: int
    messages: int  # of Realtime, a second


@dataclass(frozen=True)
class Fleet:
    workers: int
    slots: int  # MAX_JOBS
    job_seconds: float  # the mean; exponential
    watchers: int = 1  # sockets that follow a job
    executors: int = 1  # among which the workers are divided
    realtime: bool = True  # false: REALTIME=false, a look every POLL_SECONDS


@dataclass(frozen=True)
class Prices:
    """Seconds of one core of the database."""

    look: float
    beat: float
    tend: float
    enqueue: float
    job: float  # claim, start, finish


@dataclass(frozen=True)
class Result:
    done: float  # jobs a second
    wait_p95: float  # seconds from the insert to the claim
    database: float  # share of its cores
    messages: float
    sockets: int
    first_to_give: str


@dataclass
class _Database:
    """Cores that serve calls in the order of their coming."""

    cores: int
    random: random.Random
    free_at: list[float] = field(default_factory=list)
    busy: float = 0.0

    def __post_init__(self) -> None:
        self.free_at = [0.0] * self.cores

    def call(self, now: float, seconds: float) -> float:
        """When a call of this price ends."""
        taken = self.random.gammavariate(4, seconds / 4) if seconds else 0.0
        begins = max(now, heapq.heappop(self.free_at))
        heapq.heappush(self.free_at, begins + taken)
        self.busy += taken
        return begins + taken


def simulate(plan: Plan, fleet: Fleet, prices: Prices, *, arrivals: float, seconds: float) -> Result:
    """`arrivals` jobs a second for so long; counted from a quarter on, when the fleet has warmed up."""
    chance = random.Random(1)
    database = _Database(plan.cores, chance)
    order = itertools.count()
    events: list[tuple[float, int, str]] = []

    def at(moment: float, what: str) -> None:
        if moment < seconds:
            heapq.heappush(events, (moment, next(order), what))

    at(chance.expovariate(arrivals), "arrival")
    usual = {
        "look": (_IDLE_LOOK_SECONDS if fleet.realtime else _LOOK_SECONDS, prices.look),
        "beat": (_BEAT_SECONDS, prices.beat),
        "tend": (_TEND_SECONDS, prices.tend),
    }
    for what, (pace, _) in usual.items():
        for _ in range(fleet.workers):
            at(chance.uniform(0, pace), what)
    warm = seconds / 4
    waiting: deque[float] = deque()
    free = fleet.workers * fleet.slots
    waits: list[float] = []
    done = 0
    busy_before = 0.0

    def take(now: float, most: int = 1_000_000) -> None:
        """Whoever has a free slot claims; one that was told of nothing takes what its own slots hold."""
        nonlocal free
        while free and waiting and most:
            most -= 1
            came = waiting.popleft()
            free -= 1
            claimed = database.call(now, prices.job)
            if claimed > warm:
                waits.append(claimed - came)
            at(claimed + (chance.expovariate(1 / fleet.job_seconds) if fleet.job_seconds else 0.0), "end")

    while events:
        now, _, what = heapq.heappop(events)
        if now < warm:
            busy_before = database.busy
        if what == "arrival":
            waiting.append(database.call(now, prices.enqueue) if fleet.job_seconds else now)
            at(now + chance.expovariate(arrivals), "arrival")
            if fleet.realtime:
                take(now)
        elif what == "end":
            free += 1
            done += now > warm
            take(now)
        else:
            pace, price = usual[what]
            if what == "look":
                take(now, fleet.slots)
            database.call(now, price)
            at(now + pace * chance.uniform(0.75, 1.25), what)
    span = seconds - warm
    rate = done / span
    used = min(1.0, (database.busy - busy_before) / span / plan.cores)
    messages, sockets = _realtime(fleet, min(arrivals, rate) if fleet.job_seconds else 0.0)
    ordered = sorted(waits) or [0.0]
    return Result(
        rate,
        ordered[int(len(ordered) * 0.95) - 1],
        used,
        messages,
        sockets,
        _first(plan, fleet, arrivals, used, messages, sockets),
    )


def _realtime(fleet: Fleet, jobs: float) -> tuple[float, int]:
    """Messages that are counted, sent and delivered, and sockets. A wake-up reaches each of the workers."""
    if not fleet.realtime:
        return jobs * _JOB_BROADCASTS * (1 + fleet.watchers), round(
            jobs * (fleet.job_seconds + 2)
        ) * fleet.watchers
    wakes = (
        fleet.executors
        * min(1 / _WAKE_SECONDS, jobs / fleet.executors)
        * (1 + fleet.workers / fleet.executors)
    )
    told = fleet.workers * (1 / _METRICS_SECONDS + 1 / _PRESENCE_SECONDS)
    jobs_told = jobs * _JOB_BROADCASTS * (1 + fleet.watchers)
    return wakes + told + jobs_told, fleet.workers + round(jobs * (fleet.job_seconds + 2)) * fleet.watchers


def _first(plan: Plan, fleet: Fleet, arrivals: float, used: float, messages: float, sockets: int) -> str:
    """The resource of which the most is used, and how much of it."""
    shares = {
        "workers": arrivals * fleet.job_seconds / (fleet.workers * fleet.slots),
        "database": used,
        "Realtime's messages": messages / plan.messages if plan.messages else 0.0,
        "Realtime's sockets": sockets / plan.sockets if plan.sockets else 0.0,
    }
    name = max(shares, key=lambda which: shares[which])
    return f"{name}, {shares[name]:.0%}"


@dataclass(frozen=True)
class Tariff:
    """Dollars. List prices of 2025, as far as they were known: put in your own."""

    core_second: float = 0.000018  # of a worker, always on: Cloud Run
    gib_second: float = 0.000002
    request: float = 0.40e-6  # of a function
    request_core_second: float = 0.000024
    message: float = 2.50e-6  # of Realtime
    object_gib_month: float = 0.021  # in Storage
    egress_gib: float = 0.09
    disk_gib_month: float = 0.125  # of the database


@dataclass(frozen=True)
class Job:
    """What one job takes."""

    seconds: float  # in a worker's hands
    artifact_bytes: float
    stored_bytes: float  # in the database, with its events
    requests: float = 3  # task-assign, task-result, sign-artifact
    request_seconds: float = 0.05  # of a core, each
    messages: float = 2 * _JOB_BROADCASTS + 8  # broadcasts and four changes, each sent and delivered once
    reads: float = 1  # how often its artifact is fetched


@dataclass(frozen=True)
class Worker:
    cores: float = 2
    gib: float = 3
    slots: int = 3
    busy: float = 0.6  # of its time; an autoscaler keeps it there


def per_million(job: Job, worker: Worker, tariff: Tariff) -> dict[str, float]:
    """Dollars for a million jobs, by what they pay for; what is kept, for a month."""
    gib = 2**30
    worker_seconds = job.seconds / worker.slots / worker.busy
    of_one = {
        "workers": worker_seconds * (worker.cores * tariff.core_second + worker.gib * tariff.gib_second),
        "functions": job.requests * (tariff.request + job.request_seconds * tariff.request_core_second),
        "Realtime": job.messages * tariff.message,
        "files, a month": job.artifact_bytes / gib * tariff.object_gib_month,
        "files, read": job.reads * job.artifact_bytes / gib * tariff.egress_gib,
        "rows, a month": job.stored_bytes / gib * tariff.disk_gib_month,
    }
    return {what: dollars * 1e6 for what, dollars in of_one.items()}
