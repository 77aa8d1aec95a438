"""What a call reads, counted by Postgres itself: the cost that grows with a table is found without a clock."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.database.callers import (
    Caller,
    Row,
    Workspace,
    connect,
    lease,
    new_workspace,
    signing_in,
)

JOBS = 20_000
ANALYZE = "vacuum analyze public.jobs, public.job_events"


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


@pytest.fixture(scope="module")
def busy() -> Iterator[Workspace]:
    """A workspace with a long queue: half of it is due, the other half has a higher priority and is due tomorrow.

    It is written without the triggers, which would take ten times as long, and no test moves it: what they move is a
    job of their own. Its dates are in the future, so that those jobs stand on no page but the last.
    """
    with connect() as session, signing_in() as sign_in:
        workspace = new_workspace(Caller(session), sign_in)
        with session.transaction():
            session.execute("set local session_replication_role = replica")
            session.execute(
                "insert into public.jobs (workspace_id, type, priority, next_run_at, created_at, event_seq, last_event)"
                " select %s, 'test.job', n %% 2 * 9, now() + n %% 2 * interval '1 day', now() + (n / 3 + 9) * interval '1 second',"
                " 1, 'job.queued' from generate_series(1, %s) as n",
                (workspace.id, JOBS),
            )
            session.execute(
                "insert into public.job_events (job_id, workspace_id, seq, event_type, attempt)"
                " select id, workspace_id, 1, 'job.queued', 0 from public.jobs where workspace_id = %s",
                (workspace.id,),
            )
        session.execute(ANALYZE)
        yield workspace


@pytest.fixture
def held(busy: Workspace) -> Row:
    """A job in the worker's hands."""
    busy.enqueue(executor_id="hand")
    return busy.worker.claim(executor_id="hand")


def test_a_page_at_the_far_end_reads_what_the_first_one_reads(busy: Workspace) -> None:
    (last,) = busy.server.rows(  # with so many before it that no planner would read and sort them all
        "select created_at, id from public.jobs where workspace_id = %s order by created_at, id limit 1 offset %s",
        busy.id,
        JOBS // 2,
    )
    for filters in ({}, {"executor_id": "default"}, {"status": "queued"}):
        first_page = rows_read(busy.viewer, "recent_jobs", page_size=21, **filters)
        far_page = rows_read(
            busy.viewer,
            "recent_jobs",
            page_size=21,
            before_created_at=last["created_at"],
            before_id=last["id"],
            **filters,
        )
        assert first_page == (0, 21)
        assert far_page == (0, 21)


def test_a_claim_reads_only_what_it_takes(busy: Workspace) -> None:
    scans, fetched = rows_read(busy.worker, "claim_jobs", max_jobs=10)
    assert scans == 0
    assert fetched <= 40, (
        "ten jobs, each read once to lock it and once to write it, and the tops of the priorities"
    )


def test_writes_under_a_lease_find_their_row_by_its_key(busy: Workspace, held: Row) -> None:
    for name, more in (
        ("start_job", {}),
        ("renew_lease", {}),
        ("report_progress", {"progress": {}}),
        ("release_job", {}),
        ("finish_job", {"ok": True}),
    ):
        scans, fetched = rows_read(busy.worker, name, **lease(held), **more)
        assert (scans, fetched <= 4) == (0, True), name


def test_a_sweep_reads_only_jobs_in_flight(busy: Workspace, held: Row) -> None:
    (in_flight,) = busy.server.rows(
        "select count(*) from public.jobs where status in ('assigned', 'running')"
    )  # other tests' too: an index holds those of all workspaces
    busy.expire(str(held["id"]))
    scans, fetched = rows_read(busy.worker, "release_expired_leases")
    assert scans == 0
    assert 0 < fetched <= in_flight["count"] + 10, "each once, and the late one to lock and move it"


def test_a_job_that_is_not_there_costs_nothing(busy: Workspace) -> None:
    with pytest.raises(psycopg.Error) as error:
        rows_read(busy.member, "cancel_job", job_id=str(uuid.uuid4()))
    assert error.value.sqlstate == "SJ200"


FENCE = "job_id => %s, attempt => %s, lease_token => %s"
READS_EVENTS = {"job_events_of_job"}  # what is broadcast after the move
ONE_ROW = {
    "id_is_unique_among_jobs",
    "jobs_in_flight",
}  # few jobs are in flight, so the second finds one as fast
ARBITERS = {
    "id_is_unique_among_jobs",
    "idempotency_key_is_unique_among_jobs",
}  # what an insert asks before it makes a row


HOT = [
    ("worker", "select * from public.claim_jobs(max_jobs => 10)", {"jobs_ready", "id_is_unique_among_jobs"}),
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
    ("member", "select * from public.enqueue_job('test.job', executor_id => 'hand', job_id => %s)", ARBITERS),
    ("member", "select * from public.enqueue_job('test.job', idempotency_key => 'known')", ARBITERS),
]  # who asks what, and which indexes it may take


@pytest.fixture(params=["analyzed", "never analyzed"])
def statistics(busy: Workspace, request: pytest.FixtureRequest) -> Iterator[None]:
    """What Postgres knows of the tables. A queue that has just been filled is not analyzed for a minute, in which nothing may be slow."""
    if request.param == "analyzed":
        yield
        return
    tables = "in ('public.jobs'::regclass, 'public.job_events'::regclass)"
    busy.server.run(f"delete from pg_statistic where starelid {tables}")
    busy.server.run(f"update pg_class set relpages = 0, reltuples = -1 where oid {tables}")
    yield
    busy.server.run(ANALYZE)


@pytest.mark.usefixtures("statistics")
def test_every_hot_query_uses_its_index_and_reads_no_table_from_end_to_end(
    busy: Workspace, held: Row
) -> None:
    busy.enqueue(idempotency_key="known")
    busy.expire(str(held["id"]))
    for who, query, may_use in HOT:
        getattr(busy, who).run("discard plans")
        values = [held["id"], held["attempt"], held["lease_token"]][: query.count("%s")]
        used, read_whole = indexes_used(getattr(busy, who), query, *values)
        assert read_whole == set(), query
        assert used & may_use, query
        assert used <= may_use | READS_EVENTS, query
        assert "claim" not in query or "jobs_ready" in used


def test_a_table_that_is_read_whole_is_seen(busy: Workspace) -> None:
    _, read_whole = indexes_used(busy.server, "select count(*) from public.jobs where payload <> '{}'")
    assert read_whole == {"jobs"}
