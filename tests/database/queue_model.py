"""The queue said a second time, as a plain program without a database: what every transition has to do.

It knows no clock. An instant that the database chose lies in a window; the machine that runs both looks whether
it does, and tells the model the instant itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

IN_FLIGHT = {"assigned", "running"}
FINAL = {"succeeded", "failed", "cancelled"}
BACKOFF_SECONDS, BACKOFF_MAX_SECONDS = 5, 3600
AGEING = timedelta(minutes=1)
LEASE_EXPIRED = {"code": "lease_expired", "message": "The worker was not heard of before its lease ended."}

Window = tuple[timedelta, timedelta]
FREE_HAND_BACKS = 10
AT_ONCE: Window = (timedelta(0), timedelta(0))


class Refused(Exception):
    """The transition is refused with this SQLSTATE, and nothing is written."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Lease:
    """What a claim answered, and to whom. It stays in somebody's hands when it has long been worth nothing."""

    job_id: str
    attempt: int | None
    token: str | None
    owner: str


@dataclass
class Job:
    id: str
    priority: int
    max_attempts: int
    key: str | None
    payload: dict[str, object]
    due: datetime | Window  # not before; a window counts from the moment of the call
    status: str = "queued"
    attempts: int = 0
    released: int = 0
    holder: str | None = None  # also of the last attempt, when it ended by its own report
    token: str | None = None
    lease_until: datetime | Window | None = None
    started: bool = False
    result: object = None
    error: object = None
    checkpoint: object = None
    reason: str | None = None  # of its dead letter
    retried_as: str | None = None  # the job that its dead letter became
    owners: list[str] = field(default_factory=list)  # one an attempt
    events: list[tuple[str, int]] = field(default_factory=list)  # (what, attempt), seq 1, 2, 3, …

    def move(self, status: str, *events: str) -> None:
        self.status = status
        self.events += [(event, self.attempts) for event in events]

    @property
    def spent(self) -> bool:
        return self.attempts - self.released >= self.max_attempts

    def end_lease(self, *, forget: bool) -> None:
        self.lease_until = None
        if forget:
            self.holder = self.token = None


