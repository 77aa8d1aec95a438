"""JSON that a caller writes: how deep it may be nested, how long its numbers and its text may be, by whatever way it comes."""

import json
import secrets
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.database.callers import Caller, Row, Workspace, connect, lease

LEVELS, NUMBERS = "have at most 100 levels", "have numbers of at most 400 digits"


def nested(levels: int, text: str = "0") -> str:
    """`text` within so many objects."""
    return '{"a": ' * levels + text + "}" * levels


def beside(number: str, bytes_before: int) -> str:
    """A number behind a long string, so that a value of another size is judged."""
    return json.dumps({"before": "x" * bytes_before})[:-1] + f', "n": [{number}]}}'


TOO_LONG = ["9" * 401, "-" + "9" * 401, "1e400", "-1e400", "1e131071", "-1e131071", "0e-401", "1e-401", "-1e-401", "0e-16383",
            "1." + "0" * 401, "0." + "3" * 401, "7" * 5000]  # fmt: skip
LONG_ENOUGH = ["9" * 400, "-" + "9" * 400, "1e399", "0e-400", "1e-400", "-1e-400", "1." + "0" * 400, "0.5",
               "9" * 400 + "." + "9" * 400]  # fmt: skip
REFUSED = {
    "101 levels": (nested(101), LEVELS),
    "101 lists": ('{"a": ' + "[" * 100 + "]" * 100 + "}", LEVELS),
    "1,500 levels": (nested(1500), LEVELS),
    "10 numbers that are 1 MB as text": ('{"n": [' + ",".join(["1e131071"] * 10) + "]}", NUMBERS),
    "3,000 numbers that are 390 MB as text": ('{"n": [' + ",".join(["1e131071"] * 3000) + "]}", NUMBERS),
    "a long number in the depth": (nested(100, "1e400"), NUMBERS),
    "a number of 5,000 digits": (nested(1, "7" * 5000), NUMBERS),
}


def held(workspace: Workspace) -> Row:
    workspace.enqueue()
    return lease(workspace.worker.claim())


def of_a_report(field: str, call: str) -> Callable[[Workspace, str], Any]:
    def send(workspace: Workspace, text: str) -> Any:
        fence = held(workspace)
        report = json.dumps({**fence, "ok": field != "error"}, default=str)[:-1] + f', "{field}": {text}}}'
        return workspace.worker.rows(f"select * from public.{call}(reports => %s::jsonb)", f"[{report}]")

    return send


def under_a_lease(call: str, field: str, more: str = "") -> Callable[[Workspace, str], Any]:
    def send(workspace: Workspace, text: str) -> Any:
        fence = held(workspace)
        return workspace.worker.rows(
            f"select * from public.{call}(job_id => %s, attempt => %s, lease_token => %s, {field} => %s::jsonb{more})",
            fence["job_id"], fence["attempt"], fence["lease_token"], text,
        )  # fmt: skip

    return send


def change_a_schedule(workspace: Workspace, text: str) -> Any:
    workspace.owner.run("insert into public.schedules (name, cron, type) values ('s', '@daily', 'test.job')")
    return workspace.owner.run("update public.schedules set payload = %s::jsonb", text)


def in_a_list(workspace: Workspace, text: str) -> Any:
    jobs = f'[{{"type": "test.first"}}, {{"type": "test.job", "payload": {text}}}]'
    return workspace.member.rows("select * from public.enqueue_jobs(%s::jsonb)", jobs)


def insert(column: str) -> Callable[[Workspace, str], Any]:
    return lambda workspace, text: workspace.member.run(
        f"insert into public.jobs (type, {column}) values ('test.job', %s::jsonb)", text
    )


WAYS: dict[str, tuple[str, Callable[[Workspace, str], Any]]] = {
    "enqueue_job": ("payload", lambda w, t: w.member.rows("select * from public.enqueue_job('a', %s::jsonb)", t)),
    "enqueue_job, once in a while": (
        "payload",
        lambda w, t: w.member.rows("select * from public.enqueue_job('a', %s::jsonb, unique_seconds => 60)", t),
    ),
    "enqueue_jobs": ("payload", in_a_list),
    "a plain insert": ("payload", insert("payload")),
    "a plain insert of a result": ("result", insert("result")),
    "a plain insert of an error": ("error", insert("error")),
    "a plain insert of progress": ("progress", insert("progress")),
    "a plain insert of a checkpoint": ("checkpoint", insert("checkpoint")),
    "a schedule": (
        "payload",
        lambda w, t: w.owner.run(
            "insert into public.schedules (name, cron, type, payload) values ('s', '@daily', 'test.job', %s::jsonb)", t
        ),
    ),
    "another payload of a schedule": ("payload", change_a_schedule),
    "finish_job": ("result", under_a_lease("finish_job", "result", ", ok => true")),
    "finish_job of a failure": ("error", under_a_lease("finish_job", "error", ", ok => false")),
    "finish_jobs": ("result", of_a_report("result", "finish_jobs")),
    "finish_jobs of a failure": ("error", of_a_report("error", "finish_jobs")),
    "finish_and_claim": ("result", of_a_report("result", "finish_and_claim")),
    "report_progress": ("progress", under_a_lease("report_progress", "progress")),
    "a checkpoint": ("checkpoint", under_a_lease("report_progress", "progress => '{}', checkpoint")),
    "worker_heartbeat": (
        "metrics",
        lambda w, t: w.worker.rows("select * from public.worker_heartbeat(agent_id => %s, metrics => %s::jsonb)", w.id, t),
    ),
}  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("way", WAYS)
def test_what_no_reader_could_read_is_refused_by_whatever_way_it_comes(
    workspace: Workspace, way: str, refused: str
) -> None:
    field, send = WAYS[way]
    text, rule = REFUSED[refused]
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        send(workspace, text)
    said = (error.value.diag.constraint_name or "").replace("_", " ")
    assert said == f"{field} {rule if field == 'metrics' else rule.replace('have', 'has', 1)}"


