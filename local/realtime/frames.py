"""Messages in their two encodings: serializer 1.0.0 (JSON objects), 2.0.0 (JSON arrays, binary broadcasts).

What goes out is made of JSON text and kept as the bytes of a WebSocket frame: one message to many clients is
encoded once, and a number of Postgres keeps all its digits.
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from websockets.frames import Frame, Opcode

OK = '{"status":"ok","response":{}}'  # a reply without words
USER_PUSH, USER_BROADCAST = 3, 4  # kinds of binary frames: from a client, to a client
RAW, JSON = 0, 1  # encodings of a binary frame's payload


class Malformed(Exception):
    """A message that cannot be read. It is logged and dropped; the socket stays."""


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(text: str | bytes) -> Any:
    """Raises Malformed, also for what Python takes for JSON and browsers do not."""
    try:
        words = text if isinstance(text, str) else text.decode()
        return json.loads(words, parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {error}") from error


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


@dataclass(frozen=True, slots=True)
class UserPush:
    """A broadcast that came as a binary frame."""

    event: str
    encoding: int  # RAW or JSON
    body: bytes


@dataclass(frozen=True, slots=True)
class Push:
    """A message from a client."""

    join_ref: Any  # which join it belongs to; null: the present one
    ref: Any  # comes back in the reply, as it is
    topic: str
    event: str
    payload: Any  # JSON, or UserPush


class V1:
    version: ClassVar[str] = "1.0.0"

    @staticmethod
    def decode(data: str | bytes) -> Push:
        if isinstance(data, bytes):
            raise Malformed("a binary frame, which serializer 1.0.0 does not have")
        message = loads(data)
        if not isinstance(message, dict) or not {"topic", "event", "payload", "ref"} <= message.keys():
            raise Malformed("a message is an object with topic, event, payload and ref")
        return _push(*(message.get(key) for key in ("join_ref", "ref", "topic", "event", "payload")))

    @staticmethod
    def encode(join_ref: Any, ref: Any, topic: str, event: str, payload: str) -> bytes:  # noqa: ARG004  2.0.0 has it
        return text_frame(
            f'{{"topic":{_word(topic)},"event":{_word(event)},"payload":{payload},"ref":{dumps(ref)}}}'
        )


class V2:
    version: ClassVar[str] = "2.0.0"

    @staticmethod
    def decode(data: str | bytes) -> Push:
        if isinstance(data, bytes):
            return _user_push(data)
        message = loads(data)
        if not isinstance(message, list) or len(message) != 5:
            raise Malformed("a message is an array of join_ref, ref, topic, event and payload")
        return _push(*message)

    @staticmethod
    def encode(join_ref: Any, ref: Any, topic: str, event: str, payload: str) -> bytes:
        return text_frame(f"[{dumps(join_ref)},{dumps(ref)},{_word(topic)},{_word(event)},{payload}]")


Serializer = type[V1] | type[V2]


def serializer(version: str | None) -> Serializer | None:
    """By the `vsn` of the address; 1.0.0 without one, None for one that is not served."""
    major, _, rest = (version or "1.0.0").partition(".")
    known: dict[str, Serializer] = {"1": V1, "2": V2}
    return known.get(major) if rest.startswith("0.") else None


@lru_cache(4096)
def _word(text: str) -> str:
    return dumps(text)


def text_frame(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode("utf-8", "replace")).serialize(mask=False)


def user_broadcast_frame(topic: str, event: str, meta: str, encoding: int, body: bytes) -> bytes | None:
    """Kind 4. None when a part is longer than its length byte can say."""
    parts = [topic.encode(), event.encode(), meta.encode()]
    if any(len(part) > 255 for part in parts):
        return None
    header = bytes([USER_BROADCAST, *map(len, parts), encoding])
    return Frame(Opcode.BINARY, b"".join([header, *parts, body])).serialize(mask=False)


def _user_push(data: bytes) -> Push:
    """Kind 3: seven bytes, then join_ref, ref, topic, event, metadata (`persist`, not served), payload."""
    if len(data) < 7 or data[0] != USER_PUSH or data[6] not in (RAW, JSON):
        raise Malformed("a binary frame that is no broadcast")
    lengths, parts, at = data[1:6], [], 7
    for length in lengths:
        parts.append(data[at : at + length])
        at += length
    if at > len(data):
        raise Malformed("a binary frame whose lengths do not add up")
    try:
        join_ref, ref, topic, event, _ = (part.decode() for part in parts)
    except UnicodeDecodeError as error:
        raise Malformed(str(error)) from error
    if data[6] == JSON:
        loads(data[at:])  # who hears it could not read it either
    return Push(join_ref or None, ref or None, topic, "broadcast", UserPush(event, data[6], data[at:]))


def _push(join_ref: Any, ref: Any, topic: Any, event: Any, payload: Any) -> Push:
    if not isinstance(topic, str) or not isinstance(event, str):
        raise Malformed("topic and event are text")
    return Push(join_ref, ref, topic, event, payload)
