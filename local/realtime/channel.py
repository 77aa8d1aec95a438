"""One socket on one topic: what it may hear and say, and for how long."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import PoolTimeout

from local.realtime.authorization import CANCELLED, UNREACHABLE, PolicyFailed, TooSlow, Unavailable
from local.realtime.bindings import Binding
from local.realtime.frames import OK, Push, UserPush, dumps
from local.realtime.limits import Rate
from local.realtime.tokens import Identity, TokenError
from local.realtime.topics import Broadcast, Topic

if TYPE_CHECKING:
    from local.realtime.joining import Config
    from local.realtime.session import Session

_LONGEST_TIMER = 3600.0  # seconds; a token may live for years
_SLACK_BYTES = 500  # around a payload
_READY_SECONDS = 60.0  # for the change stream

log = logging.getLogger(__name__)


class Channel:
    def __init__(
        self, session: "Session", address: str, join_ref: Any, config: "Config", identity: Identity,
        readable: set[str], bindings: list[Binding], refusal: str | None, replayed: Sequence[Broadcast],
    ) -> None:  # fmt: skip
        self.session = session
        self.connection = session.connection
        self.server = session.server
        self.address = address  # with "realtime:"
        self.name = address.removeprefix("realtime:")
        self.join_ref = join_ref
        self.private = config.private
        self.presence_key = config.presence_key or str(uuid.uuid4())
        self.identity = identity
        self.bindings = bindings
        self.replayed = frozenset(message.id for message in replayed)
        self.topic: Topic  # once entered
        self._config = config
        self._presence = config.presence
        self._readable = readable  # extensions
        self._writable: dict[str, bool] = {}  # by extension, as far as asked with the present token
        self._refusal = refusal  # of the bindings
        self._to_replay = replayed
        self._presence_calls = Rate(self.server.settings.max_presence_calls, 30)
        self._expiry: asyncio.TimerHandle | None = None
        self._ready: asyncio.Task[None] | None = None

    @property
    def joined(self) -> bool:
        """Still? It may have been left while the database was asked."""
        return self.session.channels.get(self.address) is self

    @property
    def hears_broadcasts(self) -> bool:
        return "broadcast" in self._readable

    @property
    def hears_presence(self) -> bool:
        return "presence" in self._readable and (self._presence or not self.private)

    # Coming and going.

    def enter(self) -> None:
        """From here on everything reaches it; the join's reply is sent in the same turn of the loop."""
        self.topic = self.server.topics.enter(self)
        if not self._refusal:
            self.server.changes.add(self)
        self._watch_expiry()

    def join_reply(self) -> str:
        told = [binding.told for binding in self.bindings]
        return dumps({"status": "ok", "response": {"postgres_changes": told}})

    def begin(self) -> None:
        """What follows the join's reply."""
        for message in self._to_replay:
            if frame := message.frame(self.connection.serializer, self.address):
                self.connection.send(frame)
        self._to_replay = ()
        if self._presence and self.hears_presence:
            self._push("presence_state", self.topic.presence.state())
        self._say_whether_subscribed()
        if self._config.replication_ready:
            self._ready = asyncio.create_task(self._say_when_ready())

    def forget(self) -> None:
        """Leaves without a word."""
        if self.joined:
            del self.session.channels[self.address]
        self.session.note_use()
        self.server.changes.remove(self)
        self.server.topics.leave(self)
        for timer in (self._expiry, self._ready):
            if timer:
                timer.cancel()

    def close(self) -> None:
        self.connection.push(self.join_ref, self.join_ref, self.address, "phx_close", "{}")
        self.forget()

    def fail(self) -> None:
        """Something may have been missed: official clients join anew, and then catch up."""
        self.connection.push(self.join_ref, self.join_ref, self.address, "phx_error", "{}")
        self.forget()

    def shut_down(self, message: str) -> None:
        if not self.joined:
            return
        self._say("system", "error", message)
        self.close()

    # What the client sends.

    async def handle(self, push: Push) -> None:
        """Events that are not known are ignored."""
        if push.event == "broadcast":
            await self._broadcast(push)
        elif push.event == "presence":
            await self._track(push)
        elif push.event == "access_token":
            token = push.payload.get("access_token") if isinstance(push.payload, dict) else None
            if isinstance(token, str) and token != self.identity.token and not token.startswith("sb_"):
                await self._renew(token)

    async def _broadcast(self, push: Push) -> None:
        problem = await self._write_problem("broadcast")
        if isinstance(push.payload, UserPush):
            given = push.payload
            message = Broadcast(event=given.event, body=given.body, encoding=given.encoding)
            size = len(given.body)
        else:
            text = dumps(push.payload)
            message, size = Broadcast(whole=text), len(text.encode("utf-8", "replace"))
        if not problem and size > self.server.settings.max_payload_bytes + _SLACK_BYTES:
            problem = "payload_size_exceeded"
        if not problem:
            self.topic.broadcast(message, without=None if self._config.hears_itself else self)
        if self._config.ack:
            self._answer(push, "error" if problem else "ok", {"error": problem} if problem else {})

    async def _track(self, push: Push) -> None:
        payload = push.payload if isinstance(push.payload, dict) else {}
        event, meta = str(payload.get("event", "")).lower(), payload.get("payload", {})
        if self._presence_calls.exceeded():
            self.shut_down("Client presence rate limit exceeded")
        elif await self._write_problem("presence") or event not in ("track", "untrack"):
            self._answer(push, "error", {})
        elif not self.joined:
            pass  # nobody would ever take it off the list again
        elif event == "untrack":
            self.topic.presence.untrack(self)
            self._answer(push, "ok", {})
        elif not isinstance(meta, dict):
            self._answer(push, "error", {"reason": "Presence track payload must be a map"})
        elif len(dumps(meta)) > self.server.settings.max_payload_bytes + _SLACK_BYTES:
            self.shut_down("Track message size exceeded")
        else:
            if not self._presence:
                await self._begin_presence()
            if self.joined:
                self._answer(push, "ok", {})
                self.topic.presence.track(self, meta)

    async def _begin_presence(self) -> None:
        """For who tracks without having asked for presence when he joined."""
        self._presence = True
        if self.private:
            await self._read_again()
        if self.hears_presence and self.joined:
            self._push("presence_state", self.topic.presence.state())

    async def _write_problem(self, extension: str) -> str | None:
        """Why the client may not speak, as upstream's code; asked once a token."""
        if not self.private:
            return None
        try:
            if extension not in self._writable:
                self._writable[extension] = await self.server.authorization.writable(
                    self.identity, self.name, extension
                )
        except PolicyFailed:
            return "rls_policy_error"
        except TooSlow:
            return "query_canceled"
        except Unavailable:
            return "unable_to_connect_to_project"
        return None if self._writable[extension] else "unauthorized"

    # Tokens.

    async def _renew(self, token: str) -> None:
        try:
            self.identity = self.server.tokens.identify(token)
        except TokenError as error:
            self.shut_down(str(error))
            return
        self._writable.clear()
        self._watch_expiry()
        if self.private:
            await self._read_again()
        if self.bindings and self.joined:
            await self._subscribe_again()

    async def _read_again(self) -> None:
        extensions = ["broadcast", *(["presence"] if self._presence else [])]
        try:
            self._readable = await self.server.authorization.readable(self.identity, self.name, extensions)
        except PolicyFailed:
            self._readable = set()
        except TooSlow:
            self.shut_down(CANCELLED)
            return
        except Unavailable:
            self.shut_down(UNREACHABLE)
            return
        if not self._readable:
            self.shut_down(f"You no longer have permission to read from this Channel topic: {self.name}")

    async def _subscribe_again(self) -> None:
        try:
            self._refusal = await self.server.changes.refusal(self.bindings, self.identity)
        except (psycopg.Error, PoolTimeout):
            self._refusal = UNREACHABLE
        if self.joined:
            (self.server.changes.remove if self._refusal else self.server.changes.add)(self)
            self._say_whether_subscribed()

    def _watch_expiry(self) -> None:
        if self._expiry:
            self._expiry.cancel()
        seconds = min(self.identity.expires_in, _LONGEST_TIMER)
        self._expiry = asyncio.get_running_loop().call_later(max(0.0, seconds), self._check_expiry)

    def _check_expiry(self) -> None:
        try:
            self.identity.check_expiry()
        except TokenError as error:
            self.shut_down(str(error))
        else:
            self._watch_expiry()

    # Words.

    def _say_whether_subscribed(self) -> None:
        if self._refusal:
            self._say("postgres_changes", "error", self._refusal)
        elif self.bindings and self.server.stream.live.is_set():
            self._say("postgres_changes", "ok", "Subscribed to PostgreSQL")

    async def _say_when_ready(self) -> None:
        try:
            await asyncio.wait_for(self.server.stream.live.wait(), _READY_SECONDS)
        except TimeoutError:
            self.shut_down("Replication connection was not established in time")
        else:
            self._say("system", "ok", "Replication connection established")

    def _say(self, extension: str, status: str, message: str) -> None:
        self._push(
            "system",
            dumps({"extension": extension, "status": status, "message": message, "channel": self.name}),
        )

    def _push(self, event: str, payload: str) -> None:
        self.connection.push(None, None, self.address, event, payload)

    def _answer(self, push: Push, status: str, response: dict[str, Any]) -> None:
        payload = dumps({"status": status, "response": response}) if response or status != "ok" else OK
        self.connection.push(self.join_ref, push.ref, self.address, "phx_reply", payload)
