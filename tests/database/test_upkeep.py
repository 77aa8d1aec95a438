"""The upkeep's calls are bounded, give each workspace its share, and one workspace's failure is not the others'."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.database.callers import Caller, Workspace
from tests.database.test_settling import join
from tests.database.test_tending import ended

CALLS = {
    "release_expired_leases": "max_jobs",
    "settle_dependencies": "max_jobs",
    "run_schedules": "max_runs",
    "remove_old_jobs": "max_jobs",
    "remove_leftovers": "max_rows",
}


@pytest.fixture
def both(workspace: Workspace, other_workspace: Workspace) -> Iterator[Caller]:
    """A worker of two workspaces."""
    join(other_workspace, workspace.worker)
    yield workspace.worker
    for home in (workspace, other_workspace):
        workspace.server.run("delete from public.schedules where workspace_id = %s", home.id)


def expired(workspace: Workspace, count: int) -> list[str]:
    executor = str(uuid.uuid4())
    job_ids = [workspace.enqueue(executor_id=executor) for _ in range(count)]
    workspace.worker9.rpc("claim_jobs", executor_id=executor, max_jobs=count)
    for job_id in job_ids:
        workspace.expire(job_id)
    return job_ids


def statuses(workspace: Workspace, job_ids: list[str]) -> list[str]:
    return [str(workspace.job(job_id)["status"]) for job_id in job_ids]


def test_expired_leases_of_one_workspace_do_not_wait_behind_those_of_another(
    workspace: Workspace, other_workspace: Workspace, both: Caller
) -> None:
    many = expired(workspace, 20)
    for _ in range(5):  # in an order that chance decides
        one = expired(other_workspace, 1)
        before = statuses(workspace, many).count("queued")
        assert both.call("release_expired_leases", max_jobs=2)["release_expired_leases"] == 2
        assert statuses(other_workspace, one) == ["queued"]
        assert statuses(workspace, many).count("queued") == before + 1
    assert both.call("release_expired_leases", max_jobs=100)["release_expired_leases"] == 15


def test_old_jobs_of_one_workspace_do_not_wait_behind_those_of_another(
    workspace: Workspace, other_workspace: Workspace, both: Caller
) -> None:
    many = [ended(workspace, 40) for _ in range(10)]
    for kept in (9, 8, 7, 6, 5):  # in an order that chance decides
        one = ended(other_workspace, 31)
        assert both.call("remove_old_jobs", max_jobs=2)["remove_old_jobs"] == 2
        assert other_workspace.server.rows("select id from public.jobs where id = %s", one) == []
        (left,) = workspace.server.rows("select count(*) from public.jobs where id = any(%s::uuid[])", many)
        assert left["count"] == kept
    assert both.call("remove_old_jobs")["remove_old_jobs"] == 5


def plan(workspace: Workspace, count: int, due: str, missed: str = "run_once") -> None:
    """Schedules that are due since then."""
    workspace.server.run(
        "insert into public.schedules (workspace_id, name, cron, type, missed)"
        " select %s, 's' || n, '* * * * *', 'test.job', %s from generate_series(1, %s) n",
        workspace.id, missed, count,
    )  # fmt: skip
    workspace.server.run(
        f"update public.schedules set next_run_at = now() - interval '{due}' where workspace_id = %s",
        workspace.id,
    )


def made(workspace: Workspace) -> int:
    (row,) = workspace.server.rows("select count(*) from public.jobs where workspace_id = %s", workspace.id)
    return int(row["count"])


def test_thousands_of_schedules_of_one_workspace_do_not_keep_another_waiting(
    workspace: Workspace, other_workspace: Workspace, both: Caller
) -> None:
    plan(workspace, 300, "1 hour")
    plan(other_workspace, 2, "1 minute")
    assert both.call("run_schedules", max_runs=4)["run_schedules"] == 4
    assert (made(workspace), made(other_workspace)) == (2, 2)


def test_a_schedule_with_many_missed_slots_leaves_room_for_another_workspaces(
    workspace: Workspace, other_workspace: Workspace, both: Caller
) -> None:
    plan(workspace, 3, "10 days", "run_all")
    for n in range(1, 6):  # in an order that chance decides
        plan(other_workspace, 1, f"{n} minutes")
        before = made(other_workspace)
        assert both.call("run_schedules", max_runs=4)["run_schedules"] >= 3
        assert made(other_workspace) == before + 1
        other_workspace.server.run("delete from public.schedules where workspace_id = %s", other_workspace.id)


def test_schedules_that_fail_do_not_keep_those_of_another_workspace_waiting(
    workspace: Workspace, other_workspace: Workspace, both: Caller
) -> None:
    plan(workspace, 50, "1 hour")
    with workspace.server.session.transaction():
        workspace.server.run("set local session_replication_role = replica")
        workspace.server.run(
            "update public.schedules set timezone = 'Gone/Away', last_error = case when random() < 0.5 then 'x' end where workspace_id = %s",
            workspace.id,
        )
    plan(other_workspace, 2, "1 minute")
    assert both.call("run_schedules", max_runs=2)["run_schedules"] == 2
    assert made(other_workspace) == 2
    assert both.call("run_schedules")["run_schedules"] == 0


def test_a_job_with_very_many_events_is_removed_over_several_slices(workspace: Workspace) -> None:
    job_id, other = ended(workspace, 31), ended(workspace, 31)
    workspace.server.run(
        "insert into public.job_events (job_id, workspace_id, seq, event_type, attempt)"
        " select %s, %s, n, 'job.progress', 1 from generate_series(10, 5009) n",
        job_id, workspace.id,
    )  # fmt: skip
    (few,) = workspace.server.rows("select sidejob.remove_belongings(array[%s]::uuid[], 100) as rows", job_id)
    assert few["rows"] == 100
    assert workspace.worker.call("remove_old_jobs")["remove_old_jobs"] == 2
    (left,) = workspace.server.rows(
        "select count(*) from public.job_events where job_id in (%s, %s)", job_id, other
    )
    assert left["count"] == 0


@pytest.mark.parametrize("call", ["release_expired_leases", "settle_dependencies", "remove_old_jobs"])
def test_a_failure_in_one_workspace_does_not_stop_the_upkeep_of_another(
    workspace: Workspace, other_workspace: Workspace, both: Caller, call: str
) -> None:
    """As when a trigger of the project's own refuses to let its jobs be moved."""

    def work_for(home: Workspace) -> list[str]:
        if call == "release_expired_leases":
            return expired(home, 2)
        if call == "remove_old_jobs":
            return [ended(home, 31)]
        parent = home.enqueue()
        child = home.enqueue(depends_on=(parent,))
        home.member.rows("select set_config('sidejob.settling_room', '0', false)")
        home.member.call("cancel_job", job_id=parent)
        return [child]

    stuck, free = work_for(workspace), work_for(other_workspace)
    before = statuses(workspace, stuck)
    workspace.server.run(
        "create function public.refuse_in_test() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    )
    try:
        workspace.server.run(
            "create trigger refuse_in_test before update or delete on public.jobs for each row"
            f" when (old.workspace_id = '{workspace.id}') execute function public.refuse_in_test()"
        )
        assert both.call(call)[call] == len(free)
    finally:
        workspace.server.run("drop function public.refuse_in_test cascade")
    assert statuses(workspace, stuck) == before
    assert both.call(call)[call] == len(stuck)


@pytest.mark.parametrize(("call", "bound"), CALLS.items())
def test_each_call_has_bounds_and_is_for_workers_and_the_server(
    workspace: Workspace, call: str, bound: str
) -> None:
    for wrong in (0, -1, 10_001, None):
        with pytest.raises(psycopg.Error) as error:
            workspace.worker.rpc(call, **{bound: wrong})
        assert (error.value.sqlstate, bound in str(error.value)) == ("SJ100", True)
    for person in (workspace.viewer, workspace.member, workspace.owner, workspace.stranger):
        with pytest.raises(psycopg.Error) as error:
            person.rpc(call)
        assert error.value.sqlstate == "SJ201"
    assert workspace.worker.call(call)[call] == 0
    assert workspace.server.call(call)[call] >= 0


def test_notes_that_are_over_go_in_slices_and_the_others_stay(workspace: Workspace) -> None:
    home, server = workspace.id, workspace.server

    def notes(age: str) -> None:
        for _ in range(3):
            one = str(uuid.uuid4())
            server.run(
                f"insert into sidejob.unique_requests values (%s, %s, %s, now() - interval '{age}')",
                home, one.encode(), one,
            )  # fmt: skip
            server.run(
                f"insert into sidejob.cancellations values (%s, %s, null, now() - interval '{age}')",
                one, f"w-{home}",
            )  # fmt: skip
            server.run(f"insert into sidejob.wake_ups values (%s, %s, now() - interval '{age}')", home, one)
            server.run(
                "insert into public.worker_heartbeats_v2 (worker_id, agent_id, workspace_id, last_seen)"
                f" values (%s, %s, %s, now() - interval '{age}')",
                one, one, home,
            )  # fmt: skip

    def left() -> list[int]:
        return [
            int(server.rows(f"select count(*) as n from {table} where {column} = %s", value)[0]["n"])
            for table, column, value in (
                ("sidejob.unique_requests", "workspace_id", home),
                ("sidejob.cancellations", "worker_id", f"w-{home}"),
                ("sidejob.wake_ups", "workspace_id", home),
                ("public.worker_heartbeats_v2", "workspace_id", home),
            )
        ]

    while server.call("remove_leftovers")["remove_leftovers"]:
        pass
    notes("8 days")
    notes("-1 minutes")
    assert left() == [6] * 4
    assert workspace.worker.call("remove_leftovers", max_rows=2)["remove_leftovers"] <= 8
    while workspace.worker.call("remove_leftovers", max_rows=2)["remove_leftovers"]:
        pass
    assert left() == [3] * 4


def test_one_worker_of_a_workspace_is_asked_to_sweep_files_an_hour(workspace: Workspace) -> None:
    def asked(caller: Caller) -> bool:
        return bool(caller.call("begin_object_sweep")["begin_object_sweep"])

    assert [asked(workspace.worker), asked(workspace.worker2), asked(workspace.server)] == [
        True,
        False,
        False,
    ]
    workspace.server.run(
        "update sidejob.chores set swept_at = now() - interval '61 minutes' where workspace_id = %s",
        workspace.id,
    )
    assert [asked(workspace.worker2), asked(workspace.worker)] == [True, False]


def test_a_statement_that_may_take_little_time_takes_little_work(workspace: Workspace) -> None:
    """A call begins no slice after a quarter of the statement's time, so that a time-out does not undo all of it."""
    for setting, seconds in (("0", 2.0), ("8s", 2.0), ("500ms", 0.125), ("2min", 2.0)):
        workspace.server.run(f"set statement_timeout = '{setting}'")
        (row,) = workspace.server.rows(
            "select extract(epoch from sidejob.upkeep_ends() - statement_timestamp())::float as left"
        )
        assert row["left"] == seconds
    workspace.server.run("reset statement_timeout")


def test_pg_cron_gets_a_job_for_each_call(workspace: Workspace) -> None:
    """With a stand-in for the extension, which the stack does not have."""
    with workspace.server.session.transaction(force_rollback=True):
        assert workspace.server.rows("select sidejob.use_pg_cron() as used") == [{"used": False}]
        workspace.server.run("create schema cron")
        workspace.server.run("create table cron.job (name text primary key, schedule text, command text)")
        workspace.server.run(
            "create function cron.schedule(name text, schedule text, command text) returns bigint language sql as"
            " $$ insert into cron.job values (name, schedule, command) on conflict do nothing; select 1::bigint $$"
        )
        workspace.server.run(
            "insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)"
            " select 999999, 'pg_cron', 10, 'cron'::regnamespace, false, '1.6'"
        )
        assert workspace.server.rows("select sidejob.use_pg_cron() as used") == [{"used": True}]
        commands = [row["command"] for row in workspace.server.rows("select command from cron.job")]
        for command in commands:
            workspace.server.rows(command)
    assert sorted(command.split("public.")[1].split("(")[0] for command in commands) == sorted(CALLS)


def test_a_cancel_in_a_workers_second_workspace_is_told_too(
    workspace: Workspace, other_workspace: Workspace, both: Caller
) -> None:
    agent = f"a-{uuid.uuid4()}"
    job_ids = [home.enqueue(executor_id="both") for home in (workspace, other_workspace)]
    assert len(both.rpc("claim_jobs", executor_id="both", max_jobs=2, agent_id=agent)) == 2
    for home, job_id in zip((workspace, other_workspace), job_ids, strict=True):
        home.member.call("cancel_job", job_id=job_id)
    cancelled = both.call("worker_heartbeat", agent_id=agent)["cancelled"]
    assert sorted(map(str, cancelled)) == sorted(job_ids)


def test_a_worker_learns_no_name_of_another_workspaces_files(
    workspace: Workspace, other_workspace: Workspace, both: Caller
) -> None:
    homes = [workspace.id, other_workspace.id]
    third = workspace.server.rows("insert into public.workspaces (name) values ('third') returning id::text")[
        0
    ]["id"]
    for home in (*homes, third, "project-file"):
        for n in range(3):
            workspace.server.run(
                "insert into storage.objects (bucket_id, name) values ('artifacts', %s)",
                f"{home}/2026/11/25/{uuid.uuid4()}/1/{n}.png",
            )
    for worker, own in ((both, homes), (other_workspace.worker, homes[1:])):
        names: list[str] = []
        after: str | None = ""
        while after is not None:
            answer = worker.call("objects_to_sweep", after=after, max_objects=1)
            names += [*answer["paths"], *filter(None, [answer["scanned_to"]])]
            after = answer["scanned_to"]
        assert {name.split("/")[0] for name in names} == set(own)
        assert len(set(names)) == 3 * len(own)
