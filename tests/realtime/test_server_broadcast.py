"""Broadcasts: from sockets, over HTTP and from the database; to public and to private topics."""

import json
import uuid
from typing import Any

import pytest

from tests.realtime.conftest import Realtime
from tests.realtime.sockets import Socket

OK = {"status": "ok", "response": {}}
JSON_BODY = {"Content-Type": "application/json"}


def say(socket: Socket, name: str, payload: Any, event: str = "x") -> None:
    socket.send(f"realtime:{name}", "broadcast", {"type": "broadcast", "event": event, "payload": payload})


def heard(socket: Socket) -> Any:
    return socket.event("broadcast")


def test_a_broadcast_reaches_every_other_socket_in_either_serializer(realtime: Realtime, name: str) -> None:
    old, new, speaker = realtime.socket("1.0.0"), realtime.socket("2.0.0"), realtime.socket("2.0.0")
    for socket in (old, new, speaker):
        socket.joined(name)
    say(speaker, name, {"n": 1})
    speaker.send_binary(f"realtime:{name}", "x", b'{"n": 1.10}')
    for socket in (old, new):
        assert heard(socket) == {"type": "broadcast", "event": "x", "payload": {"n": 1}}
        assert heard(socket) == {"type": "broadcast", "event": "x", "payload": {"n": 1.10}}
    speaker.send_binary(f"realtime:{name}", "raw", b"\x00\xff", encoding=0)
    assert heard(new) == {"type": "broadcast", "event": "raw", "payload": b"\x00\xff"}
    say(old, name, "from the old")
    assert heard(speaker)["payload"] == "from the old"
    assert old.silent() == []  # it cannot be told of raw bytes
    assert speaker.silent() == []


@pytest.mark.parametrize("body", ["no JSON", '{"n": NaN}', '{"n": -Infinity}', '{"n": 1e999}', "", '"\\ud8'])
def test_what_no_browser_could_read_reaches_nobody(realtime: Realtime, name: str, body: str) -> None:
    """One client's nonsense would be another's exception."""
    speaker, listeners = realtime.socket(), [realtime.socket("1.0.0"), realtime.socket("2.0.0")]
    for socket in (speaker, *listeners):
        socket.joined(name)
    topic = f"realtime:{name}"
    speaker.send_binary(topic, "x", body.encode())
    speaker.connection.send(f'["1", "9", "{topic}", "broadcast", {{"event": "x", "payload": {body}}}]')
    speaker.connection.send(f'["1", "9", "{topic}", "presence", {{"event": "track", "payload": {body}}}]')
    assert post(realtime, f"/{name}/events/x", content=body, headers=JSON_BODY).status_code == 422
    batch = f'{{"messages": [{{"topic": "{name}", "event": "x", "payload": {{"n": {body}}}}}]}}'
    assert post(realtime, "", content=batch, headers=JSON_BODY).status_code == 422
    assert speaker.silent() == []
    assert [message for socket in listeners for message in socket.silent()] == []


@pytest.mark.parametrize("hears_itself", [False, True])
@pytest.mark.parametrize("ack", [False, True])
def test_self_and_ack_are_what_the_join_says(
    realtime: Realtime, name: str, hears_itself: bool, ack: bool
) -> None:
    socket = realtime.socket()
    socket.joined(name, broadcast={"self": hears_itself, "ack": ack})
    say(socket, name, {})
    socket.send_binary(f"realtime:{name}", "x", b"{}")
    came = socket.silent()
    assert [message.event for message in came] == (["broadcast"] * hears_itself + ["phx_reply"] * ack) * 2
    assert all(message.payload == OK for message in came if message.event == "phx_reply")


def test_another_socket_of_the_same_user_is_not_oneself(realtime: Realtime, name: str) -> None:
    token = realtime.token()
    one, two = realtime.socket(), realtime.socket()
    for socket in (one, two):
        socket.joined(name, token)
    say(one, name, 1)
    assert heard(two)["payload"] == 1


def test_a_private_topic_is_not_the_public_one_of_its_name(realtime: Realtime, name: str) -> None:
    public, private = realtime.socket(), realtime.socket()
    public.joined(name, realtime.token())
    private.joined(name, realtime.token(), private=True)
    say(public, name, 1)
    say(private, name, 2)
    assert (public.silent(), private.silent()) == ([], [])