@pytest.mark.parametrize("way", WAYS)
def test_what_is_just_within_the_bounds_is_taken(workspace: Workspace, way: str) -> None:
    field, send = WAYS[way]
    text = (
        json.dumps({"text": "9" * 5000, "deep": json.loads(nested(99))})[:-1]
        + f', "n": [{", ".join(LONG_ENOUGH)}]}}'
    )
    if way.startswith("a plain insert of"):
        with pytest.raises(psycopg.Error, match=f"{field}: this column is written by the queue alone"):
            send(workspace, text)
    else:
        send(workspace, text)


@pytest.mark.parametrize("way", WAYS)
def test_a_text_that_is_too_long_is_refused(workspace: Workspace, way: str) -> None:
    field, send = WAYS[way]
    text = json.dumps({"a": "x" * 1_048_576})
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        send(workspace, text)
    assert (error.value.diag.constraint_name or "").startswith(f"{field}_is_a")
    assert "_at_most_" in (error.value.diag.constraint_name or "")


def test_a_source_that_its_index_could_not_hold_is_refused(workspace: Workspace) -> None:
    """Characters that no compression shortens, as an index compresses too."""
    source = "".join(chr(0x4E00 + secrets.randbelow(20_000)) for _ in range(501))
    send = under_a_lease("finish_job", "result", ", ok => true")
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        send(workspace, json.dumps({"source": source}))
    assert error.value.diag.constraint_name == "result_source_is_at_most_500_characters"
    send(workspace, json.dumps({"source": source[:500]}))


def test_in_a_list_the_place_is_named(workspace: Workspace) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        in_a_list(workspace, nested(101))
    assert error.value.diag.message_primary == (
        'jobs[1].payload violates check constraint "payload_has_at_most_100_levels"'
    )
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        of_a_report("result", "finish_jobs")(workspace, "1e400")
    assert error.value.diag.message_primary == (
        'reports[0].result violates check constraint "result_has_numbers_of_at_most_400_digits"'
    )


HUGE = "[" + ",".join(["1e131071"] * 9000) + "]"  # 1 GB, were it written out


@pytest.mark.parametrize(
    "field", ["type", "executor_id", "priority", "run_at", "idempotency_key", "job_id", "depends_on"]
)
@pytest.mark.parametrize("value", [HUGE, "1e131071", nested(101)])
def test_no_field_of_a_list_is_written_out_when_it_is_huge(
    workspace: Workspace, field: str, value: str
) -> None:
    with pytest.raises(psycopg.Error) as error:
        workspace.member.rows(
            "select * from public.enqueue_jobs(%s::jsonb)", f'[{{"type": "a"}}, {{"{field}": {value}}}]'
        )
    assert error.value.sqlstate == "SJ100"
    assert (error.value.diag.message_primary or "").startswith(
        f"jobs[1].{field}: must not be longer than 256 KiB, "
    )


