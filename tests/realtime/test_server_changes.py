"""postgres_changes: shapes, filters, values, and who may see what."""

import json
import threading
import time
import uuid
from typing import Any

import psycopg
import pytest

from tests.realtime.conftest import Realtime
from tests.realtime.sockets import SECONDS, Socket, changes

SCHEMA = "realtime_test"


def on(table: str | None = None, event: str = "*", **more: Any) -> dict[str, Any]:
    return {"event": event, "schema": SCHEMA} | ({"table": table} if table else {}) | more


def next_change(socket: Socket) -> dict[str, Any]:
    """The data of the next change."""
    return dict(socket.event("postgres_changes")["data"])


@pytest.fixture
def me() -> str:
    return str(uuid.uuid4())


def run(realtime: Realtime, query: str, *values: Any) -> Any:
    cursor = realtime.stack.sql.execute(query.encode(), values)
    return cursor.fetchone() if cursor.description else None


def insert_note(realtime: Realtime, owner: str, **columns: Any) -> int:
    names, marks = ", ".join(["owner", *columns]), ", ".join(["%s"] * (len(columns) + 1))
    query = f"insert into {SCHEMA}.notes ({names}) values ({marks}) returning id"
    return int(run(realtime, query, owner, *columns.values())["id"])


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_an_insert_an_update_and_a_delete_look_as_upstream_sends_them(
    realtime: Realtime, me: str, version: str
) -> None:
    socket = realtime.socket(version)
    response = socket.joined("db", realtime.token(sub=me), **changes(on("notes", filter=f"owner=eq.{me}")))
    (bound,) = response["postgres_changes"]
    assert bound == on("notes", filter=f"owner=eq.{me}", id=bound["id"])
    assert isinstance(bound["id"], int)
    assert bound["id"] > 0
    note = insert_note(
        realtime,
        me,
        title="a",
        n=1,
        score="1.50",
        done=True,
        at="2026-11-23 18:48:20.5+00",
        tags=["x"],
        secret="s",
    )
    first = socket.event("postgres_changes")
    assert first["ids"] == [bound["id"]]
    data = first["data"]
    assert (data["schema"], data["table"], data["type"], data["errors"]) == (SCHEMA, "notes", "INSERT", None)
    assert data["record"] == {
        "id": note, "owner": me, "title": "a", "n": 1, "score": 1.5, "done": True,
        "at": "2026-11-23T18:48:20.5+00:00", "tags": ["x"], "body": None,
    }  # fmt: skip
    assert "old_record" not in data
    assert data["columns"][0] == {"name": "id", "type": "int8"}
    assert [column["type"] for column in data["columns"][3:]] == [
        "int4",
        "numeric",
        "bool",
        "timestamptz",
        "_text",
        "jsonb",
    ]
    assert data["commit_timestamp"][10] == "T"
    assert data["commit_timestamp"].endswith("Z")

    run(realtime, f"update {SCHEMA}.notes set title = 'b' where id = %s", note)
    data = next_change(socket)
    assert (data["type"], data["record"]["title"], data["old_record"]) == ("UPDATE", "b", {"id": note})


def test_a_delete_tells_the_key_to_everyone_and_no_more(realtime: Realtime, me: str) -> None:
    socket = realtime.socket()
    note = insert_note(realtime, me, title="a")
    socket.joined("db", realtime.token(), **changes(on("notes", "DELETE", filter=f"id=eq.{note}")))
    run(realtime, f"delete from {SCHEMA}.notes where id = %s", note)
    data = next_change(socket)
    assert (data["type"], data["old_record"]) == ("DELETE", {"id": note})
    assert "record" not in data


