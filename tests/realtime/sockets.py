"""A client of the Realtime server that says exactly what a test wants said, in either serializer."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

SECONDS = 120.0  # a test waits this long for a message that has to come


@dataclass(frozen=True)
class Message:
    join_ref: Any
    ref: Any
    topic: str
    event: str
    payload: Any


@dataclass
class Socket:
    """One socket. `ref`s count up from 1; a join's ref is its join_ref."""

    connection: ClientConnection
    version: str
    refs: int = 0
    join_refs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, address: str, key: str, version: str = "2.0.0", **query: str) -> Self:
        """`address` is the project's, or a server's own."""
        words = urlencode({"apikey": key, "vsn": version, **query})
        url = f"{address.replace('http', 'ws', 1)}/realtime/v1/websocket?{words}"
        return cls(connect(url, max_size=None, compression=None, proxy=None, open_timeout=SECONDS), version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, topic: str, event: str, payload: Any, join_ref: Any = ..., ref: Any = ...) -> str:
        """Returns the ref."""
        self.refs += 1
        ref = str(self.refs) if ref is ... else ref
        join_ref = self.join_refs.get(topic) if join_ref is ... else join_ref
        if self.version == "1.0.0":
            whole: Any = {
                "topic": topic,
                "event": event,
                "payload": payload,
                "ref": ref,
                "join_ref": join_ref,
            }
        else:
            whole = [join_ref, ref, topic, event, payload]
        self.connection.send(json.dumps(whole))
        return str(ref)

    def send_binary(self, topic: str, event: str, body: bytes, encoding: int = 1) -> None:
        """A broadcast as realtime-js 2 sends it: a frame of kind 3."""
        self.refs += 1
        words = [self.join_refs[topic], str(self.refs), topic, event, ""]
        parts = [word.encode() for word in words]
        self.connection.send(bytes([3, *map(len, parts), encoding]) + b"".join(parts) + body)

    def join(self, name: str, token: str | None = None, **config: Any) -> Message:
        """The reply to the join."""
        topic = f"realtime:{name}"
        payload = {"config": config} | ({"access_token": token} if token else {})
        ref = self.send(topic, "phx_join", payload, join_ref=str(self.refs + 1))
        self.join_refs[topic] = ref
        return self.until(lambda message: message.event == "phx_reply" and message.ref == ref)

    def joined(self, name: str, token: str | None = None, **config: Any) -> dict[str, Any]:
        """The response of a join that has to succeed; with postgres_changes, once they flow."""
        payload = self.join(name, token, **config).payload
        assert payload["status"] == "ok", payload
        if config.get("postgres_changes"):
            self.system("Subscribed to PostgreSQL")
        return dict(payload["response"])

    def refused(self, name: str, token: str | None = None, **config: Any) -> str:
        """The reason of a join that has to fail."""
        payload = self.join(name, token, **config).payload
        assert payload["status"] == "error", payload
        return str(payload["response"]["reason"])

    def receive(self, seconds: float = SECONDS) -> Message:
        data = self.connection.recv(timeout=seconds)
        if isinstance(data, bytes):
            return _user_broadcast(data)
        whole = json.loads(data)
        if self.version == "1.0.0":
            assert set(whole) == {"topic", "event", "payload", "ref"}
            return Message(None, whole["ref"], whole["topic"], whole["event"], whole["payload"])
        return Message(*whole)

    def until(self, wanted: Callable[[Message], bool], seconds: float = SECONDS) -> Message:
        """The first message like this; others before it are passed over."""
        deadline = time.monotonic() + seconds
        passed = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.receive(left)
            except TimeoutError:
                break
            if wanted(message):
                return message
            passed.append(message)
        raise AssertionError(f"no such message; there came {passed}")

    def event(self, event: str) -> Any:
        """The payload of the next message of this event."""
        return self.until(lambda message: message.event == event).payload

    def system(self, text: str) -> Message:
        return self.until(lambda message: message.event == "system" and text in message.payload["message"])

    def reply(self, topic: str, event: str, payload: Any) -> Any:
        ref = self.send(topic, event, payload)
        return self.until(lambda message: message.event == "phx_reply" and message.ref == ref).payload

    def silent(self) -> list[Message]:
        """What came before the answer to a heartbeat sent now: whatever was on its way."""
        ref = self.send("phoenix", "heartbeat", {})
        came: list[Message] = []
        while True:
            message = self.receive()
            if message.topic == "phoenix" and message.ref == ref:
                return came
            came.append(message)

    def close_code(self) -> int | None:
        """How the server closed it."""
        try:
            while True:
                self.connection.recv(timeout=SECONDS)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


def _user_broadcast(data: bytes) -> Message:
    kind, encoding = data[0], data[4]
    assert kind == 4
    parts, at = [], 5
    for length in data[1:4]:
        parts.append(data[at : at + length].decode())
        at += length
    topic, event, meta = parts
    payload: dict[str, Any] = {"type": "broadcast", "event": event}
    payload["payload"] = json.loads(data[at:]) if encoding == 1 else data[at:]
    if meta:
        payload["meta"] = json.loads(meta)
    return Message(None, None, topic, "broadcast", payload)


def changes(*entries: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a join's config that asks for postgres_changes."""
    return {"postgres_changes": [dict(entry) for entry in entries]}
