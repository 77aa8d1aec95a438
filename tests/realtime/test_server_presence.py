"""Presence: who is there, who comes and goes."""

import uuid
from collections.abc import Callable
from socket import SHUT_RDWR
from typing import Any

import pytest

from tests.realtime.conftest import OwnServer, Realtime
from tests.realtime.sockets import SECONDS, Socket

Own = Callable[..., tuple[OwnServer, Realtime]]

OK = {"status": "ok", "response": {}}


def present(realtime: Realtime, name: str, key: str = "", version: str = "2.0.0", **config: Any) -> Socket:
    socket = realtime.socket(version)
    socket.joined(name, realtime.token(), presence={"key": key, "enabled": True}, **config)
    return socket


def track(socket: Socket, name: str, payload: Any, event: str = "track") -> Any:
    body = {"type": "presence", "event": event, "payload": payload}
    return socket.reply(f"realtime:{name}", "presence", body)


def told(metas: dict[str, Any]) -> dict[str, Any]:
    """By key, without the references."""
    return {
        key: [
            {name: value for name, value in meta.items() if "phx_ref" not in name} for meta in entry["metas"]
        ]
        for key, entry in metas.items()
    }


def test_the_state_comes_after_the_join_and_differences_after_it(realtime: Realtime, name: str) -> None:
    ann = present(realtime, name, "ann")
    assert ann.event("presence_state") == {}
    assert track(ann, name, {"online": True}) == OK
    first = ann.event("presence_diff")
    assert (told(first["joins"]), first["leaves"]) == ({"ann": [{"online": True}]}, {})

    bob = present(realtime, name, "bob", "1.0.0")
    assert told(bob.event("presence_state")) == {"ann": [{"online": True}]}
    assert track(ann, name, {"online": True}) == OK  # nothing new: no difference
    track(ann, name, {"online": False})
    for socket in (ann, bob):
        change = socket.event("presence_diff")
        assert told(change["joins"]) == {"ann": [{"online": False}]}
        assert told(change["leaves"]) == {"ann": [{"online": True}]}
        (new,), (old,) = change["joins"]["ann"]["metas"], change["leaves"]["ann"]["metas"]
        assert new["phx_ref_prev"] == old["phx_ref"] == first["joins"]["ann"]["metas"][0]["phx_ref"]
        assert new["phx_ref"] != old["phx_ref"]


@pytest.mark.parametrize("way", ["untrack", "leave", "dead socket", "close"])
def test_everyone_is_told_who_leaves_however_he_does(realtime: Realtime, name: str, way: str) -> None:
    bob, ann = present(realtime, name, "bob"), present(realtime, name, "ann")
    track(ann, name, {"n": 1})
    bob.event("presence_diff")
    if way == "untrack":
        assert track(ann, name, None, "untrack") == OK
    elif way == "leave":
        ann.send(f"realtime:{name}", "phx_leave", {})
    elif way == "dead socket":
        ann.connection.socket.shutdown(SHUT_RDWR)
    else:
        ann.connection.close()
    change = bob.event("presence_diff")
    assert (change["joins"], told(change["leaves"])) == ({}, {"ann": [{"n": 1}]})
    assert present(realtime, name).event("presence_state") == {}


def test_one_key_on_two_sockets_is_one_entry(realtime: Realtime, name: str) -> None:
    one, two = present(realtime, name, "ann"), present(realtime, name, "ann")
    track(one, name, {"n": 1})
    track(two, name, {"n": 2})
    assert told(present(realtime, name).event("presence_state")) == {"ann": [{"n": 1}, {"n": 2}]}
    two.connection.close()
    one.until(lambda message: message.event == "presence_diff" and bool(message.payload["leaves"]))
    assert told(present(realtime, name).event("presence_state")) == {"ann": [{"n": 1}]}