def test_a_full_identity_tells_the_whole_old_row_and_what_was_not_sent_again(realtime: Realtime) -> None:
    socket, big = realtime.socket(), "".join(map(str, range(9000)))
    socket.joined("db", **changes(on("whole"), on("whole", "DELETE", filter="title=eq.b")))
    run(realtime, f"insert into {SCHEMA}.whole values (1, 'a', %s)", big)
    run(realtime, f"update {SCHEMA}.whole set title = 'b'")
    run(realtime, f"delete from {SCHEMA}.whole")
    assert next_change(socket)["record"]["big"] == big
    updated = next_change(socket)
    assert (updated["record"]["title"], updated["record"]["big"]) == ("b", big)
    assert updated["old_record"] == {"id": 1, "title": "a", "big": big}
    deleted = socket.event("postgres_changes")
    assert len(deleted["ids"]) == 2
    assert deleted["data"]["old_record"]["title"] == "b"


def test_a_full_identity_tells_no_more_of_a_deleted_row_than_its_key_where_policies_rule(
    realtime: Realtime, me: str
) -> None:
    """After a DELETE there is no row that a policy could be asked about."""
    mine, theirs, table = realtime.socket(), realtime.socket(), f"{SCHEMA}.guarded"
    run(realtime, f"create table {table} (id int primary key, owner uuid, secret text)")
    run(realtime, f"alter table {table} enable row level security; alter table {table} replica identity full")
    run(realtime, f"create policy own on {table} to authenticated using (owner = (select auth.uid()))")
    run(realtime, f"grant select on {table} to authenticated")
    run(realtime, f"alter publication supabase_realtime add table {table}")
    for socket, person in ((mine, me), (theirs, str(uuid.uuid4()))):
        socket.joined("db", realtime.token(sub=person), **changes(on("guarded")))
    run(realtime, f"insert into {table} values (1, '{me}', 'a')")
    assert next_change(mine)["record"]["secret"] == "a"
    run(realtime, f"update {table} set secret = 'b'")
    updated = next_change(mine)
    assert updated["old_record"] == {"id": 1, "owner": me, "secret": "a"}
    assert updated["record"]["secret"] == "b"
    run(realtime, f"delete from {table}")
    for socket in (mine, theirs):
        deleted = next_change(socket)
        assert (deleted["type"], deleted["old_record"]) == ("DELETE", {"id": 1})
    assert theirs.silent() == []


def test_each_matching_binding_of_a_channel_is_named_in_one_frame(realtime: Realtime, me: str) -> None:
    socket = realtime.socket()
    wanted = [
        on("notes"), on("notes"), on("notes", "INSERT"), on("notes", "UPDATE"), on(), on("*"),
        {"event": "INSERT", "schema": "*"}, on("open"), on("notes", "INSERT", filter="n=eq.1"),
    ]  # fmt: skip
    bound = socket.joined("db", realtime.token(sub=me), **changes(*wanted))["postgres_changes"]
    assert [{key: value for key, value in one.items() if key != "id"} for one in bound] == wanted
    assert len({one["id"] for one in bound}) == len(wanted)
    insert_note(realtime, me, n=1)
    frame = socket.event("postgres_changes")
    assert set(frame["ids"]) == {bound[index]["id"] for index in (0, 1, 2, 4, 5, 6, 8)}
    assert socket.silent() == []


FILTERS = {
    "n=eq.5": True, "n=eq.6": False, "n=neq.6": True, "n=not.eq.5": False, "n=lt.6": True, "n=lt.5": False,
    "n=lte.5": True, "n=gt.5": False, "n=gt.-1": True, "n=gte.5": True, "n=in.(4,5)": True, "n=not.in.(4,5)": False,
    "n=in.(1)": False, 'title=eq."Hello, (world)"': True,
    'title=in.(other,"Hello, (world)")': True, "title=like.Hello%": True, "title=ilike.hello%": True,
    "title=not.like.Hello%": False, "title=like.hello%": False, "title=match.^Hel+o": True, "title=imatch.WORLD": True,
    "title=gt.A": True, "body=is.null": True, "body=not.is.null": False, "n=is.null": False, "done=is.true": True,
    "done=is.false": False, "done=is.unknown": False, "done=eq.true": True, "done=eq.f": False, "done=neq.f": True,
    "secret_less=eq.1": None, "n=isdistinct.6": True, "n=isdistinct.5": False, "n=not.isdistinct.5": True,
    "body=eq.1": False, "body=neq.1": False, "body=not.eq.1": False, "body=isdistinct.1": True, "score=eq.1.5": True,
    "score=eq.1.50": True, "score=in.(1.500)": True, "score=gt.1.4": True, "at=gt.2026-01-01": True,
    "at=eq.2026-11-23T19:00:00+01:00": True, "n=gt.1,n=lt.9": True, "n=gt.1,n=lt.3": False,
    'tags=eq."{x,y}"': True, "owner=neq.00000000-0000-0000-0000-000000000000": True, "": True,
}  # fmt: skip


