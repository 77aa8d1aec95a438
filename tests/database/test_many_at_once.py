"""Many callers at the same time: each job is done once, its history has no gap, nothing deadlocks."""

import threading
from collections import Counter
from collections.abc import Callable

import psycopg

from tests.database.callers import Caller, Workspace, lease

CLAIMERS = 64
JOBS = 1000


def test_a_thousand_jobs_through_64_claimers_are_each_done_once(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    workspace.server.run(
        "insert into public.jobs (workspace_id, type) select %s, 'test.job' from generate_series(1, %s)",
        workspace.id,
        JOBS,
    )
    claimers = [
        sign_in(workspace.worker.user_id if n % 2 else workspace.worker2.user_id) for n in range(CLAIMERS)
    ]
    done: list[str] = []
    failures: list[Exception] = []
    start = threading.Barrier(CLAIMERS)

    def work(claimer: Caller) -> None:
        try:
            start.wait()
            while jobs := claimer.rpc("claim_one_job"):
                claimer.call("start_job", **lease(jobs[0]))
                claimer.call("finish_job", **lease(jobs[0]), ok=True)
                done.append(str(jobs[0]["id"]))
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which fails the test with it
            failures.append(error)

    run_all([threading.Thread(target=work, args=(claimer,)) for claimer in claimers])

    assert failures == []
    assert len(done) == len(set(done)) == JOBS
    events = workspace.server.rows(
        "select event_type, count(*) as n, count(distinct job_id) as jobs from public.job_events where workspace_id = %s group by 1",
        workspace.id,
    )
    assert {row["event_type"]: (row["n"], row["jobs"]) for row in events} == {
        f"job.{name}": (JOBS, JOBS) for name in ("queued", "claimed", "started", "succeeded")
    }
    (gaps,) = workspace.server.rows(
        "select count(*) as n from (select min(seq) as low, max(seq) as high, count(*) as n from public.job_events"
        " where workspace_id = %s group by job_id) as history where (low, high, n) <> (1, 4, 4)",
        workspace.id,
    )
    assert gaps["n"] == 0


def test_cancel_sweep_and_finish_of_the_same_jobs_neither_deadlock_nor_disagree(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    """All three reach for the same rows at once; whoever comes first decides, and the history says who did."""
    outcomes: Counter[str] = Counter()
    workers = [sign_in(workspace.worker.user_id) for _ in range(2)]
    sweeper, canceller = sign_in(workspace.worker2.user_id), sign_in(workspace.member.user_id)

    for _ in range(15):
        for _ in range(10):
            workspace.enqueue(max_attempts=1)
        jobs = workers[0].rpc("claim_jobs", max_jobs=10)
        workspace.server.run(
            "update public.jobs set lease_until = clock_timestamp() - interval '1 second' where workspace_id = %s and status = 'assigned'",
            workspace.id,
        )
        start = threading.Barrier(4)
        ended: list[str] = []

        def finish(
            worker: Caller,
            part: list[dict[str, object]],
            start: threading.Barrier = start,
            ended: list[str] = ended,
        ) -> None:
            start.wait()
            for job in part:
                try:
                    ended.append(worker.call("finish_job", **lease(job), ok=True)["status"])
                except psycopg.Error as error:
                    ended.append(error.sqlstate or "")

        def sweep(start: threading.Barrier = start) -> None:
            start.wait()
            sweeper.rpc("release_expired_leases", max_jobs=100)

        def cancel(jobs: list[dict[str, object]] = jobs, start: threading.Barrier = start) -> None:
            start.wait()
            for job in reversed(jobs):
                canceller.call("cancel_job", job_id=job["id"])

        run_all(
            [
                threading.Thread(target=finish, args=(workers[0], jobs[:5])),
                threading.Thread(target=finish, args=(workers[1], jobs[5:])),
                threading.Thread(target=sweep),
                threading.Thread(target=cancel),
            ]
        )
        assert len(ended) == 10
        assert set(ended) <= {"succeeded", "SJ300"}, "a deadlock or another surprise"
        rows = [workspace.job(str(job["id"])) for job in jobs]
        outcomes.update(row["status"] for row in rows)
        assert Counter(ended)["succeeded"] == sum(row["status"] == "succeeded" for row in rows)
        for row in rows:
            events = workspace.events(str(row["id"]))
            assert sum(event in ("succeeded", "failed", "cancelled") for event in events) == 1
    assert sum(outcomes.values()) == 150


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads), "somebody waits for ever"