class Model:
    """One workspace with one executor. `roles` holds everybody's role in it; a stranger has none."""

    def __init__(self, roles: dict[str, str | None]) -> None:
        self.roles = roles
        self.jobs: dict[str, Job] = {}

    def require(self, caller: str, *roles: str) -> None:
        if self.roles[caller] is None:
            raise Refused("SJ200")
        if self.roles[caller] not in roles:
            raise Refused("SJ201")

    def known(self, key: str | None, payload: dict[str, object]) -> Job | None:
        """The job that this key stands for already."""
        for job in self.jobs.values():
            if key is not None and job.key == key:
                if job.payload != payload:
                    raise Refused("SJ301")
                return job
        return None

    def enqueue(self, job: Job) -> None:
        job.move("queued", "queued")
        self.jobs[job.id] = job

    def due(self, at: datetime) -> list[Job]:
        """What a claim takes, in its order: a priority gains one for each minute that its first job has been due."""
        ready = [job for job in self.jobs.values() if job.status == "queued" and instant(job.due) <= at]
        first: dict[int, datetime] = {}
        for job in ready:
            first[job.priority] = min(instant(job.due), first.get(job.priority, at))

        def rank(priority: int) -> int:
            return priority + (at - first[priority]) // AGEING

        return sorted(ready, key=lambda job: (-rank(job.priority), -job.priority, instant(job.due), job.id))

    def claim(
        self, caller: str, taken: Iterable[tuple[str, str]], seconds: int, *, start: bool
    ) -> list[Lease]:
        """Each (job, token) of the answer; that these were the right ones is looked at before."""
        leases = []
        for job_id, token in taken:
            job = self.jobs[job_id]
            job.attempts += 1
            job.holder, job.token, job.lease_until = caller, token, after(seconds)
            job.owners.append(caller)
            job.started = start
            if start:
                job.move("running", "claimed", "started")
            else:
                job.move("assigned", "claimed")
            leases.append(Lease(job_id, job.attempts, token, caller))
        return leases

    def held(self, caller: str, lease: Lease, *, ended: bool = False) -> Job:
        """The job under this very lease; with `ended`, also one whose attempt under it has ended."""
        job = self.jobs[lease.job_id]
        fits = (job.holder, job.attempts, job.token) == (caller, lease.attempt, lease.token)
        if lease.attempt is None and lease.token is None and ended:  # an older worker, which knows neither
            fits = job.holder == caller and caller not in job.owners[:-1]
        if self.roles[caller] is None:
            raise Refused("SJ200")
        if self.roles[caller] == "worker" and fits and (ended or job.status in IN_FLIGHT):
            return job
        self.require(caller, "worker")
        raise Refused("SJ300")

    def start(self, caller: str, lease: Lease) -> str:
        job = self.held(caller, lease)
        if job.status == "assigned":
            job.started = True
            job.move("running", "started")
        return job.status

    def renew(self, caller: str, lease: Lease, seconds: int) -> str:
        job = self.held(caller, lease)
        job.lease_until = after(seconds)
        return job.status

    def progress(self, caller: str, lease: Lease, checkpoint: object, *, stored: bool) -> str:
        job = self.held(caller, lease)
        job.checkpoint = checkpoint if checkpoint is not None else job.checkpoint
        if stored:
            job.move(job.status, "progress")
        return job.status

    def release(self, caller: str, lease: Lease, due: datetime | Window) -> str:
        job = self.held(caller, lease)
        job.released += 1
        job.started = False
        job.due = due
        if job.released > FREE_HAND_BACKS:
            full = timedelta(seconds=min(600, 5 * 2 ** (job.released - FREE_HAND_BACKS - 1)))
            job.due = (full / 2, full if isinstance(due, tuple) else timedelta(days=366))
        job.end_lease(forget=False)
        job.move("queued", "released")
        return job.status

    def succeed(self, caller: str, lease: Lease, result: object) -> str:
        job = self.held(caller, lease, ended=True)
        if job.status not in IN_FLIGHT:
            if job.status == "succeeded" and job.result == result:
                return job.status
            raise Refused("SJ300")
        job.result, job.error = result, None
        job.end_lease(forget=False)
        job.move("succeeded", "succeeded")
        return job.status

    def fail(
        self, caller: str, lease: Lease, error: object, due: datetime | Window | None, *, give_up: bool
    ) -> str:
        job = self.held(caller, lease, ended=True)
        if job.status not in IN_FLIGHT:
            if job.events[-1][0] in ("retry_scheduled", "dead_lettered") and job.error == error:
                return job.status
            raise Refused("SJ300")
        job.error = error
        job.end_lease(forget=False)
        if give_up or job.spent:
            self.bury(job, "gave_up" if give_up else "attempts_exhausted")
        else:
            full = min(BACKOFF_MAX_SECONDS, BACKOFF_SECONDS * 2 ** (job.attempts - job.released - 1))
            job.due = due or (timedelta(seconds=full / 2), timedelta(seconds=full))
            job.started = False
            job.move("queued", "retry_scheduled")
        return job.status

    def bury(self, job: Job, reason: str) -> None:
        job.reason = reason
        job.move("failed", "failed", "dead_lettered")

    def cancel(self, caller: str, job_id: str) -> str:
        job = self.jobs[job_id]
        self.require(caller, "member", "owner")
        if job.status not in FINAL:
            job.end_lease(forget=True)
            job.move("cancelled", "cancelled")
        return job.status

    def retry(self, caller: str, job_id: str, answered: str | None) -> str:
        """The same work as a new job, `answered`; a second time the same one."""
        job = self.jobs[job_id]
        self.require(caller, "member", "owner")
        if job.retried_as is None:
            assert answered is not None
            assert answered not in self.jobs
            again = Job(answered, job.priority, job.max_attempts, None, job.payload, AT_ONCE)
            again.checkpoint = job.checkpoint
            self.enqueue(again)
            job.retried_as = answered
        return job.retried_as

    def late(self, at: datetime) -> list[Job]:
        """What a sweep may take."""
        return [
            job
            for job in self.jobs.values()
            if job.status in IN_FLIGHT and job.lease_until is not None and instant(job.lease_until) < at
        ]

    def expire(self, job: Job) -> None:
        job.end_lease(forget=True)
        job.started = False
        job.error = LEASE_EXPIRED
        job.due = AT_ONCE
        job.move("queued", "lease_expired")
        if job.spent:
            self.bury(job, "lease_expired")

    def pass_time(self, by: timedelta) -> None:
        for job in self.jobs.values():
            job.due = instant(job.due) - by
            if job.lease_until is not None:
                job.lease_until = instant(job.lease_until) - by


def after(seconds: float) -> Window:
    return timedelta(seconds=seconds), timedelta(seconds=seconds)


def instant(moment: datetime | Window) -> datetime:
    assert isinstance(moment, datetime), "the machine looks after every step and fills windows in"
    return moment