def test_filters_compare_as_sql_does_in_the_type_of_the_column(realtime: Realtime, me: str) -> None:
    """The frame names the bindings that matched, so one insert asks them all."""
    socket = realtime.socket()
    asked = [text for text, holds in FILTERS.items() if holds is not None]
    wanted = [on("notes", filter=text) for text in asked]
    bound = socket.joined("db", realtime.token(sub=me), **changes(*wanted, on("notes")))["postgres_changes"]
    insert_note(
        realtime,
        me,
        n=5,
        title="Hello, (world)",
        done=True,
        score="1.50",
        at="2026-11-23 18:00Z",
        tags=["x", "y"],
    )
    matched = set(socket.event("postgres_changes")["ids"])
    found = {text: one["id"] in matched for text, one in zip(asked, bound, strict=False)}
    assert found == {text: FILTERS[text] for text in asked}


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        (on("nope", "INSERT"), "[event: INSERT, schema: realtime_test, table: nope, filters: [], select: nil]"),
        (on("unpublished"), "Please check Realtime is enabled"),
        ({"event": "*", "schema": "realtime", "table": "messages"}, "Please check Realtime is enabled"),
        (on("notes", filter="wrong"), 'Error parsing `filter` params: ["wrong"]'),
        (on("notes", filter="n=foo.7"), 'Error parsing `filter` params: ["foo", "7"]'),
        (on("notes", filter="n=in.7"), "parentheses"),
        (on("notes", filter="nope=eq.7"), "invalid column for filter nope"),
        (on("notes", filter="secret=eq.7"), "invalid column for filter secret"),
        (on("notes", filter="n=eq.seven"), "invalid input syntax for type integer"),
        (on("notes", filter="n=like.7"), "operator does not exist"),
        (on("notes", filter="n=is.true"), "Exception"),
        (on("notes", filter="title=match.("), "regular expression"),
        (on("notes", filter=f"n=in.({','.join('1' * 101)})"), "more than 100 values"),
        (on("notes", select=["secret"]), "invalid column for select secret"),
        ({"event": "*"}, "No subscription params provided"),
    ],
)  # fmt: skip
def test_a_binding_that_cannot_be_served_is_a_system_message(
    realtime: Realtime, name: str, binding: dict[str, Any], words: str
) -> None:
    socket = realtime.socket()
    assert socket.join(name, realtime.token(), **changes(binding)).payload["status"] == "ok"
    said = socket.system(words).payload
    assert (said["extension"], said["status"], said["channel"]) == ("postgres_changes", "error", name)
    socket.send(f"realtime:{name}", "broadcast", {"type": "broadcast", "event": "x", "payload": {}})
    assert socket.silent() == []  # the channel stays


def test_who_waits_for_the_changes_is_refused_where_there_are_none(realtime: Realtime, name: str) -> None:
    socket = realtime.socket()
    waits: dict[str, Any] = {"postgres_changes_options": {"wait": True, "timeout": 5000}}
    reason = socket.refused(name, **changes(on("nope")), **waits)
    assert reason.startswith("RealtimeDisabledForConfiguration: Unable to subscribe to changes with given")
    assert socket.join(name, **changes(on("open")), **waits).payload["status"] == "ok"
    run(realtime, f"insert into {SCHEMA}.open values (12, 'waited')")  # what the reply promised
    assert next_change(socket)["record"]["b"] == "waited"
    assert socket.join(name, **waits).payload["status"] == "ok"