def test_a_payload_above_the_limit_is_not_sent(realtime: Realtime, name: str) -> None:
    socket, listener = realtime.socket(), realtime.socket()
    socket.joined(name, broadcast={"ack": True})
    listener.joined(name)
    say(socket, name, {"big": "x" * 3_000_600})
    error = {"status": "error", "response": {"error": "payload_size_exceeded"}}
    assert socket.event("phx_reply") == error
    say(socket, name, {"big": "x" * 2_900_000})
    assert len(heard(listener)["payload"]["big"]) == 2_900_000


# Private topics.


def test_policies_decide_who_may_join_a_private_topic(realtime: Realtime) -> None:
    socket, me = realtime.socket(), str(uuid.uuid4())
    mine = f"rt:mine:{me}"
    reason = f"Unauthorized: You do not have permissions to read from this Channel topic: {mine}"
    assert socket.refused(mine, private=True) == reason
    assert socket.refused(mine, realtime.token(), private=True) == reason
    assert socket.refused(mine, realtime.token(sub=me, role="no_such_role"), private=True) == reason
    socket.joined(mine, realtime.token(sub=me), private=True)
    socket.joined(mine, realtime.stack.env["SUPABASE_PUBLISHABLE_KEY"])  # as a public topic it is anyone's


def test_a_policy_that_raises_refuses_and_harms_nobody_else(realtime: Realtime, name: str) -> None:
    socket = realtime.socket()
    assert socket.refused("rt:raise", realtime.token(), private=True).startswith("Unauthorized: ")
    socket.joined(name, realtime.token(), private=True)


def test_the_secret_key_may_do_everything(realtime: Realtime) -> None:
    socket = realtime.socket(key=realtime.stack.env["SUPABASE_SECRET_KEY"])
    socket.joined("nobody:else", private=True, broadcast={"ack": True})
    say(socket, "nobody:else", 1)
    assert socket.event("phx_reply") == OK


def test_who_may_only_read_cannot_speak(realtime: Realtime) -> None:
    reader, speaker, topic = realtime.socket(), realtime.socket(), f"rt:read:{uuid.uuid4()}"
    reader.joined(topic, realtime.token(), private=True)
    speaker.joined(topic, realtime.token(), private=True, broadcast={"ack": True})
    say(speaker, topic, 1)
    assert speaker.event("phx_reply") == {"status": "error", "response": {"error": "unauthorized"}}
    assert reader.silent() == []


def test_who_may_only_be_present_hears_no_broadcast(realtime: Realtime) -> None:
    topic, socket = f"rt:presence:{uuid.uuid4()}", realtime.socket()
    socket.joined(topic, realtime.token(), private=True, presence={"enabled": True})
    realtime.stack.sql.execute("select realtime.send('{}', 'x', %s)", (topic,))
    realtime.stack.sql.execute("select realtime.send('{}', 'x', %s, false)", (topic,))
    assert [message.event for message in socket.silent()] == ["presence_state"]


def test_a_token_without_the_right_closes_a_private_channel(realtime: Realtime) -> None:
    socket, me = realtime.socket(), str(uuid.uuid4())
    socket.joined(f"rt:mine:{me}", realtime.token(sub=me), private=True)
    socket.send(f"realtime:rt:mine:{me}", "access_token", {"access_token": realtime.token(sub=me, again=1)})
    assert socket.silent() == []
    socket.send(f"realtime:rt:mine:{me}", "access_token", {"access_token": realtime.token()})
    socket.system(f"You no longer have permission to read from this Channel topic: rt:mine:{me}")
    assert socket.receive().event == "phx_close"


# From the database.


