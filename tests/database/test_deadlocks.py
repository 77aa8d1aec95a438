"""Every transition that takes several jobs reaches for the same rows at once, in the least lucky order, and none deadlocks."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors

from tests.database.callers import Caller, Row, Workspace, lease

JOBS = 40
SECONDS = 4.0
SOAK_SECONDS = 60.0
LEGAL = {"SJ300"}  # the lease was lost to whoever came first


class Together:
    """Callers that each repeat one thing until the time is over; what they were refused, by SQLSTATE."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def repeat(self, name: str, step: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            while time.monotonic() < self.until:
                try:
                    step()
                    self.done[name] += 1
                except psycopg.Error as error:
                    self.refused[error.sqlstate or str(error)] += 1

        return threading.Thread(target=run)

    def run(self, steps: list[tuple[str, Callable[[], object]]]) -> None:
        threads = [self.repeat(name, step) for name, step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=self.until - time.monotonic() + 300)
        assert not any(thread.is_alive() for thread in threads), "somebody waits for ever"


@pytest.fixture
def deadlocks(server: Caller) -> Callable[[], int]:
    """How many deadlocks the database has broken up since the test began, whoever was the victim."""

    def count() -> int:
        server.run("select pg_stat_clear_snapshot()")
        (row,) = server.rows("select deadlocks from pg_stat_database where datname = current_database()")
        return int(row["deadlocks"])

    before = count()
    return lambda: count() - before