def test_a_text_that_looks_like_a_word_of_is_is_only_a_text(realtime: Realtime, me: str) -> None:
    socket = realtime.socket()
    wanted = [on("notes", filter="title=is.null"), on("notes", filter="title=not.is.null")]
    null, text = socket.joined("db", realtime.token(sub=me), **changes(*wanted))["postgres_changes"]
    insert_note(realtime, me, title="n")
    assert socket.event("postgres_changes")["ids"] == [text["id"]]
    insert_note(realtime, me)
    assert socket.event("postgres_changes")["ids"] == [null["id"]]


def test_each_subscriber_sees_his_own_rows(realtime: Realtime, me: str) -> None:
    other = str(uuid.uuid4())
    mine, yours, anon = realtime.socket(), realtime.socket(), realtime.socket()
    server = realtime.socket(key=realtime.stack.env["SUPABASE_SECRET_KEY"])
    mine.joined("a", realtime.token(sub=me), **changes(on("notes", "INSERT")))
    yours.joined("a", realtime.token(sub=other), **changes(on("notes", "INSERT")))
    server.joined("a", **changes(on("notes", "INSERT")))
    anon.joined("a", **changes(on("notes", "INSERT")))
    with realtime.stack.sql.transaction():
        notes = [insert_note(realtime, owner) for owner in (me, other, me, other)]
    assert [next_change(server)["record"]["id"] for _ in notes] == notes
    assert [message.payload["data"]["record"]["id"] for message in mine.silent()] == [notes[0], notes[2]]
    assert [message.payload["data"]["record"]["id"] for message in yours.silent()] == [notes[1], notes[3]]
    barred = [message.payload["data"] for message in anon.silent()]
    assert [(one["errors"], one["columns"], one["record"]) for one in barred] == [
        (["Error 401: Unauthorized"], [], {})
    ] * 4


def test_a_row_that_is_gone_again_is_not_told(realtime: Realtime, me: str) -> None:
    socket = realtime.socket()
    socket.joined("a", realtime.token(sub=me), **changes(on("notes", "INSERT")))
    with realtime.stack.sql.transaction():
        note = insert_note(realtime, me)
        run(realtime, f"delete from {SCHEMA}.notes where id = %s", note)
    kept = insert_note(realtime, me)
    assert next_change(socket)["record"]["id"] == kept


def test_a_new_token_changes_what_is_seen(realtime: Realtime, me: str) -> None:
    socket, other = realtime.socket(), str(uuid.uuid4())
    socket.joined("a", realtime.token(sub=me), **changes(on("notes", "INSERT")))
    socket.send("realtime:a", "access_token", {"access_token": realtime.token(sub=other)})
    socket.system("Subscribed to PostgreSQL")
    insert_note(realtime, me)
    theirs = insert_note(realtime, other)
    assert next_change(socket)["record"]["id"] == theirs


def test_a_token_that_is_renewed_while_a_policy_is_asked_loses_no_change(realtime: Realtime, me: str) -> None:
    socket, door, waiting = realtime.socket(), 7205, False
    socket.joined("a", realtime.token(sub=me), **changes(on("notes", "INSERT")))
    mine = f"alter policy mine on {SCHEMA}.notes using (owner = (select auth.uid())"
    run(realtime, f"{mine} and pg_advisory_xact_lock_shared({door}) is not null)")
    try:
        with psycopg.connect(realtime.stack.env["SUPABASE_DB_URL"], autocommit=True) as guard:
            guard.execute("select pg_advisory_lock(%s)", (door,))
            note = insert_note(realtime, me)
            asks = "select exists (select from pg_locks where locktype = 'advisory' and objid = %s and not granted)"
            deadline = time.monotonic() + SECONDS
            while not waiting and time.monotonic() < deadline:
                (waiting,) = guard.execute(asks, (door,)).fetchone() or (False,)
            assert waiting
            socket.send("realtime:a", "access_token", {"access_token": realtime.token(sub=me, again=1)})
            socket.system("Subscribed to PostgreSQL")
        assert next_change(socket)["record"]["id"] == note
    finally:
        run(realtime, f"{mine})")