def test_the_database_speaks_when_it_commits(realtime: Realtime, name: str) -> None:
    sockets = [realtime.socket(version) for version in ("1.0.0", "2.0.0")]
    for socket in sockets:
        socket.joined(name, realtime.token(), private=True)
    sql = realtime.stack.sql
    with sql.transaction():
        sql.execute("select realtime.send('{\"n\": 1}', 'e', %s)", (name,))
        sql.execute('select realtime.send(\'{"n": 2, "id": "mine"}\', \'e\', %s)', (name,))
        sql.execute("select realtime.send('{}', 'public', %s, false)", (name,))
        assert [message for socket in sockets for message in socket.silent()] == []
    with sql.transaction(force_rollback=True):
        sql.execute("select realtime.send('{\"n\": 3}', 'e', %s)", (name,))
    sql.execute("select realtime.send_binary('\\x00ff', 'raw', %s)", (name,))
    for socket in sockets:
        first, second = heard(socket), heard(socket)
        assert (first["event"], first["payload"]["n"]) == ("e", 1)
        assert first["payload"]["id"] == first["meta"]["id"]
        assert second["payload"] == {"n": 2, "id": "mine"}
        assert second["meta"]["id"] != "mine"
    assert heard(sockets[1])["payload"] == b"\x00\xff"
    assert [message for socket in sockets for message in socket.silent()] == []


def test_broadcast_changes_sends_the_row_from_a_trigger(realtime: Realtime, name: str) -> None:
    socket, sql = realtime.socket(), realtime.stack.sql
    socket.joined(name, realtime.token(), private=True)
    with sql.transaction():
        sql.execute(
            "create function realtime_test.tell() returns trigger language plpgsql security definer as $$ begin"
            " perform realtime.broadcast_changes(tg_argv[0], tg_op, tg_op, tg_table_name, tg_table_schema, new, old);"
            " return null; end $$"
        )
        sql.execute(
            "create trigger tell after insert or update or delete on realtime_test.open"
            f" for each row execute function realtime_test.tell('{name}')"
        )
    try:
        sql.execute("insert into realtime_test.open values (1, 'told')")
        sql.execute("update realtime_test.open set c = 'new' where b = 'told'")
        sql.execute("delete from realtime_test.open where b = 'told'")
    finally:
        sql.execute("drop function realtime_test.tell cascade")
    told = [heard(socket)["payload"] for _ in range(3)]
    assert [(one["operation"], one["table"], one["schema"]) for one in told] == [
        (operation, "open", "realtime_test") for operation in ("INSERT", "UPDATE", "DELETE")
    ]
    row, new = {"a": 1, "b": "told", "c": None}, {"a": 1, "b": "told", "c": "new"}
    assert [(one["old_record"], one["record"]) for one in told] == [(None, row), (row, new), (new, None)]


def test_a_send_that_may_not_be_is_a_warning_and_not_a_failure(realtime: Realtime, name: str) -> None:
    socket, sql = realtime.socket(), realtime.stack.sql
    socket.joined(name, realtime.token(), private=True)
    with sql.transaction():
        sql.execute("set local role authenticated")
        sql.execute("select realtime.send('{}', 'e', 'rt:read:1')")
    assert socket.silent() == []


def test_replay_gives_what_the_database_said_before(realtime: Realtime, name: str) -> None:
    sql, socket, token = realtime.stack.sql, realtime.socket(), realtime.token()
    for n in range(4):
        sql.execute("select realtime.send(jsonb_build_object('n', %s::int), 'e', %s)", (n, name))
    socket.joined(name, token, private=True, broadcast={"replay": {"since": 0, "limit": 3}})
    replayed = [heard(socket) for _ in range(3)]
    assert [one["payload"]["n"] for one in replayed] == [1, 2, 3]
    assert all(one["meta"]["replayed"] is True for one in replayed)
    assert replayed[0]["meta"]["id"] == replayed[0]["payload"]["id"]
    assert socket.refused("public", broadcast={"replay": {}}) == (
        "UnableToReplayMessages: Replay is not allowed for public channels"
    )
    for wrong in (7, {"since": "x"}, {"since": -1}, {"since": 10**400}, {"limit": "3"}):
        reason = socket.refused(name, token, private=True, broadcast={"replay": wrong})
        assert reason == "UnableToReplayMessages: Replay params are not valid"


# Over HTTP.