def together(workspace: Workspace, sign_in: Callable[[str | None], Caller], seconds: float) -> Together:
    """Two who claim in bulk, two who finish several at once, two who sweep and two who cancel, on few jobs."""
    held: list[Row] = []
    lock = threading.Lock()

    def claimer() -> Callable[[], object]:
        caller = sign_in(workspace.worker.user_id)

        def step() -> None:
            jobs = caller.rpc("claim_jobs", max_jobs=JOBS, lease_seconds=15)
            with lock:
                held.extend(jobs)

        return step

    def finisher(first: bool) -> Callable[[], object]:
        caller = sign_in(workspace.worker.user_id)

        def step() -> None:
            with lock:
                part = held[:10] if first else held[-10:][::-1]
            # Several jobs in one transaction, in the order of their ids, as a call in bulk does it: the widest hold of rows.
            with caller.session.transaction():
                for job in sorted(part, key=lambda job: str(job["id"])):
                    caller.call("finish_job", **lease(job), ok=True)
            with lock:
                done = {str(job["id"]) for job in part}
                held[:] = [job for job in held if str(job["id"]) not in done]

        def forgiving() -> None:
            try:
                step()
            except psycopg.Error:
                with lock:
                    held[:] = held[len(held) // 2 :] if first else held[: len(held) // 2]
                raise

        return forgiving

    def sweeper() -> Callable[[], object]:
        caller, server = sign_in(workspace.worker2.user_id), workspace.sign_in(workspace.worker.user_id)

        def step() -> None:
            caller.rpc("release_expired_leases", max_jobs=1000)
            server.rpc("release_expired_leases", max_jobs=3)

        return step

    def canceller(newest_first: bool) -> Callable[[], object]:
        caller = sign_in(workspace.member.user_id)

        def step() -> None:
            order = "desc" if newest_first else "asc"
            for job in caller.rows(
                f"select id from public.jobs where status in ('queued', 'assigned', 'running') order by id {order} limit 5"
            ):
                caller.call("cancel_job", job_id=job["id"])

        return step

    def feeder() -> Callable[[], object]:
        caller, clock = sign_in(workspace.member.user_id), sign_in(None)
        clock.session.execute("reset role")  # the database's owner, who puts leases' ends into the past

        def step() -> None:
            for _ in range(10):
                caller.call("enqueue_job", type="test.job", max_attempts=2)
            clock.run(
                "with late as (select id from public.jobs where workspace_id = %s and status = 'assigned' order by id limit 10 for update skip locked)"
                " update public.jobs j set lease_until = clock_timestamp() - interval '1 second' from late where j.id = late.id",
                workspace.id,
            )

        return step

    run = Together(seconds)
    run.run(
        [
            ("claim", claimer()),
            ("claim", claimer()),
            ("finish", finisher(first=True)),
            ("finish", finisher(first=False)),
            ("sweep", sweeper()),
            ("sweep", sweeper()),
            ("cancel", canceller(newest_first=False)),
            ("cancel", canceller(newest_first=True)),
            ("feed", feeder()),
        ]
    )
    return run


def judge(run: Together, deadlocks: Callable[[], int]) -> None:
    assert deadlocks() == 0
    assert set(run.refused) <= LEGAL, run.refused
    assert all(run.done[name] > 0 for name in ("claim", "finish", "sweep", "cancel", "feed")), run.done
    assert run.refused["SJ300"] > 0, "nobody was ever too late, so they did not meet"


def test_claims_finishes_sweeps_and_cancels_of_the_same_jobs_do_not_deadlock(
    workspace: Workspace, sign_in: Callable[[str | None], Caller], deadlocks: Callable[[], int]
) -> None:
    judge(together(workspace, sign_in, SECONDS), deadlocks)


@pytest.mark.soak
def test_they_do_not_deadlock_for_a_long_time(
    workspace: Workspace,
    sign_in: Callable[[str | None], Caller],
    deadlocks: Callable[[], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = together(workspace, sign_in, SOAK_SECONDS)
    with capsys.disabled():
        print(
            f"\ntransitions at once: {dict(run.done)}, refused {dict(run.refused)}, deadlocks {deadlocks()}"
        )
    judge(run, deadlocks)


def families(workspace: Workspace, sign_in: Callable[[str | None], Caller], seconds: float) -> Together:
    """Parents and children of few jobs, whose ids say nothing of who came first: lists that wait for several of them, reports
    that end several, cancels, and all of the upkeep."""
    held: list[Row] = []
    lock = threading.Lock()

    def enqueuer() -> Callable[[], object]:
        caller = sign_in(workspace.member.user_id)

        def step() -> None:
            rows = caller.rows(
                "select id from public.jobs where status in ('queued', 'assigned') order by random() limit 6"
            )
            known = [str(row["id"]) for row in rows]
            jobs: list[Row] = [
                {
                    "type": "test.job",
                    "job_id": str(uuid.uuid4()),
                    "depends_on": known[n : n + 3],
                    "on_parent_failure": how,
                }
                for n, how in enumerate(("run", "cancel", "run", "cancel"))
            ]
            caller.rpc("enqueue_jobs", jobs=[*jobs, *[{"type": "test.job", "job_id": str(uuid.uuid4())}] * 2])

        return step

    def finisher() -> Callable[[], object]:
        caller = sign_in(workspace.worker.user_id)

        def step() -> None:
            with lock:
                held.extend(caller.rpc("claim_jobs", max_jobs=10))
                part, held[:] = held[:6], held[6:]
            if part:
                reports = [
                    {**lease(job), "job_id": str(job["id"]), "ok": n % 3 > 0, "give_up": True}
                    for n, job in enumerate(part)
                ]
                caller.rpc("finish_jobs", reports=reports)

        return step

    def canceller() -> Callable[[], object]:
        caller = sign_in(workspace.member.user_id)

        def step() -> None:
            for job in caller.rows(
                "select id from public.jobs where finished_at is null order by random() limit 2"
            ):
                caller.call("cancel_job", job_id=job["id"])

        return step

    def keeper(server: bool) -> Callable[[], object]:
        caller = sign_in(None if server else workspace.worker2.user_id)
        if server:
            caller.session.execute("reset role")

        def step() -> None:
            for call in (
                "settle_dependencies",
                "release_expired_leases",
                "remove_old_jobs",
                "run_schedules",
                "remove_leftovers",
            ):
                caller.rpc(call)
            if server:
                caller.run(
                    "update public.jobs set finished_at = now() - interval '1 year' where id in (select id from public.jobs"
                    " where workspace_id = %s and finished_at > now() - interval '1 day' order by random() limit 5 for update skip locked)",
                    workspace.id,
                )

        return step

    run = Together(seconds)
    run.run(
        [
            ("enqueue", enqueuer()),
            ("enqueue", enqueuer()),
            ("finish", finisher()),
            ("finish", finisher()),
            ("cancel", canceller()),
            ("keep", keeper(server=False)),
            ("keep", keeper(server=True)),
        ]
    )
    return run


def test_families_do_not_deadlock_and_nobody_waits_for_ever_or_runs_early(
    workspace: Workspace, sign_in: Callable[[str | None], Caller], deadlocks: Callable[[], int]
) -> None:
    run = families(workspace, sign_in, SECONDS)
    assert deadlocks() == 0
    # A parent may end, and be removed, between the asking for it and the waiting for it.
    assert set(run.refused) <= LEGAL | {"SJ200"}, run.refused
    assert all(run.done[name] > 0 for name in ("enqueue", "finish", "cancel", "keep")), run.done
    while workspace.worker.call("settle_dependencies")["settle_dependencies"]:
        pass
    wrong = workspace.server.rows(
        "select j.id, j.blocked_by, count(p.id) filter (where p.finished_at is null) as open from public.jobs j"
        " left join public.job_dependencies d on d.job_id = j.id left join public.jobs p on p.id = d.parent_id"
        " where j.workspace_id = %s and j.status = 'queued' group by j.id"
        " having j.blocked_by <> count(p.id) filter (where p.finished_at is null)",
        workspace.id,
    )
    assert wrong == []


def test_a_deadlock_would_be_seen(
    workspace: Workspace, sign_in: Callable[[str | None], Caller], deadlocks: Callable[[], int]
) -> None:
    """The control: two callers who cancel the same two jobs in one transaction each, in opposite orders."""
    first, second = workspace.enqueue(), workspace.enqueue()
    callers = [sign_in(workspace.member.user_id) for _ in range(2)]
    met = threading.Barrier(2)
    refused: list[str | None] = []

    def cancel(caller: Caller, jobs: list[str]) -> None:
        try:
            with caller.session.transaction():
                caller.call("cancel_job", job_id=jobs[0])
                met.wait(timeout=60)
                caller.call("cancel_job", job_id=jobs[1])
        except psycopg.Error as error:
            refused.append(error.sqlstate)

    threads = [
        threading.Thread(target=cancel, args=(callers[0], [first, second])),
        threading.Thread(target=cancel, args=(callers[1], [second, first])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert refused == [errors.DeadlockDetected.sqlstate]
    deadline = time.monotonic() + 60
    while deadlocks() == 0 and time.monotonic() < deadline:  # a session reports its counters when it is idle
        callers[0].rows("select 1")
        callers[1].rows("select 1")
    assert deadlocks() == 1
