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


def indexes_used(caller: Caller, query: str, *values: Any) -> tuple[set[str], set[str]]:
    """(indexes scanned, tables read from end to end) of jobs and job_events by this query and all that it calls.

    These are counts of what was executed, plans within functions and triggers included, which EXPLAIN does not show.
    """
    names = (
        "select c.relname, c.relkind, pg_stat_get_xact_numscans(c.oid) as scans from pg_class c"
        " where c.oid in ('public.jobs'::regclass, 'public.job_events'::regclass) or c.oid in"
        " (select indexrelid from pg_index where indrelid in ('public.jobs'::regclass, 'public.job_events'::regclass))"
    )
    with caller.session.transaction(force_rollback=True):
        before = {row["relname"]: row["scans"] for row in caller.rows(names)}
        caller.rows(query, *values)
        used = [row for row in caller.rows(names) if row["scans"] > before[row["relname"]]]
    return (
        {row["relname"] for row in used if row["relkind"] == "i"},
        {row["relname"] for row in used if row["relkind"] == "r"},
    )


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


FENCE = "job_id => %s, attempt => %s, lease_token => %s"
READS_EVENTS = {"job_events_of_job"}  # what is broadcast after the move
ONE_ROW = {"jobs_pkey", "jobs_in_flight"}  # few jobs are in flight, so the second finds one as fast
ARBITERS = {"jobs_pkey", "jobs_idempotency"}  # what an insert asks before it makes a row


HOT = [
    ("worker", "select * from public.claim_jobs(max_jobs => 10)", {"jobs_ready", "jobs_pkey"}),
    ("worker", f"select * from public.start_job({FENCE})", ONE_ROW),
    ("worker", f"select * from public.renew_lease({FENCE})", ONE_ROW),
    ("worker", f"select * from public.report_progress({FENCE}, progress => '{{}}')", ONE_ROW),
    ("worker", f"select * from public.release_job({FENCE})", ONE_ROW),
    ("worker", f"select * from public.finish_job({FENCE}, ok => true)", ONE_ROW),
    ("worker", f"select * from public.finish_job({FENCE}, ok => false)", ONE_ROW),
    ("worker", "select * from public.release_expired_leases()", ONE_ROW),
    ("viewer", "select * from public.recent_jobs()", {"jobs_recent"}),
    (
        "viewer",
        "select * from public.job_events where job_id = %s and seq > 1 order by seq",
        READS_EVENTS,
    ),
    ("member", "select * from public.cancel_job(%s)", ONE_ROW),
    ("member", "select * from public.enqueue_job('test.job', job_id => %s)", ARBITERS),
    ("member", "select * from public.enqueue_job('test.job', idempotency_key => 'known')", ARBITERS),
]  # who asks what, and which indexes it may take


def test_every_hot_query_uses_its_index_and_reads_no_table_from_end_to_end(busy: Workspace) -> None:
    busy.enqueue(idempotency_key="known")
    job = busy.worker.claim()
    busy.expire(str(job["id"]))
    for who, query, may_use in HOT:
        values = [job["id"], job["attempt"], job["lease_token"]][: query.count("%s")]
        used, read_whole = indexes_used(getattr(busy, who), query, *values)
        assert read_whole == set(), query
        assert used & may_use, query
        assert used <= may_use | READS_EVENTS, query
        assert "claim" not in query or "jobs_ready" in used


def test_a_table_that_is_read_whole_is_seen(busy: Workspace) -> None:
    _, read_whole = indexes_used(busy.server, "select count(*) from public.jobs where payload <> '{}'")
    assert read_whole == {"jobs"}