def post(realtime: Realtime, path: str, token: str | None = None, **more: Any) -> Any:
    headers = {"apikey": realtime.key, "Authorization": f"Bearer {token or realtime.key}"}
    headers |= more.pop("headers", {})
    return realtime.stack.http.post(
        f"{realtime.address}/realtime/v1/api/broadcast{path}", headers=headers, **more
    )


def test_a_batch_over_http_reaches_public_and_permitted_private_topics(realtime: Realtime, name: str) -> None:
    public, private, closed = realtime.socket("1.0.0"), realtime.socket(), realtime.socket()
    token, readable = realtime.token(), f"rt:read:{uuid.uuid4()}"
    public.joined(name)
    private.joined(name, token, private=True)
    closed.joined(readable, token, private=True)
    messages = [
        {"topic": name, "event": "a", "payload": {"n": 1}},
        {"topic": name, "event": "b", "payload": {"n": 2}, "private": True, "id": "one"},
        {"topic": readable, "event": "c", "payload": {"n": 3}, "private": True},
    ]
    answer = post(realtime, "", token, json={"messages": messages}, headers={"Origin": "https://a.example"})
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert heard(public) == {"type": "broadcast", "event": "a", "payload": {"n": 1}}
    assert heard(private) == {"type": "broadcast", "event": "b", "payload": {"n": 2}, "meta": {"id": "one"}}
    assert closed.silent() == []


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"messages": [{"topic": "a", "event": "e"}, {"topic": "a", "event": "e", "payload": {}}]},
         [{"payload": ["can't be blank"]}, {}]),
        ({"messages": [{"topic": "", "event": 7, "payload": []}]},
         [{"topic": ["can't be blank"], "event": ["is invalid"], "payload": ["can't be blank"]}]),
        ({"messages": [7]}, [{"message": ["is invalid"]}]),
        ({"messages": []}, ["can't be blank"]),
        ({}, ["can't be blank"]),
        ([], ["is invalid"]),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_sent_says_which_message(realtime: Realtime, body: Any, errors: Any) -> None:
    answer = post(realtime, "", json=body)
    assert (answer.status_code, answer.json()) == (422, {"errors": {"messages": errors}})


def test_one_event_over_http(realtime: Realtime) -> None:
    topic, token = f"rt:all:a/b ü:{uuid.uuid4()}", realtime.token()
    old, new = realtime.socket("1.0.0"), realtime.socket()
    for socket in (old, new):
        socket.joined(topic, token, private=True)
    path = f"/{topic.replace('/', '%2F')}/events/my%20event?private=true"
    json_header, raw = {"Content-Type": "application/json"}, {"Content-Type": "application/octet-stream"}
    assert post(realtime, path, token, json={"n": 1}).status_code == 202
    assert post(realtime, path, token, content=b"\x00\x01", headers=raw).status_code == 202
    for socket in (old, new):
        assert heard(socket) == {"type": "broadcast", "event": "my event", "payload": {"n": 1}}
    assert heard(new)["payload"] == b"\x00\x01"
    assert post(realtime, path, content=b"{}", headers=json_header).status_code == 403
    assert post(realtime, path, token, content=b"{", headers=json_header).status_code == 422
    assert post(realtime, path, token, content=b"x" * 3_100_000, headers=raw).status_code == 422
    refused = post(realtime, path, token, content=b"x", headers={"Content-Type": "text/plain"})
    wanted = "Unsupported Media Type. Use application/json or application/octet-stream"
    assert (refused.status_code, refused.json()) == (415, {"error": wanted})
    assert old.silent() == []


@pytest.mark.parametrize(
    "headers",
    [{"apikey": "", "Authorization": ""}, {"Authorization": "Bearer a.b.c"}, {"apikey": "sb_secret_no"}],
)
def test_http_needs_a_key_or_a_token(realtime: Realtime, headers: dict[str, str]) -> None:
    body = json.dumps({"messages": [{"topic": "a", "event": "e", "payload": {}}]})
    answer = post(realtime, "", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})


def test_pages_of_other_origins_may_ask(realtime: Realtime) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "apikey, authorization, content-type"}  # fmt: skip
    answer = realtime.stack.http.options(f"{realtime.address}/realtime/v1/api/broadcast", headers=asked)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "apikey" in answer.headers["access-control-allow-headers"]
