"""The Phoenix protocol of one socket: which topics it has joined, and where a message goes."""

import logging
import time
from typing import TYPE_CHECKING, Any

from local.realtime.channel import Channel
from local.realtime.frames import OK, V1, Push, dumps
from local.realtime.joining import JoinRefused, join
from local.realtime.tokens import Identity

if TYPE_CHECKING:
    from local.realtime.connection import Connection
    from local.realtime.server import Server

log = logging.getLogger(__name__)


class Session:
    def __init__(self, server: "Server", connection: "Connection", identity: Identity) -> None:
        self.server = server
        self.connection = connection
        self.identity = identity  # of the API key, for joins without a token
        self.channels: dict[str, Channel] = {}  # by topic, with "realtime:"
        self.used_at = time.monotonic()  # when it last had a channel

    async def handle(self, push: Push) -> None:
        if push.topic == "phoenix" and push.event == "heartbeat":
            self.connection.push(None, push.ref, "phoenix", "phx_reply", OK)
        elif push.event == "phx_join":
            await self._join(push)
        elif channel := self.channels.get(push.topic):
            if push.join_ref is None or push.join_ref == channel.join_ref:
                await self._to(channel, push)
        elif push.event == "phx_leave":
            self.reply(push, OK)
        else:
            self.reply(push, _error("unmatched topic"))

    async def _to(self, channel: Channel, push: Push) -> None:
        if push.event == "phx_leave":
            # Back to back: who joins anew would take a close that comes late for his own.
            self.reply(push, OK)
            channel.close()
        elif self.server.events.exceeded():
            channel.shut_down("Too many messages per second")
        else:
            await channel.handle(push)

    async def _join(self, push: Push) -> None:
        join_ref = push.join_ref if push.join_ref is not None else push.ref
        if before := self.channels.get(push.topic):
            before.forget()
        channel: Channel | None = None
        try:
            if not push.topic.startswith("realtime:"):
                raise JoinRefused(None, "unmatched topic")
            channel = await join(self, push, join_ref)
            answer = channel.join_reply()
        except JoinRefused as refused:
            log.info("%s joins %s in vain: %s", self.identity.role, push.topic, refused)
            answer = _error(str(refused))
            if refused.code == "ClientJoinRateLimitReached":
                self.connection.close_soon(1001)
        except Exception:
            log.exception("UnknownErrorOnChannel")
            answer = _error("Unknown Error on Channel")
        if not self.connection.open:
            return
        if channel:
            self.channels[push.topic] = channel
            channel.enter()
        self.connection.push(join_ref, push.ref, push.topic, "phx_reply", answer)
        # A client of 1.0.0 would take the old channel's close for its new channel's.
        if before and self.connection.serializer is not V1:
            self.connection.push(before.join_ref, before.join_ref, push.topic, "phx_close", "{}")
        if channel:
            channel.begin()

    def reply(self, push: Push, payload: str) -> None:
        self.connection.push(push.join_ref, push.ref, push.topic, "phx_reply", payload)

    def note_use(self) -> None:
        self.used_at = time.monotonic()

    def end(self) -> None:
        """The socket is gone."""
        for channel in list(self.channels.values()):
            channel.forget()


def _error(reason: str) -> str:
    response: dict[str, Any] = {"status": "error", "response": {"reason": reason}}
    return dumps(response)
