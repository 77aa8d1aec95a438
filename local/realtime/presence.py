"""Who is present on a topic, by key, told to its members as states and differences."""

import base64
import itertools
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.realtime.frames import Serializer, dumps

if TYPE_CHECKING:
    from local.realtime.channel import Channel
    from local.realtime.topics import Topic


@dataclass(frozen=True, slots=True)
class Meta:
    """What somebody tracks. Encoded once: what can be said of him now can be said to whoever joins later."""

    reference: str
    tracked: dict[str, Any]
    text: str  # JSON


_start = secrets.randbits(48)
_numbers = itertools.count(_start)


def _reference() -> str:
    """Unique and opaque, as clients expect `phx_ref` to be."""
    return base64.b64encode(next(_numbers).to_bytes(9, "big")).decode()


class Presence:
    def __init__(self, topic: "Topic") -> None:
        self._topic = topic
        self._metas: dict[str, dict[Channel, Meta]] = {}  # by presence key

    def track(self, channel: "Channel", payload: dict[str, Any]) -> None:
        """Tells the members, unless nothing changed."""
        key = channel.presence_key
        before = self._metas.get(key, {}).get(channel)
        if before is not None and before.tracked == payload:
            return
        told = {**payload, "phx_ref": _reference()}
        if before is not None:
            told["phx_ref_prev"] = before.reference
        meta = Meta(told["phx_ref"], payload, dumps(told))
        self._metas.setdefault(key, {})[channel] = meta
        self._tell(joins={key: [meta]}, leaves={key: [before]} if before is not None else {})

    def untrack(self, channel: "Channel") -> None:
        mine = self._metas.get(channel.presence_key, {})
        if (meta := mine.pop(channel, None)) is None:
            return
        if not mine:
            del self._metas[channel.presence_key]
        self._tell(joins={}, leaves={channel.presence_key: [meta]})

    def state(self) -> str:
        """The payload of `presence_state`."""
        return _encoded({key: metas.values() for key, metas in self._metas.items()})

    def _tell(self, joins: Mapping[str, Iterable[Meta]], leaves: Mapping[str, Iterable[Meta]]) -> None:
        payload = f'{{"joins":{_encoded(joins)},"leaves":{_encoded(leaves)}}}'
        address = f"realtime:{self._topic.name}"
        frames: dict[Serializer, bytes] = {}
        for member in self._topic.channels:
            if not member.hears_presence:
                continue
            encode = member.connection.serializer
            if encode not in frames:
                frames[encode] = encode.encode(None, None, address, "presence_diff", payload)
            member.connection.send(frames[encode])


def _encoded(entries: Mapping[str, Iterable[Meta]]) -> str:
    parts = [
        f'{dumps(key)}:{{"metas":[{",".join(meta.text for meta in metas)}]}}'
        for key, metas in entries.items()
    ]
    return f"{{{','.join(parts)}}}"
