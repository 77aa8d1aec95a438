"""What a call reads, counted by Postgres itself: the cost that grows with a table is found without a clock."""

import uuid
from typing import Any

import psycopg
import pytest

from tests.database.callers import Caller, Workspace, lease

JOBS = 20_000


def rows_read(caller: Caller, name: str, **arguments: Any) -> tuple[int, int]:
    """(sequential scans, rows fetched) of `jobs` while the caller makes this call, which is taken back."""
    with caller.session.transaction(force_rollback=True):
        before = scans_so_far(caller)
        caller.rpc(name, **arguments)
        after = scans_so_far(caller)
    return after[0] - before[0], after[1] - before[1]


def scans_so_far(caller: Caller) -> tuple[int, int]:
    (counted,) = caller.rows(
        "select seq_scan, idx_tup_fetch from pg_stat_xact_user_tables where schemaname = 'public' and relname = 'jobs'"
    )
    return counted["seq_scan"], counted["idx_tup_fetch"]


@pytest.fixture
def busy(workspace: Workspace) -> Workspace:
    workspace.server.run(
        "insert into public.jobs (workspace_id, type, created_at)"
        " select %s, 'test.job', now() - (n / 3) * interval '1 second' from generate_series(1, %s) as n",
        workspace.id,
        JOBS,
    )
    workspace.server.run("analyze public.jobs")
    return workspace


def test_the_last_page_reads_what_the_first_one_reads(busy: Workspace) -> None:
    (last,) = busy.server.rows(
        "select created_at, id from public.jobs where workspace_id = %s order by created_at, id limit 1 offset 25",
        busy.id,
    )
    for filters in ({}, {"executor_id": "default"}, {"status": "queued"}):
        first_page = rows_read(busy.viewer, "recent_jobs", page_size=21, **filters)
        last_page = rows_read(
            busy.viewer,
            "recent_jobs",
            page_size=21,
            before_created_at=last["created_at"],
            before_id=last["id"],
            **filters,
        )
        assert first_page == (0, 21)
        assert last_page == (0, 21)


def test_a_claim_reads_only_what_it_takes(busy: Workspace) -> None:
    busy.server.run(
        "update public.jobs set priority = 9, next_run_at = now() + interval '1 day' where workspace_id = %s and id in"
        " (select id from public.jobs where workspace_id = %s limit %s)",
        busy.id,
        busy.id,
        JOBS // 2,
    )
    busy.server.run("vacuum analyze public.jobs")
    scans, fetched = rows_read(busy.worker, "claim_jobs", max_jobs=10)
    assert scans == 0
    assert fetched <= 40, (
        "ten jobs, each read once to lock it and once to write it, and the tops of the priorities"
    )


def test_writes_under_a_lease_find_their_row_by_its_key(busy: Workspace) -> None:
    held = lease(busy.worker.claim())
    for name, more in (
        ("start_job", {}),
        ("renew_lease", {}),
        ("report_progress", {"progress": {}}),
        ("release_job", {}),
        ("finish_job", {"ok": True}),
    ):
        scans, fetched = rows_read(busy.worker, name, **held, **more)
        assert (scans, fetched <= 4) == (0, True), name


def test_a_sweep_reads_only_jobs_in_flight(busy: Workspace) -> None:
    job = busy.worker.claim()
    busy.expire(str(job["id"]))
    scans, fetched = rows_read(busy.worker, "release_expired_leases")
    assert (scans, fetched < 100) == (0, True)


def test_a_job_that_is_not_there_costs_nothing(busy: Workspace) -> None:
    with pytest.raises(psycopg.Error) as error:
        rows_read(busy.member, "cancel_job", job_id=str(uuid.uuid4()))
    assert error.value.sqlstate == "SJ200"