def test_without_a_key_everyone_has_one_of_his_own(realtime: Realtime, name: str) -> None:
    one, two = present(realtime, name), present(realtime, name, "")
    for socket in (one, two):
        track(socket, name, {})
    keys = present(realtime, name).event("presence_state")
    assert len({uuid.UUID(key) for key in keys}) == 2


@pytest.mark.parametrize(
    ("event", "payload", "response"),
    [
        ("track", 7, {"reason": "Presence track payload must be a map"}),
        ("track", [], {"reason": "Presence track payload must be a map"}),
        ("sing", {}, {}),
    ],
)
def test_what_is_not_tracked_is_an_error(
    realtime: Realtime, name: str, event: str, payload: Any, response: Any
) -> None:
    socket = present(realtime, name)
    assert track(socket, name, payload, event) == {"status": "error", "response": response}
    assert track(socket, name, {}, "TRACK") == OK


def test_who_tracks_without_having_asked_for_presence_gets_it(realtime: Realtime, name: str) -> None:
    socket = realtime.socket()
    socket.joined(name, realtime.token(), private=True)
    socket.send(f"realtime:{name}", "presence", {"event": "track", "payload": {}})
    came = [socket.receive().event for _ in range(3)]
    assert came == ["presence_state", "phx_reply", "presence_diff"]


def test_private_presence_needs_the_right_to_it(realtime: Realtime) -> None:
    token, readable = realtime.token(), f"rt:read:{uuid.uuid4()}"
    socket = realtime.socket()
    socket.joined(readable, token, private=True, presence={"enabled": True})
    assert socket.event("presence_state") == {}
    assert track(socket, readable, {}) == {"status": "error", "response": {}}
    allowed = f"rt:presence:{uuid.uuid4()}"
    socket.joined(allowed, token, private=True, presence={"enabled": True})
    assert track(socket, allowed, {}) == OK
    assert socket.refused(allowed, token, private=True).startswith(
        "Unauthorized"
    )  # without presence: nothing left


def test_what_is_nested_deeply_keeps_nobody_from_joining(realtime: Realtime) -> None:
    """What one could just track had to be encoded, one level deeper, for everyone who joined later."""
    for depth in range(900, 1000, 2):
        name = f"rt:all:{uuid.uuid4()}"
        deep, other, topic = present(realtime, name, "deep"), realtime.socket(), f"realtime:{name}"
        body = '{"a":' * depth + "1" + "}" * depth
        track_it = f'"{topic}", "presence", {{"event": "track", "payload": {body}}}]'
        deep.connection.send(f'["{deep.join_refs[topic]}", "9", {track_it}')
        answer = deep.send("phoenix", "heartbeat", {})
        while f'"{answer}","phoenix"' not in str(deep.connection.recv(timeout=SECONDS)):
            pass  # too deep for this client's own reading
        other.joined(name, presence={"enabled": True})
        assert '"presence_state"' in str(other.connection.recv(timeout=SECONDS))
        for socket in (deep, other):
            socket.connection.close()


def test_who_is_gone_before_the_policies_answered_is_not_present(own: Own) -> None:
    """The database is asked before a private `track`; who leaves meanwhile would stay on the list for ever."""
    _, realtime = own()  # without a gateway, which would pass the end on later
    name = f"rt:all:slow:{uuid.uuid4()}"
    watcher, socket = (present(realtime, name, key, private=True) for key in ("watcher", "gone"))
    socket.send(f"realtime:{name}", "presence", {"event": "track", "payload": {}})
    socket.connection.socket.shutdown(SHUT_RDWR)
    track(watcher, name, {})  # asked about later, and so answered later
    assert set(present(realtime, name, private=True).event("presence_state")) <= {"watcher"}


def test_too_many_calls_close_the_channel(realtime: Realtime, name: str) -> None:
    socket = present(realtime, name)
    for n in range(6):
        socket.send(f"realtime:{name}", "presence", {"event": "track", "payload": {"n": n}})
    socket.system("Client presence rate limit exceeded")
    assert socket.receive().event == "phx_close"
