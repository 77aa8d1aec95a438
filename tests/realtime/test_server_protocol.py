"""Joining, leaving, tokens and bad input, as a socket sees them."""

import json
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.realtime.conftest import Realtime
from tests.realtime.sockets import Message, Socket

VERSIONS = ("1.0.0", "2.0.0")
EMPTY = {"status": "ok", "response": {}}


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({"key": ""}, 401, "API key is missing"),
        ({"key": "nonsense"}, 401, "The token provided is not a valid JWT"),
        ({"version": "3.0.0"}, 403, "3.0.0"),
        ({"version": "x"}, 403, "x"),
    ],
)
def test_a_handshake_is_refused_with_a_reason(
    realtime: Realtime, query: dict[str, str], status: int, text: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        realtime.socket(**query)
    response = refused.value.response
    assert (response.status_code, text in json.loads(response.body)["error"]) == (status, True)


def test_a_handshake_with_a_bad_token_says_what_is_wrong_with_it(realtime: Realtime) -> None:
    for token, words in {
        realtime.token(-60): "Token has expired",
        realtime.token(role=None): "Fields `role` and `exp` are required in JWT",
        realtime.token(exp=None): "Fields `role` and `exp` are required in JWT",
        realtime.token(secret="x" * 32): "Failed to validate JWT signature",
    }.items():
        with pytest.raises(InvalidStatus) as refused:
            realtime.socket(key=token)
        assert refused.value.response.status_code == 401
        assert words in json.loads(refused.value.response.body)["error"]


def test_a_signed_token_is_a_key_too(realtime: Realtime) -> None:
    realtime.socket(key=realtime.token()).joined("room")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ref", ["7", None])
def test_a_heartbeat_is_answered_with_its_ref(realtime: Realtime, version: str, ref: str | None) -> None:
    socket = realtime.socket(version)
    socket.send("phoenix", "heartbeat", {}, ref=ref)
    assert socket.receive() == Message(None, ref, "phoenix", "phx_reply", EMPTY)


def test_a_join_and_a_leave_are_answered_to_the_letter(realtime: Realtime) -> None:
    old, new = realtime.socket("1.0.0"), realtime.socket("2.0.0")
    ok = {"status": "ok", "response": {"postgres_changes": []}}
    assert old.join("room") == Message(None, "1", "realtime:room", "phx_reply", ok)
    assert new.join("room") == Message("1", "1", "realtime:room", "phx_reply", ok)
    for socket, join_ref in ((old, None), (new, "1")):
        socket.send("realtime:room", "phx_leave", {}, ref="9")
        assert socket.receive() == Message(join_ref, "9", "realtime:room", "phx_reply", EMPTY)
        assert socket.receive() == Message(join_ref, "1", "realtime:room", "phx_close", {})


@pytest.mark.parametrize("version", VERSIONS)
def test_topics_that_are_not_joined(realtime: Realtime, version: str) -> None:
    socket = realtime.socket(version)
    unmatched = {"status": "error", "response": {"reason": "unmatched topic"}}
    assert socket.reply("realtime:room", "phx_leave", {}) == EMPTY
    assert socket.reply("realtime:room", "broadcast", {"event": "x"}) == unmatched
    assert socket.reply("other", "phx_join", {}) == unmatched
    assert socket.refused("") == "TopicNameRequired: You must provide a topic name"


@pytest.mark.parametrize(
    "payload",
    [
        {},
        None,
        [],
        "text",
        {"config": None},
        {"config": 7},
        {"config": {"broadcast": None, "presence": None, "postgres_changes": None, "private": None}},
        {"config": {"broadcast": {"self": "true", "ack": "false"}, "presence": {"key": None}}},
        {"config": {"postgres_changes": [None]}, "access_token": None},
        {"config": {"unknown": 1}, "unknown": 2},
    ],
)
def test_a_join_is_not_refused_for_what_it_does_not_say(realtime: Realtime, payload: Any) -> None:
    socket = realtime.socket()
    response = {"status": "ok", "response": {"postgres_changes": []}}
    assert socket.reply("realtime:room", "phx_join", payload) == response


def test_a_second_join_takes_the_topic_over(realtime: Realtime) -> None:
    socket, speaker = realtime.socket(), realtime.socket("1.0.0")
    socket.joined("twice")
    socket.joined("twice")
    assert socket.receive() == Message("1", "1", "realtime:twice", "phx_close", {})
    speaker.joined("twice")
    speaker.send("realtime:twice", "broadcast", {"type": "broadcast", "event": "x", "payload": {}})
    assert [message.event for message in (*speaker.silent(), socket.receive(), *socket.silent())] == [
        "broadcast"
    ]


def test_a_second_join_that_is_refused_ends_the_first_all_the_same(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("twice")
    socket.refused("twice", "a.b.c")
    assert socket.receive() == Message("1", "1", "realtime:twice", "phx_close", {})
    assert socket.reply("realtime:twice", "broadcast", {})["response"] == {"reason": "unmatched topic"}


def test_a_client_of_serializer_1_is_not_told_of_the_old_channel(realtime: Realtime) -> None:
    """It would close its new one: it does not compare refs."""
    socket = realtime.socket("1.0.0")
    socket.joined("twice")
    socket.joined("twice")
    assert socket.silent() == []


def test_messages_of_an_earlier_join_and_unknown_events_are_ignored(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("room", broadcast={"ack": True, "self": True})
    socket.send("realtime:room", "broadcast", {"event": "x", "payload": {}}, join_ref="stale")
    socket.send("realtime:room", "no_such_event", {"a": 1})
    assert socket.silent() == []
    socket.send("realtime:room", "broadcast", {"event": "x", "payload": {}}, join_ref=None)
    assert {message.event for message in socket.silent()} == {"broadcast", "phx_reply"}


BAD: list[str | bytes] = [
    "",
    "{",
    "nonsense",
    "null",
    "[]",
    "7",
    '["1","1","realtime:room"]',
    '{"topic":"realtime:room"}',
    '[null,null,7,"phx_join",{}]',
    '[null,null,"realtime:room",null,{}]',
    "[" * 100_000,
    b"",
    b"\x00garbage",
    bytes([3, 255, 255, 255, 255, 255, 1]) + b"short",
    bytes([3, 0, 0, 2, 0, 0, 1]) + b"\xff\xfe",
    bytes(range(256)) * 40,
]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_cannot_be_read_is_dropped_and_the_socket_stays(realtime: Realtime, version: str) -> None:
    socket = realtime.socket(version)
    socket.joined("room")
    for data in BAD:
        socket.connection.send(data)
    assert socket.silent() == []
    assert socket.reply("realtime:room", "phx_leave", {}) == EMPTY


async def test_a_frame_of_ten_megabytes_ends_its_socket_alone(realtime: Realtime) -> None:
    other = realtime.socket()
    other.joined("room")
    async with connect(
        f"{realtime.address.replace('http', 'ws')}/realtime/v1/websocket?apikey={realtime.key}"
    ) as big:
        with suppress(ConnectionClosed):
            await big.send("x" * 10_000_000)
        await big.wait_closed()
    assert big.close_code == 1009
    assert other.silent() == []


def test_a_join_says_what_is_wrong_with_its_token(realtime: Realtime) -> None:
    socket = realtime.socket()
    for token, reason in {
        realtime.token(-60): "InvalidJWTToken: Token has expired 6",
        realtime.token(role=None): "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
        realtime.token(exp=True): "InvalidJWTToken: Token expiration time is invalid",
        realtime.token(secret="x" * 32): "JwtSignatureError: Failed to validate JWT signature",
        "a.b.c": "MalformedJWT: The token provided is not a valid JWT",
    }.items():
        assert socket.refused("room", token).startswith(reason)
    assert socket.joined("room", "sb_publishable_of_another_project") == {"postgres_changes": []}
    assert socket.joined("room2", f"  {realtime.token()} ") == {"postgres_changes": []}


def test_a_token_that_runs_out_closes_its_channel_and_not_the_socket(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("lasting", realtime.token())
    socket.joined("brief", realtime.token(6))
    said = socket.system("Token has expired ")
    assert (said.payload["extension"], said.payload["status"], said.payload["channel"]) == (
        "system",
        "error",
        "brief",
    )
    assert socket.receive() == Message("2", "2", "realtime:brief", "phx_close", {})
    assert socket.reply("realtime:lasting", "phx_leave", {}) == EMPTY


def test_a_new_token_keeps_a_channel_alive(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("kept", realtime.token(6))
    socket.send("realtime:kept", "access_token", {"access_token": realtime.token(600)})
    socket.joined("other", realtime.token(6))
    socket.system("Token has expired")
    socket.event("phx_close")
    assert socket.reply("realtime:kept", "phx_leave", {}) == EMPTY


@pytest.mark.parametrize("token", [None, 7, "sb_publishable_x", "same"])
def test_tokens_that_change_nothing_are_ignored(realtime: Realtime, token: Any) -> None:
    socket, mine = realtime.socket(), realtime.token()
    socket.joined("room", mine)
    socket.send("realtime:room", "access_token", {"access_token": mine if token == "same" else token})
    assert socket.silent() == []


def test_a_bad_token_pushed_to_a_channel_closes_it(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.joined("room", realtime.token())
    socket.send("realtime:room", "access_token", {"access_token": "a.b.c"})
    assert socket.system("not a valid JWT").payload["status"] == "error"
    assert socket.receive().event == "phx_close"


def test_a_message_in_pieces_is_one_message(realtime: Realtime) -> None:
    socket = realtime.socket()
    socket.connection.send(['[null,"1",', '"phoenix","heart', 'beat",{}]'])
    assert socket.receive() == Message(None, "1", "phoenix", "phx_reply", EMPTY)


def test_who_asks_for_replication_is_told_that_it_is_there(realtime: Realtime) -> None:
    socket: Socket = realtime.socket()
    socket.joined("room", broadcast={"replication_ready": True})
    said = socket.system("Replication connection established").payload
    assert (said["extension"], said["status"]) == ("system", "ok")