def test_columns_are_those_that_the_role_may_read_and_that_were_asked_for(
    realtime: Realtime, me: str
) -> None:
    socket, server = realtime.socket(), realtime.socket(key=realtime.stack.env["SUPABASE_SECRET_KEY"])
    socket.joined("a", realtime.token(sub=me), **changes(on("notes", select=["title"])))
    server.joined("a", **changes(on("notes")))
    note = insert_note(realtime, me, title="t", secret="s")
    data = next_change(socket)
    assert data["record"] == {"id": note, "title": "t"}
    assert [column["name"] for column in data["columns"]] == ["id", "title"]
    assert next_change(server)["record"]["secret"] == "s"


def test_a_revoked_right_counts_at_once(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("a", **changes(on("open")))
    run(realtime, f"insert into {SCHEMA}.open values (10, 'k')")
    assert next_change(socket)["record"] == {"a": 10, "b": "k", "c": None}
    run(realtime, f"revoke select on {SCHEMA}.open from anon; grant select (a, b) on {SCHEMA}.open to anon")
    try:
        run(realtime, f"insert into {SCHEMA}.open values (11, 'k')")
        assert next_change(socket)["record"] == {"a": 11, "b": "k"}
    finally:
        run(realtime, f"grant select on {SCHEMA}.open to anon")


def test_a_table_without_a_primary_key_is_an_error(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("a", **changes(on("keyless")))
    run(realtime, f"insert into {SCHEMA}.keyless values (1)")
    data = next_change(socket)
    assert (data["errors"], data["record"]) == (["Error 400: Bad Request, no primary key"], {})


def test_a_change_above_a_mebibyte_comes_without_its_long_values(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("a", **changes(on("whole", "INSERT")))
    run(realtime, f"insert into {SCHEMA}.whole values (77, 'short', repeat('x', 1100000))")
    run(realtime, f"delete from {SCHEMA}.whole where id = 77")
    data = next_change(socket)
    assert (data["errors"], data["record"]) == (
        ["Error 413: Payload Too Large"],
        {"id": 77, "title": "short"},
    )


def test_values_come_as_to_jsonb_makes_them(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("a", **changes(on("kinds", "INSERT")))
    run(
        realtime,
        f"""insert into {SCHEMA}.kinds values (1, -3, 9223372036854775807, 'NaN', 12345678901234567890.10, false,
        'a "quote" ü', '83a19c16-fcd8-45d0-9710-d7b06ce6f329', '2026-11-23 18:48:20.5', '2026-11-23 18:48:20.501499+02',
        '2026-11-23', '18:48:20', '1 day 02:00', '\\xdeadbeef', '{{"a": [1.10]}}', '{{"b": null}}', '{{1,null}}',
        '{{glad,sad}}', 'glad', '(1,x)', 'short', '[1,5)', '10.0.0.1', 'ab')""",
    )
    raw = socket.connection.recv(timeout=SECONDS)
    assert isinstance(raw, str)
    assert '"num":12345678901234567890.10' in raw
    assert '"doc":{"a": [1.10]}' in raw
    assert json.loads(raw)[4]["data"]["record"] == {
        "id": 1, "small": -3, "big": 9223372036854775807, "real8": None, "num": 12345678901234567890.10, "yes": False,
        "txt": 'a "quote" ü', "uid": "83a19c16-fcd8-45d0-9710-d7b06ce6f329", "ts": "2026-11-23T18:48:20.5",
        "tz": "2026-11-23T16:48:20.501499+00:00", "day": "2026-11-23", "clock": "18:48:20", "span": "1 day 02:00:00",
        "raw": "deadbeef", "doc": {"a": [1.1]}, "docb": {"b": None}, "ints": [1, None], "moods": ["glad", "sad"],
        "mood": "glad", "pair": {"a": 1, "b": "x"}, "short": "short", "r": "[1,5)", "ip": "10.0.0.1", "code": "ab   ",
    }  # fmt: skip


def test_a_table_that_changes_its_shape_is_read_anew(realtime: Realtime) -> None:
    socket, table = realtime.socket(), f"{SCHEMA}.growing"
    run(realtime, f"create table {table} (id int primary key); grant select on {table} to anon")
    run(realtime, f"alter publication supabase_realtime add table {table}")
    socket.joined("a", **changes(on("growing")))
    run(realtime, f"insert into {table} values (1)")
    assert next_change(socket)["record"] == {"id": 1}
    run(realtime, f"alter table {table} add title text default 'new'")
    run(realtime, f"insert into {table} values (2)")
    assert next_change(socket)["record"] == {"id": 2, "title": "new"}
    # Whether its last row is still told is a matter of which is seen first, the commit or the log of it.
    run(realtime, f"insert into {table} values (3); drop table {table}")
    run(
        realtime,
        f"create table {SCHEMA}.staying (id int primary key); grant select on {SCHEMA}.staying to anon",
    )
    run(realtime, f"alter publication supabase_realtime add table {SCHEMA}.staying")
    socket.joined("b", **changes(on("staying")))
    run(realtime, f"insert into {SCHEMA}.staying values (4)")
    told = next_change(socket)
    if told["table"] == "growing":
        told = next_change(socket)
    assert told["record"] == {"id": 4}


def test_a_row_is_seen_however_quickly_its_commit_is_told(realtime: Realtime, me: str) -> None:
    """The log is written a moment before a commit shows: who looks at once, as policies do, may look in vain."""
    socket, writers, each = realtime.socket(), 4, 300
    socket.joined("told", realtime.token(sub=me), **changes(on("notes", "INSERT")))

    def write() -> None:
        with psycopg.connect(realtime.stack.env["SUPABASE_DB_URL"], autocommit=True) as connection:
            for n in range(each):
                connection.execute(f"insert into {SCHEMA}.notes (owner, n) values (%s, %s)".encode(), (me, n))

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    told = [next_change(socket)["record"]["id"] for _ in range(writers * each)]
    for thread in threads:
        thread.join()
    assert len(set(told)) == writers * each


def test_what_a_transaction_did_is_told_when_everyone_can_see_it(realtime: Realtime) -> None:
    url = realtime.stack.env["SUPABASE_DB_URL"]
    with psycopg.connect(url) as writer, psycopg.connect(url, autocommit=True) as teller:
        row = writer.execute("select pg_current_xact_id()::text::bigint %% 4294967296", ()).fetchone()
        wait = threading.Thread(
            target=lambda: teller.execute("select realtime.wait_until_visible(%s)", ([row and row[0]],))
        )
        wait.start()
        wait.join(0.2)
        assert wait.is_alive()
        writer.commit()
        wait.join(2)
        assert not wait.is_alive()


def test_changes_come_in_commit_order_and_none_is_lost(realtime: Realtime, me: str) -> None:
    socket = realtime.socket()
    socket.joined("a", realtime.token(sub=me), **changes(on("notes", "INSERT")))
    run(
        realtime,
        f"insert into {SCHEMA}.notes (owner, n) select %s, n from generate_series(1, 2000) n",
        me,
    )
    for n in range(10):
        insert_note(realtime, me, n=2001 + n)
    assert [next_change(socket)["record"]["n"] for _ in range(2010)] == list(range(1, 2011))
