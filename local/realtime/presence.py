"""Who is present on a topic, by key, told to its members as states and differences."""

import base64
import itertools
import secrets
from typing import TYPE_CHECKING, Any

from local.realtime.frames import Serializer, dumps

if TYPE_CHECKING:
    from local.realtime.channel import Channel
    from local.realtime.topics import Topic

Meta = dict[str, Any]

_start = secrets.randbits(48)
_numbers = itertools.count(_start)


def _reference() -> str:
    """Unique and opaque, as clients expect `phx_ref` to be."""
    return base64.b64encode(next(_numbers).to_bytes(9, "big")).decode()


class Presence:
    def __init__(self, topic: "Topic") -> None:
        self._topic = topic
        self._metas: dict[str, dict[Channel, Meta]] = {}  # by presence key

    def track(self, channel: "Channel", payload: Meta) -> None:
        """Tells the members, unless nothing changed."""
        key = channel.presence_key
        mine = self._metas.setdefault(key, {})
        before = mine.get(channel)
        if before is not None and _told(before) == payload:
            return
        meta = {**payload, "phx_ref": _reference()}
        if before is not None:
            meta["phx_ref_prev"] = before["phx_ref"]
        mine[channel] = meta
        self._tell(joins={key: meta}, leaves={key: before} if before is not None else {})

    def untrack(self, channel: "Channel") -> None:
        mine = self._metas.get(channel.presence_key, {})
        if (meta := mine.pop(channel, None)) is None:
            return
        if not mine:
            del self._metas[channel.presence_key]
        self._tell(joins={}, leaves={channel.presence_key: meta})

    def state(self) -> str:
        """The payload of `presence_state`."""
        return dumps({key: {"metas": [*metas.values()]} for key, metas in self._metas.items() if metas})

    def _tell(self, joins: dict[str, Meta], leaves: dict[str, Meta]) -> None:
        difference = {
            "joins": {key: {"metas": [meta]} for key, meta in joins.items()},
            "leaves": {key: {"metas": [meta]} for key, meta in leaves.items()},
        }
        payload, address = dumps(difference), f"realtime:{self._topic.name}"
        frames: dict[Serializer, bytes] = {}
        for member in self._topic.channels:
            if not member.hears_presence:
                continue
            encode = member.connection.serializer
            if encode not in frames:
                frames[encode] = encode.encode(None, None, address, "presence_diff", payload)
            member.connection.send(frames[encode])


def _told(meta: Meta) -> Meta:
    return {key: value for key, value in meta.items() if key not in ("phx_ref", "phx_ref_prev")}
