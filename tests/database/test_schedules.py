"""Schedules: who makes them, and how a slot becomes a job exactly once."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database.callers import Caller, Row, Workspace

EVERY_MINUTE = "* * * * *"
LEAP_DAY = "0 0 29 2 *"


def make(workspace: Workspace, cron: str = EVERY_MINUTE, name: str = "nightly", **columns: Any) -> Row:
    """A schedule that an owner makes, as over REST."""
    columns = {"name": name, "cron": cron, "type": "test.job", **columns}
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    (row,) = workspace.owner.rows(
        f"insert into public.schedules ({', '.join(columns)}) values ({', '.join(['%s'] * len(values))}) returning *",
        *values,
    )
    return row


def schedule(workspace: Workspace, name: str = "nightly") -> Row:
    (row,) = workspace.server.rows(
        "select * from public.schedules where workspace_id = %s and name = %s", workspace.id, name
    )
    return row


def put_off_since(workspace: Workspace, first_slot: datetime) -> None:
    """As if nobody had swept since then."""
    workspace.server.run(
        "update public.schedules set next_run_at = %s where workspace_id = %s", first_slot, workspace.id
    )


def sweep(caller: Caller, **arguments: int) -> int:
    made: int = caller.call("run_schedules", **arguments)["run_schedules"]
    return made


def jobs(workspace: Workspace) -> list[Row]:
    return workspace.server.rows(
        "select * from public.jobs where workspace_id = %s order by idempotency_key", workspace.id
    )


def slots(workspace: Workspace) -> list[datetime]:
    """The slots of all jobs so far, out of their keys."""
    return [datetime.fromisoformat(job["idempotency_key"].split(":", 2)[2]) for job in jobs(workspace)]


def this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def at_this_time_of_day(minutes_ago: int) -> tuple[str, datetime]:
    """A daily line whose last slot was so many minutes ago, and that slot."""
    last = this_minute() - timedelta(minutes=minutes_ago)
    return f"{last.minute} {last.hour} * * *", last


@pytest.fixture
def workspace(workspace: Workspace) -> Iterator[Workspace]:
    """Its schedules end with the test, or later tests would sweep them."""
    yield workspace
    workspace.server.run("delete from public.schedules where workspace_id = %s", workspace.id)


@pytest.fixture
def other_workspace(other_workspace: Workspace) -> Iterator[Workspace]:
    yield other_workspace
    other_workspace.server.run("delete from public.schedules where workspace_id = %s", other_workspace.id)


def test_an_owner_makes_a_schedule_and_the_database_fills_in_the_rest(workspace: Workspace) -> None:
    row = make(workspace, "30 7 * * *", timezone="Europe/Berlin")
    (expected,) = workspace.server.rows(
        "select sidejob.cron_next('30 7 * * *', 'Europe/Berlin', now()) as slot"
    )
    assert row["next_run_at"] == expected["slot"]
    assert (str(row["workspace_id"]), str(row["created_by"])) == (workspace.id, workspace.owner.user_id)
    assert (row["enabled"], row["missed"], row["executor_id"], row["last_run_at"], row["last_job_id"]) == (
        True,
        "run_once",
        "default",
        None,
        None,
    )


@pytest.mark.parametrize("who", ["viewer", "member", "worker"])
def test_others_of_the_workspace_see_schedules_and_change_none(workspace: Workspace, who: str) -> None:
    make(workspace)
    caller = getattr(workspace, who)
    assert len(caller.rows("select * from public.schedules")) == 1
    assert caller.run("update public.schedules set enabled = false") == 0
    assert caller.run("delete from public.schedules") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        caller.run(
            "insert into public.schedules (workspace_id, name, cron, type) values (%s, 'x', '@daily', 'test.job')",
            workspace.id,
        )


def test_an_owner_reaches_no_other_workspace(workspace: Workspace, other_workspace: Workspace) -> None:
    make(other_workspace)
    assert workspace.owner.rows("select * from public.schedules") == []
    assert workspace.owner.run("update public.schedules set enabled = false") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        make(workspace, workspace_id=other_workspace.id)
    make(workspace)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        workspace.owner.run("update public.schedules set workspace_id = %s", other_workspace.id)


@pytest.mark.parametrize(
    "column", ["next_run_at", "last_job_id", "created_by", "disabled_reason", "last_error"]
)
def test_what_the_queue_writes_is_not_the_owners_to_write(workspace: Workspace, column: str) -> None:
    make(workspace)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        make(workspace, EVERY_MINUTE, "second", **{column: None})
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        workspace.owner.run(f"update public.schedules set {column} = null")


@pytest.mark.parametrize(
    ("columns", "state", "says"),
    [
        ({"cron": "0 0 30 2 *"}, "SJ100", 'cron: "0 0 30 2 *" never fires'),
        ({"cron": "61 * * * *"}, "SJ100", "cron: minute: "),
        ({"timezone": "Mars/Olympus"}, "SJ100", "timezone: "),
        ({"missed": "maybe"}, "23514", "missed_is_known"),
        ({"type": "no spaces"}, "23514", "type_is_a_short_name"),
        ({"name": ""}, "23514", "name_is_1_to_100_characters"),
        ({"name": "nightly"}, "23505", "name_is_unique_among_schedules"),
    ],
)
def test_a_schedule_that_could_not_run_is_refused(
    workspace: Workspace, columns: dict[str, str], state: str, says: str
) -> None:
    make(workspace)
    with pytest.raises(psycopg.Error) as error:
        make(workspace, **{"name": "second", **columns})
    assert error.value.sqlstate == state
    assert says in str(error.value)


def test_another_line_or_zone_counts_from_now_on_and_nothing_else_does(workspace: Workspace) -> None:
    make(workspace, "0 12 1 1 *")
    new_year = schedule(workspace)["next_run_at"]
    workspace.owner.run("update public.schedules set priority = 3, cron = cron")
    assert schedule(workspace)["next_run_at"] == new_year
    workspace.owner.run("update public.schedules set timezone = 'Asia/Kolkata'")
    assert schedule(workspace)["next_run_at"] == new_year - timedelta(hours=5, minutes=30)
    with pytest.raises(psycopg.Error, match="never fires"):
        workspace.owner.run("update public.schedules set cron = '0 0 31 6 *'")


def test_a_due_slot_becomes_one_job_with_all_that_the_schedule_says(workspace: Workspace) -> None:
    line, last = at_this_time_of_day(minutes_ago=2)
    made = make(
        workspace, line, payload={"n": 1}, executor_id="night", priority=4, max_attempts=1, type="browser.pdf"
    )
    assert sweep(workspace.worker) == 0, "its first slot is tomorrow"
    put_off_since(workspace, last)

    assert (sweep(workspace.worker), sweep(workspace.worker)) == (1, 0)
    (job,) = jobs(workspace)
    assert (job["type"], job["payload"], job["executor_id"], job["priority"], job["max_attempts"]) == (
        "browser.pdf",
        {"n": 1},
        "night",
        4,
        1,
    )
    assert job["idempotency_key"] == f"cron:{made['id']}:{last:%Y-%m-%dT%H:%M:%SZ}"
    assert str(job["created_by"]) == workspace.owner.user_id
    assert workspace.events(str(job["id"])) == ["queued"]
    row = schedule(workspace)
    assert (row["last_job_id"], row["last_run_at"], row["next_run_at"]) == (
        job["id"],
        last,
        last + timedelta(days=1),
    )
    assert row["updated_at"] == made["updated_at"], "a run is not a change"


@pytest.mark.parametrize(
    ("missed", "minutes_ago", "expected"),
    [("skip", 2, 1), ("skip", 30, 0), ("run_once", 30, 1), ("run_all", 30, 3)],
)
def test_missed_slots_are_dealt_with_as_the_schedule_says(
    workspace: Workspace, missed: str, minutes_ago: int, expected: int
) -> None:
    line, last = at_this_time_of_day(minutes_ago)
    make(workspace, line, missed=missed)
    put_off_since(workspace, last - timedelta(days=2))
    assert (sweep(workspace.worker), sweep(workspace.worker)) == (expected, 0)
    assert slots(workspace) == [last - timedelta(days=n) for n in reversed(range(expected))]
    assert schedule(workspace)["next_run_at"] == last + timedelta(days=1)


def test_of_a_year_of_missed_minutes_the_last_hundred_are_run(workspace: Workspace) -> None:
    make(workspace, missed="run_all")
    put_off_since(workspace, this_minute() - timedelta(days=365))
    with workspace.worker.session.transaction():
        workspace.worker.run("set local statement_timeout = '5s'")
        before = this_minute()
        assert sweep(workspace.worker) == 100
    last = slots(workspace)[-1]
    assert before <= last <= this_minute()
    assert slots(workspace) == [last - timedelta(minutes=n) for n in reversed(range(100))]


def test_what_one_sweep_leaves_the_next_one_makes(workspace: Workspace) -> None:
    line, last = at_this_time_of_day(minutes_ago=30)
    make(workspace, line, missed="run_all")
    put_off_since(workspace, last - timedelta(days=4))
    assert [sweep(workspace.worker, max_runs=2) for _ in range(4)] == [2, 2, 1, 0]
    assert slots(workspace) == [last - timedelta(days=n) for n in reversed(range(5))]


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("run_once", 1)])
def test_a_disabled_schedule_rests_and_comes_back_to_what_it_missed(
    workspace: Workspace, missed: str, expected: int
) -> None:
    line, last = at_this_time_of_day(minutes_ago=30)
    make(workspace, line, missed=missed, enabled=False)
    put_off_since(workspace, last - timedelta(days=2))
    assert sweep(workspace.worker) == 0
    workspace.owner.run("update public.schedules set enabled = true")
    assert sweep(workspace.worker) == expected
    assert schedule(workspace)["next_run_at"] == last + timedelta(days=1)


@pytest.mark.parametrize(
    "departure",
    [
        "delete from public.workspace_members where user_id = %s",
        "update public.workspace_members set role = 'viewer' where user_id = %s",
        "delete from auth.users where id = %s",
    ],
)
def test_a_schedule_whose_creator_has_left_is_disabled_and_says_so(
    workspace: Workspace, departure: str
) -> None:
    make(workspace)
    put_off_since(workspace, this_minute())
    workspace.server.run(departure, workspace.owner.user_id)

    assert sweep(workspace.worker) == 0
    row = schedule(workspace)
    assert row["enabled"] is False
    assert "no longer a member" in row["disabled_reason"]

    successor = workspace.owner2
    successor.run("update public.schedules set enabled = true")
    assert sweep(workspace.worker) == 1
    row = schedule(workspace)
    assert (row["disabled_reason"], str(row["created_by"])) == (None, successor.user_id)
    assert str(jobs(workspace)[0]["created_by"]) == successor.user_id


def test_a_creator_who_became_a_member_keeps_his_schedule(workspace: Workspace) -> None:
    make(workspace)
    put_off_since(workspace, this_minute())
    workspace.server.run(
        "update public.workspace_members set role = 'member' where user_id = %s", workspace.owner.user_id
    )
    assert sweep(workspace.worker) == 1


def test_one_made_by_the_server_runs_in_nobodys_name(workspace: Workspace) -> None:
    workspace.server.run(
        "insert into public.schedules (workspace_id, name, cron, type) values (%s, 'nightly', %s, 'test.job')",
        workspace.id,
        EVERY_MINUTE,
    )
    put_off_since(workspace, this_minute())
    assert sweep(workspace.worker) == 1
    assert jobs(workspace)[0]["created_by"] is None


def test_broken_schedules_do_not_stop_the_others_and_run_when_they_are_mended(workspace: Workspace) -> None:
    for n in range(3):
        make(workspace, name=f"broken {n}")
    workspace.server.run(
        "set session_replication_role = replica"
    )  # no trigger: as if the zone had been removed
    workspace.server.run(
        "update public.schedules set timezone = 'Gone/Away' where workspace_id = %s", workspace.id
    )
    workspace.server.run("set session_replication_role = origin")
    make(workspace)
    put_off_since(workspace, this_minute() - timedelta(minutes=1))
    workspace.server.run(
        "update public.schedules set next_run_at = next_run_at + interval '1 minute' where workspace_id = %s and name = 'nightly'",
        workspace.id,
    )

    assert sweep(workspace.worker, max_runs=1) == 1
    assert schedule(workspace)["last_error"] is None
    broken = schedule(workspace, "broken 0")
    assert broken["last_error"].startswith('timezone: "Gone/Away"')
    assert broken["enabled"]

    workspace.owner.run("update public.schedules set timezone = 'UTC' where name like 'broken %%'")
    assert schedule(workspace, "broken 0")["last_error"] is None
    put_off_since(workspace, this_minute())
    assert sweep(workspace.worker) >= 3


def test_a_failure_takes_back_the_jobs_of_its_schedule_alone(workspace: Workspace) -> None:
    """The queue itself may refuse a job, half-way through the slots of a schedule."""
    line, last = at_this_time_of_day(minutes_ago=30)
    refused = make(workspace, line, "refused", missed="run_all")
    make(workspace, line, missed="run_all")
    put_off_since(workspace, last - timedelta(days=2))
    with workspace.server.session.transaction(force_rollback=True):
        workspace.server.run(
            "create function sidejob.refuse_in_test() returns trigger language plpgsql as $$"
            " begin raise 'no room for %%', new.idempotency_key; end $$"
        )
        workspace.server.run(
            "create trigger jobs_refuse_in_test before insert on public.jobs for each row"
            f" when (new.idempotency_key = 'cron:{refused['id']}:{last - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}')"
            " execute function sidejob.refuse_in_test()"
        )
        assert sweep(workspace.server) >= 3
        assert {job["idempotency_key"].split(":")[1] for job in jobs(workspace)} == {
            str(schedule(workspace)["id"])
        }
        row = schedule(workspace, "refused")
        assert row["last_error"].startswith("no room for cron:")
        assert (row["next_run_at"], row["last_run_at"]) == (last - timedelta(days=2), None)
    assert sweep(workspace.worker) == 6


def test_a_worker_sweeps_his_own_workspaces_and_nobody_else_sweeps(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    make(other_workspace)
    put_off_since(other_workspace, this_minute())
    assert sweep(workspace.worker) == 0
    for who in ("viewer", "member", "owner", "stranger"):
        with pytest.raises(psycopg.Error) as error:
            sweep(getattr(other_workspace, who))
        assert error.value.sqlstate == "SJ201"
    assert sweep(workspace.server) >= 1
    assert len(jobs(other_workspace)) == 1


@pytest.mark.parametrize("max_runs", [0, 1001, None])
def test_max_runs_has_bounds(workspace: Workspace, max_runs: int | None) -> None:
    with pytest.raises(psycopg.Error, match="max_runs") as error:
        workspace.worker.rpc("run_schedules", max_runs=max_runs)
    assert error.value.sqlstate == "SJ100"


def test_a_slot_that_already_has_its_job_makes_no_second_one(workspace: Workspace) -> None:
    line, last = at_this_time_of_day(minutes_ago=2)
    make(workspace, line)
    put_off_since(workspace, last)
    assert sweep(workspace.worker) == 1
    put_off_since(workspace, last)  # as a restored backup would
    assert sweep(workspace.worker) == 0
    assert len(jobs(workspace)) == 1
    assert schedule(workspace)["next_run_at"] == last + timedelta(days=1)


def test_sweeps_at_the_same_time_run_each_slot_once(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    schedules, days, callers = 20, 10, 8
    line, last = at_this_time_of_day(minutes_ago=30)
    for n in range(schedules):
        make(workspace, line, f"schedule {n}", missed="run_all")
    put_off_since(workspace, last - timedelta(days=days - 1))
    sweepers = [
        sign_in(workspace.worker.user_id if n % 2 else workspace.worker2.user_id) for n in range(callers)
    ]
    made: Counter[int] = Counter()
    failures: list[Exception] = []
    start = threading.Barrier(callers)

    def sweep_to_the_end(n: int) -> None:
        try:
            start.wait()
            while count := sweep(sweepers[n], max_runs=7):
                made[n] += count
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which fails the test with it
            failures.append(error)

    threads = [threading.Thread(target=sweep_to_the_end, args=(n,)) for n in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "somebody waits for ever"

    assert failures == []
    made[callers] = sweep(workspace.worker, max_runs=1000)  # what a sweep passed over while another held it
    assert made.total() == len(jobs(workspace)) == schedules * days
    assert set(Counter(slots(workspace)).values()) == {schedules}


def test_a_schedule_in_another_hand_is_passed_over_and_not_waited_for(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    make(workspace, LEAP_DAY, "held")
    make(workspace, LEAP_DAY, "free")
    put_off_since(workspace, this_minute().replace(year=2024, month=2, day=29, hour=0, minute=0))
    second = sign_in(workspace.worker.user_id)
    with workspace.server.session.transaction():
        workspace.server.run(
            "select from public.schedules where name = 'held' and workspace_id = %s for update", workspace.id
        )
        second.run("set lock_timeout = '1s'")
        assert sweep(second) == 1
        assert schedule(workspace, "free")["last_job_id"] is not None
    assert sweep(second) == 1


def test_changes_are_audited_and_runs_are_not(workspace: Workspace) -> None:
    make(workspace)
    workspace.owner.run("update public.schedules set priority = 2")
    put_off_since(workspace, this_minute())
    assert sweep(workspace.worker) == 1
    workspace.owner.run("delete from public.schedules")
    lines = workspace.member.rows(
        "select action, actor_id::text from public.audit_log where action like 'schedules.%%' order by id"
    )
    assert [line["action"] for line in lines] == ["schedules.insert", "schedules.update", "schedules.delete"]
    assert {line["actor_id"] for line in lines} == {workspace.owner.user_id}
    assert len(jobs(workspace)) == 1, "a schedule's jobs outlive it"


def test_every_column_and_policy_is_documented(server: Caller) -> None:
    text = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.MULTILINE))
    columns = {
        row["column_name"]: row["column_default"]
        for row in server.rows(
            "select column_name, column_default from information_schema.columns"
            " where table_schema = 'public' and table_name = 'schedules' order by ordinal_position"
        )
    }
    (known,) = server.rows(
        "select pg_get_constraintdef(oid) as rule from pg_constraint where conname = 'missed_is_known'"
    )
    policies = re.findall(r"'(\w+)'", known["rule"])
    assert [*documented] == [*columns, *policies]
    for column, default in columns.items():
        if documented[column].startswith("`"):
            assert documented[column].strip("`") == str(default).split("::")[0].strip("'"), column