@pytest.mark.parametrize("field", ["job_id", "attempt", "lease_token", "ok", "retry_at", "give_up"])
def test_no_field_of_a_report_is_written_out_when_it_is_huge(workspace: Workspace, field: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.rows("select * from public.finish_jobs(%s::jsonb)", f'[{{"{field}": {HUGE}}}]')
    assert error.value.sqlstate == "SJ100"
    assert (error.value.diag.message_primary or "").startswith(f"reports[0].{field}: must not be ")


@pytest.mark.parametrize(
    ("artifacts", "constraint"),
    [
        (f'[{{"name": {HUGE}}}]', "artifacts_have_numbers_of_at_most_400_digits"),
        ("[" * 101 + "]" * 101, "artifacts_have_at_most_100_levels"),
        ("[" + ",".join(["{}"] * 1002) + "]", "artifacts_number_at_most_1001"),
        (json.dumps([{"name": "x" * 2**21}]), "artifacts_take_at_most_2_mib"),
    ],
)
@pytest.mark.parametrize("call", ["finish_job", "finish_jobs"])
def test_artifacts_have_bounds_too(workspace: Workspace, call: str, artifacts: str, constraint: str) -> None:
    send = (
        under_a_lease(call, "artifacts", ", ok => true")
        if call == "finish_job"
        else of_a_report("artifacts", call)
    )
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        send(workspace, artifacts)
    assert error.value.diag.constraint_name == constraint


def test_every_column_and_argument_of_json_has_bounds(server: Caller) -> None:
    """Asked of the catalogue, so that a new one is noticed."""
    columns = server.rows(
        "select c.relname || '.' || a.attname as name from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.atttypid in ('json'::regtype, 'jsonb'::regtype)"
    )
    written_by_the_queue = {"jobs.last_detail", "job_events.payload", "audit_log.subject"}
    assert {row["name"] for row in columns} == written_by_the_queue
    arguments = server.rows(
        "select p.proname || '.' || given.name as name from pg_proc p"
        " cross join lateral unnest(p.proargtypes::oid[], p.proargnames[:p.pronargs]) as given (type, name)"
        " where p.pronamespace = 'public'::regnamespace and given.type in ('json'::regtype, 'jsonb'::regtype)"
    )
    tried_above = {
        "enqueue_job.payload", "enqueue_jobs.jobs", "report_progress.progress", "report_progress.checkpoint",
        "finish_job.result", "finish_job.error", "finish_job.artifacts", "finish_jobs.reports", "finish_and_claim.reports",
        "worker_heartbeat.metrics",
    }  # fmt: skip
    assert {row["name"] for row in arguments} - tried_above == set()


# The bounds themselves, against a plain reading of the same rule


@pytest.fixture(scope="module")
def database() -> Iterator[Caller]:
    with connect() as session:
        yield Caller(session)


def has_short_numbers(database: Caller, text: str) -> bool:
    (row,) = database.rows("select sidejob.has_numbers_of_at_most_400_digits(%s::jsonb, 262144) as so", text)
    return bool(row["so"])


@pytest.mark.parametrize("bytes_before", [0, 450, 3000, 5000])
def test_numbers_are_bounded_in_values_of_every_size(database: Caller, bytes_before: int) -> None:
    for number in TOO_LONG:
        assert not has_short_numbers(database, beside(number, bytes_before)), number[:12]
    for number in LONG_ENOUGH:
        assert has_short_numbers(database, beside(number, bytes_before)), number[:12]


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """As JSON may write them, many with about 400 digits."""
    whole = draw(st.sampled_from(["0", "1", "25", "9" * 30, "9" * 399, "9" * 400]))
    behind = draw(st.sampled_from(["", ".0", ".5", "." + "0" * 399, "." + "12" * 200]))
    exponent = draw(st.just("") | st.integers(-410, 410).map(lambda n: f"e{n}"))
    return draw(st.sampled_from(["", "-"])) + whole + behind + exponent


def is_short(number: str) -> bool:
    digits, _, exponent = number.partition("e")
    behind = max(0, len(digits.partition(".")[2]) - int(exponent or 0))
    return behind <= 400 and (Decimal(number) == 0 or Decimal(number).adjusted() < 400)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.text(
    "0123456789", max_size=500
)


def values(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON as text, in which numbers stand as they were written."""

    def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        listed = st.lists(inner, max_size=8)
        named = st.dictionaries(texts.map(json.dumps), inner, max_size=8)
        return listed.map(lambda items: f"[{','.join(items)}]") | named.map(
            lambda items: "{" + ",".join(f"{key}:{value}" for key, value in items.items()) + "}"
        )

    words = st.sampled_from(["true", "false", "null", "[]", "{}"])
    return st.recursive(leaves | texts.map(json.dumps) | words, wider, max_leaves=30)


@settings(max_examples=200, deadline=None)
@given(
    written=st.lists(numbers(), max_size=8),
    wrapping=st.sampled_from(["%s", "[%s]", '{"a": [1, %s]}', '[[{"a": {"b": %s}}], "12"]']),
    others=st.lists(values(st.sampled_from(["0", "1.5"])), max_size=3),
    copies=st.sampled_from([1, 1, 1, 40]),
)
def test_all_numbers_of_a_value_are_asked(
    database: Caller, written: list[str], wrapping: str, others: list[str], copies: int
) -> None:
    items = [*others, *(wrapping % number for number in written)]
    expected = all(is_short(number) for number in written)
    assert has_short_numbers(database, f"[{','.join(items * copies)}]") == expected


@settings(max_examples=200, deadline=None)
@given(
    value=values(numbers().filter(is_short)),
    copies=st.sampled_from([1, 1, 40, 2000]),
    over=st.integers(-1, 1),
)
def test_the_size_is_that_of_the_text(database: Caller, value: str, copies: int, over: int) -> None:
    text = f"[{','.join([value] * copies)}]"
    (row,) = database.rows(
        "select octet_length(v::text) as length, pg_column_size(v) as size, sidejob.is_at_most(v, octet_length(v::text) - %s) as fits"
        " from (select %s::jsonb as v) as given", over, text,
    )  # fmt: skip
    assert row["size"] <= 4 * row["length"] + 64
    assert row["fits"] == (over <= 0)
