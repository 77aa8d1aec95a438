"""No member harms a workspace, and no workspace the project, by writing much: bounds on rows, keys that are kept free, rights that can
be given up, and an audit log that holds changes alone."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.database.callers import Caller, Workspace, lease


def refusal(call: Callable[[], object]) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as error:
        call()
    return error.value.sqlstate, error.value.diag.message_primary or ""


# Bounds on rows


def limits(first: int, last: int) -> str:
    return (
        "insert into public.job_limits (type_prefix, max_running)"
        f" select 't' || n, 1 from generate_series({first}, {last}) as n"
    )


def schedules(first: int, last: int) -> str:
    return (
        "insert into public.schedules (name, cron, type)"
        f" select 's' || n, '@daily', 'test.job' from generate_series({first}, {last}) as n"
    )


def pauses(first: int, last: int) -> str:
    return f"select public.pause_executor('e' || n) from generate_series({first}, {last}) as n"


@pytest.mark.parametrize(
    ("insert", "table", "most"),
    [(limits, "job_limits", 500), (schedules, "schedules", 1000), (pauses, "paused_executors", 1000)],
)
def test_a_workspace_has_a_bounded_number_of_them(
    workspace: Workspace, other_workspace: Workspace, insert: Callable[[int, int], str], table: str, most: int
) -> None:
    said = ("SJ103", f"{table}: a workspace has at most {most}")
    assert refusal(lambda: workspace.owner.run(insert(0, most))) == said
    workspace.owner.run(insert(1, most))
    assert refusal(lambda: workspace.owner.run(insert(0, 0))) == said
    other_workspace.owner.run(insert(0, 0))
    (counted,) = workspace.viewer.rows(f"select count(*) from public.{table}")
    assert counted["count"] == most


def test_of_two_who_add_the_last_one_at_once_one_is_refused(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    workspace.owner.run(limits(1, 499))
    second = sign_in(workspace.owner.user_id)
    with workspace.owner.session.transaction():
        workspace.owner.run(limits(500, 500))
        second.run("set lock_timeout = '200ms'")
        assert refusal(lambda: second.run(limits(501, 501)))[0] == "55P03", "it waits for the first"
    assert refusal(lambda: second.run(limits(501, 501)))[0] == "SJ103"


def test_ten_thousand_jobs_wait_for_one(workspace: Workspace) -> None:
    parent = workspace.enqueue()
    children = [workspace.enqueue(depends_on=(parent,)) for _ in range(3)]
    counted = workspace.server.rows(
        "select job_id::text, place from public.job_dependencies where parent_id = %s order by place", parent
    )
    assert [(row["job_id"], row["place"]) for row in counted] == list(zip(children, (1, 2, 3), strict=True))
    workspace.server.run("update public.job_dependencies set place = 9999 where job_id = %s", children[2])
    last = str(uuid.uuid4())
    workspace.enqueue(depends_on=(parent,), job_id=last)
    said = ("SJ103", "depends_on: 10000 jobs wait for this one already")
    assert refusal(lambda: workspace.enqueue(depends_on=(parent,))) == said
    jobs = [{"type": "test.job"}, {"type": "test.job", "depends_on": [parent]}]
    assert refusal(lambda: workspace.member.rpc("enqueue_jobs", jobs=jobs)) == said
    again = workspace.member.call("enqueue_job", type="test.job", depends_on=(parent,), job_id=last)
    assert again["queued"] is False, "a request that is repeated adds nothing"

    workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=True)
    assert workspace.enqueue(depends_on=(parent,)), "one that has ended keeps nobody waiting"


# Keys of schedules


@pytest.mark.parametrize("way", ["enqueue_job", "enqueue_jobs", "once in a while", "a plain insert"])
@pytest.mark.parametrize("who", ["member", "owner"])
def test_nobody_takes_the_key_of_a_schedule(workspace: Workspace, who: str, way: str) -> None:
    (row,) = workspace.owner.rows(
        "insert into public.schedules (name, cron, type) values ('s', '@hourly', 'test.job') returning id"
    )
    slot = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    key = f"cron:{row['id']}:{slot:%Y-%m-%dT%H:%M:%SZ}"
    caller = getattr(workspace, who)
    ways: dict[str, Callable[[], Any]] = {
        "enqueue_job": lambda: caller.rpc("enqueue_job", type="test.job", idempotency_key=key),
        "enqueue_jobs": lambda: caller.rpc(
            "enqueue_jobs", jobs=[{"type": "test.job"}, {"type": "test.job", "idempotency_key": key}]
        ),
        "once in a while": lambda: caller.rpc(
            "enqueue_job", type="test.job", idempotency_key=key, unique_seconds=60
        ),
        "a plain insert": lambda: caller.run(
            "insert into public.jobs (type, idempotency_key) values ('test.job', %s)", key
        ),
    }
    assert refusal(ways[way]) == (
        "SJ100",
        "idempotency_key: keys that begin with cron: are those of schedules",
    )
    workspace.server.run("update public.schedules set next_run_at = %s where id = %s", slot, row["id"])
    assert workspace.worker.call("run_schedules")["run_schedules"] == 1
    assert workspace.enqueue(idempotency_key="my-cron:1")


# What the queue writes


def test_a_plain_insert_sets_nothing_that_the_queue_writes(workspace: Workspace) -> None:
    """Nothing at all: not even a value that another column starts with."""
    theirs = {"id", "workspace_id", "type", "status", "executor_id", "payload", "priority", "max_attempts", "backoff_seconds",
              "backoff_max_seconds", "next_run_at", "idempotency_key", "trace_id"}  # fmt: skip
    values = {
        "text": ["''", "'job.started'"], "sidejob.agent_id": ["'a'"], "uuid": ["gen_random_uuid()"], "bytea": ["''"],
        "integer": ["0", "1", "7"], "boolean": ["true"], "timestamp with time zone": ["now()", "clock_timestamp()", "'-infinity'"],
        "jsonb": ["'{}'", "'0'", "'false'", "'null'", "to_jsonb(now())"],
    }  # fmt: skip
    values |= {f"sidejob.{name}": values["jsonb"] for name in ("result", "error", "progress", "checkpoint")}
    columns = workspace.server.rows(
        "select a.attname as name, a.atttypid::regtype::text as type, pg_get_expr(d.adbin, d.adrelid) as starts_as from pg_attribute a"
        " left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum"
        " where a.attrelid = 'public.jobs'::regclass and a.attnum > 0 and not a.attisdropped"
    )
    tried = 0
    for column in columns:
        if column["name"] in theirs:
            continue
        for value in values[column["type"]]:
            if value != column["starts_as"]:
                query = f"insert into public.jobs (type, {column['name']}) values ('test.job', {value})"
                said = ("SJ101", f"{column['name']}: this column is written by the queue alone")
                assert refusal(lambda query=query: workspace.member.run(query)) == said, query  # type: ignore[misc]
                tried += 1
    assert tried > 40


def test_a_column_that_a_project_added_is_its_own(workspace: Workspace) -> None:
    with workspace.server.session.transaction(force_rollback=True):
        workspace.server.run(
            "alter table public.jobs add column cost_centre text default 'none', add column seen int default 5"
        )
        workspace.server.run("select set_config('request.jwt.claim.sub', %s, true)", workspace.member.user_id)
        workspace.server.run("set local role authenticated")
        workspace.server.run("insert into public.jobs (type) values ('test.job')")
        workspace.server.run(
            "insert into public.jobs (type, trace_id, cost_centre) values ('test.job', %s, 'x')", "0" * 32
        )


# Equal requests


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "1.0"), ("1.50", "1.5"), ("100", "1e2"), ("0", "-0"), ("-0.10", "-0.1"), ("1.050", "1.05"), ("10", "10.000"),
        ('[1.0, {"b": 2.50, "a": "x"}]', '[1, {"a": "x", "b": 2.5}]'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["unique_seconds => 60", "idempotency_key => 'k'"])
def test_a_number_is_the_same_however_it_is_written(
    workspace: Workspace, first: str, second: str, how: str
) -> None:
    asked = [
        workspace.member.rows(
            f"select * from public.enqueue_job('a', %s::jsonb, {how})", f'{{"n": {number}}}'
        )[0]
        for number in (first, second)
    ]
    assert [answer["queued"] for answer in asked] == [True, False]
    assert asked[0]["job_id"] == asked[1]["job_id"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "10"), ("1.05", "1.5"), ("1.005", "1.5"), ('"1.0"', '"1"'), ('"1.0"', "1"), ('"a.00]"', '"a]"'),
        ('"\\".00,"', '"\\","'), ('{".0": 1}', '{"": 1}'), ('["1.50]"]', '["1.5]"]'), ("100", "1"),
    ],
)  # fmt: skip
def test_what_only_looks_like_an_equal_number_is_another_request(
    workspace: Workspace, first: str, second: str
) -> None:
    for value in (first, second):
        (answer,) = workspace.member.rows(
            "select * from public.enqueue_job('a', %s::jsonb, unique_seconds => 60)",
            f'{{"n": [{value}, 2.0]}}',
        )
        assert answer["queued"]


# Artifacts


def made(workspace: Workspace, job: Any, name: str) -> dict[str, Any]:
    path = f"{workspace.id}/2026/01/01/{job['id']}/{job['attempt']}/{uuid.uuid4()}"
    return {"name": name, "size": 1, "path": path}


@pytest.mark.parametrize("call", ["finish_job", "finish_jobs", "finish_and_claim"])
def test_a_report_names_each_file_once(workspace: Workspace, call: str) -> None:
    """Two rows of one name were SQLSTATE 21000, which is repeated for ever."""
    job_id = workspace.enqueue()
    job = workspace.worker.claim()

    def report(*names: str) -> None:
        arguments = {**lease(job), "ok": True, "artifacts": [made(workspace, job, name) for name in names]}
        if call != "finish_job":
            arguments = {"reports": json.loads(json.dumps([arguments], default=str))}
        workspace.worker.rpc(call, **arguments)

    with pytest.raises(psycopg.Error) as error:
        report("a.png", "b.png", "a.png")
    assert error.value.sqlstate == "SJ100"
    assert error.value.diag.message_primary == 'artifacts: two of them have the name "a.png"'
    assert '"a.png"' in (error.value.diag.message_hint or "")
    assert workspace.job(job_id)["status"] == "assigned", "nothing was written"
    report("a.png", "b.png")
    assert workspace.job(job_id)["status"] == "succeeded"


def test_a_file_that_cannot_be_read_is_named(workspace: Workspace) -> None:
    workspace.enqueue()
    job = workspace.worker.claim()
    files = [made(workspace, job, "a"), {**made(workspace, job, "b"), "size": "big"}]
    state, said = refusal(lambda: workspace.worker.call("finish_job", **lease(job), ok=True, artifacts=files))
    assert (state, said) == ("SJ100", 'artifacts[1].size: invalid input syntax for type bigint: "big"')
    state, said = refusal(lambda: workspace.worker.call("finish_job", **lease(job), ok=True, artifacts=[1]))
    assert (state, said) == ("SJ100", "artifacts[0]: must be an object")


ADDRESSES = [
    "https://example.com/a.png",
    "http://a",
    "HTTPS://example.com:8443/a?b=c#d",
    "https://[2001:db8::1]/a",
    "https://例え.jp/",
]
NO_ADDRESSES = [
    "javascript:alert(1)", "JavaScript:alert(1)", " https://example.com", "data:text/html,<script>", "//example.com/a", "/a", "", "a",
    "https:/example.com", "https://", "https:///a", "ftp://example.com/a", "vbscript:x", "blob:https://example.com/1",
    "https://example.com/a\nb", "java\tscript:alert(1)", 'https://example.com/"onclick="x', "https://example.com/<script>",
    "https://example.com\\@evil.example", "file:///etc/passwd", "https://example.com/" + "a" * 2048,
]  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES + NO_ADDRESSES)
def test_an_address_of_a_file_is_one_that_a_page_may_link_to(workspace: Workspace, url: str) -> None:
    workspace.enqueue()
    job = workspace.worker.claim()
    row = {**made(workspace, job, "a.png"), "url": url, "job_id": job["id"]}

    def insert() -> int:
        return workspace.worker.run(
            "insert into public.artifacts (job_id, name, size, path, url) values (%(job_id)s, %(name)s, 1, %(path)s, %(url)s)"
            .replace("%(job_id)s", "%s").replace("%(name)s", "%s").replace("%(path)s", "%s").replace("%(url)s", "%s"),
            row["job_id"], row["name"], row["path"], row["url"],
        )  # fmt: skip

    if url in ADDRESSES:
        assert insert() == 1
    else:
        with pytest.raises(psycopg.errors.CheckViolation) as error:
            insert()
        assert error.value.diag.constraint_name == "url_is_an_address_of_http_or_https"


# The audit log, and leaving


def actions(workspace: Workspace) -> list[str]:
    return [
        row["action"]
        for row in workspace.server.rows(
            "select action from public.audit_log where workspace_id = %s order by id", workspace.id
        )
    ]


def test_choosing_a_default_workspace_leaves_no_trace(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    member = workspace.member
    other_workspace.server.run(
        "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, 'member')",
        other_workspace.id,
        member.user_id,
    )
    before = actions(workspace), actions(other_workspace)
    version = "select xmin::text from public.workspace_members where user_id = %s order by workspace_id"
    rows = workspace.server.rows(version, member.user_id)
    member.rpc("set_default_workspace", workspace_id=workspace.id)
    assert workspace.server.rows(version, member.user_id) == rows, "the same choice writes nothing"
    for _ in range(3):
        member.rpc("set_default_workspace", workspace_id=other_workspace.id)
        member.rpc("set_default_workspace", workspace_id=workspace.id)
    assert (actions(workspace), actions(other_workspace)) == before


def test_a_change_that_changes_nothing_is_not_audited(workspace: Workspace) -> None:
    owner, member = workspace.owner, workspace.member
    owner.run(schedules(1, 1))
    owner.run(limits(1, 1))
    owner.rpc("pause_executor", executor_id="default", reason="r")
    before = actions(workspace)
    owner.run("update public.workspace_members set role = 'member' where user_id = %s", member.user_id)
    owner.run("update public.workspaces set name = name")
    owner.run("update public.schedules set enabled = true, payload = payload")
    owner.run("update public.job_limits set max_running = max_running")
    owner.rpc("pause_executor", executor_id="default", reason="r")
    assert actions(workspace) == before
    owner.run("update public.workspace_members set role = 'viewer' where user_id = %s", member.user_id)
    owner.run("update public.schedules set enabled = false")
    assert actions(workspace) == [*before, "workspace_members.update", "schedules.update"]


LEAVE = "delete from public.workspace_members where user_id = auth.uid() and workspace_id = %s"


def test_somebody_who_was_added_can_leave_and_keeps_their_default(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    person = workspace.member
    other_workspace.owner.run(
        "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, 'viewer')",
        other_workspace.id,
        person.user_id,
    )
    assert [row["id"] for row in person.rows("select sidejob.my_default_workspace()::text as id")] == [
        workspace.id
    ]
    assert person.run(LEAVE, other_workspace.id) == 1
    assert [str(row["id"]) for row in person.rows("select id from public.workspaces")] == [workspace.id]


def test_a_worker_cannot_leave_and_nobody_removes_others(workspace: Workspace) -> None:
    assert workspace.worker.run(LEAVE, workspace.id) == 0
    removed = workspace.member.run(
        "delete from public.workspace_members where user_id = %s", workspace.viewer.user_id
    )
    assert removed == 0


def test_the_last_owner_stays(workspace: Workspace) -> None:
    first, second = workspace.owner, workspace.owner2
    workspace.member  # noqa: B018 - somebody who would be left behind
    demote = "update public.workspace_members set role = 'member' where user_id = %s"
    said = ("SJ306", "role: this is the last owner of the workspace")
    assert refusal(lambda: first.run("delete from public.workspace_members where role <> 'worker'")) == said
    assert second.run(LEAVE, workspace.id) == 1
    assert refusal(lambda: first.run(LEAVE, workspace.id)) == said
    assert refusal(lambda: first.run(demote, first.user_id)) == said
    assert (
        first.run(
            "update public.workspace_members set role = 'owner' where user_id = %s", workspace.member.user_id
        )
        == 1
    )
    assert first.run(demote, first.user_id) == 1


def test_of_two_owners_who_leave_at_once_one_stays(workspace: Workspace) -> None:
    first, second = workspace.owner, workspace.owner2
    with first.session.transaction():
        first.run(LEAVE, workspace.id)
        second.run("set lock_timeout = '200ms'")
        assert refusal(lambda: second.run(LEAVE, workspace.id))[0] == "55P03", "it waits for the first"
    assert refusal(lambda: second.run(LEAVE, workspace.id))[0] == "SJ306"


def test_the_project_may_remove_anybody(workspace: Workspace) -> None:
    assert workspace.server.run("delete from auth.users where id = %s", workspace.owner.user_id) == 1
    assert (
        workspace.server.run("delete from public.workspace_members where workspace_id = %s", workspace.id)
        == 0
    )
