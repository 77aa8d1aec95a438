"""Topics and who is on them. A public and a private topic of one name are two topics."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local.realtime.frames import JSON, V1, Serializer, dumps, user_broadcast_frame
from local.realtime.presence import Presence

if TYPE_CHECKING:
    from local.realtime.channel import Channel


@dataclass(slots=True)
class Broadcast:
    """One broadcast to the members of a topic, encoded once for each serializer.

    `whole` is the payload of a text broadcast, forwarded as it came. Otherwise there are an event and a body,
    which serializer 2.0.0 gets as a binary frame and 1.0.0 as an object; 1.0.0 cannot say a raw body.
    """

    whole: str | None = None  # JSON
    event: str = ""
    body: bytes = b""
    encoding: int = JSON
    meta: str = ""  # JSON or nothing
    id: str | None = None  # the row's in realtime.messages
    _frames: dict[Serializer, bytes | None] = field(default_factory=dict)

    def frame(self, serializer: Serializer, topic: str) -> bytes | None:
        """None when this serializer cannot say it."""
        if serializer not in self._frames:
            self._frames[serializer] = self._encode(serializer, topic)
        return self._frames[serializer]

    def _encode(self, serializer: Serializer, topic: str) -> bytes | None:
        if self.whole is not None:
            return serializer.encode(None, None, topic, "broadcast", self.whole)
        if serializer is not V1:
            binary = user_broadcast_frame(topic, self.event, self.meta, self.encoding, self.body)
            if binary or self.encoding != JSON:
                return binary
        if self.encoding != JSON:
            return None
        meta = f',"meta":{self.meta}' if self.meta else ""
        event, body = dumps(self.event), self.body.decode()
        payload = f'{{"type":"broadcast","event":{event},"payload":{body}{meta}}}'
        return serializer.encode(None, None, topic, "broadcast", payload)


class Topic:
    def __init__(self, name: str, private: bool) -> None:
        self.name = name  # without "realtime:"
        self.private = private
        self.channels: dict[Channel, None] = {}  # in order of joining
        self.presence = Presence(self)

    def broadcast(self, message: Broadcast, *, without: "Channel | None" = None) -> None:
        address = f"realtime:{self.name}"
        for channel in self.channels:
            if channel is without or not channel.hears_broadcasts or message.id in channel.replayed:
                continue
            if frame := message.frame(channel.connection.serializer, address):
                channel.connection.send(frame)


class Topics:
    def __init__(self) -> None:
        self._topics: dict[tuple[str, bool], Topic] = {}

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._topics.values()))

    def find(self, name: str, private: bool) -> Topic | None:
        return self._topics.get((name, private))

    def enter(self, channel: "Channel") -> Topic:
        key = (channel.name, channel.private)
        topic = self._topics.get(key) or self._topics.setdefault(key, Topic(*key))
        topic.channels[channel] = None
        return topic

    def leave(self, channel: "Channel") -> None:
        topic = channel.topic
        topic.channels.pop(channel, None)
        topic.presence.untrack(channel)
        if not topic.channels and self._topics.get((topic.name, topic.private)) is topic:
            del self._topics[topic.name, topic.private]

    def broadcast(self, name: str, private: bool, message: Broadcast) -> None:
        """To whoever is there; without members it is gone."""
        if topic := self.find(name, private):
            topic.broadcast(message)
