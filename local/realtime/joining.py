"""phx_join: what a client asks for, and whether it may."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import PoolTimeout

from local.realtime import replay
from local.realtime.authorization import CANCELLED, UNREACHABLE, PolicyFailed, TooSlow, Unavailable
from local.realtime.bindings import bind
from local.realtime.channel import Channel
from local.realtime.frames import Push
from local.realtime.tokens import Identity, TokenError
from local.realtime.topics import Broadcast

if TYPE_CHECKING:
    from local.realtime.session import Session

_USUAL_WAIT_MS, _LONGEST_WAIT_MS = 15_000.0, 60_000.0

log = logging.getLogger(__name__)


class JoinRefused(Exception):
    """Said to the client as `Code: message`."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Config:
    """`config` of a join. What cannot be read is taken for absent: a join is not refused for it."""

    ack: bool = False
    hears_itself: bool = False
    replay: Any = None
    replication_ready: bool = False
    presence_key: str = ""
    presence: bool = False
    private: bool = False
    changes: tuple[dict[str, Any], ...] = ()
    wait_ms: float | None = (
        None  # for the changes: a join without them is refused; None: said after the reply
    )

    @classmethod
    def read(cls, payload: Any) -> "Config":
        config = _object(_object(payload).get("config"))
        broadcast, presence = _object(config.get("broadcast")), _object(config.get("presence"))
        changes, key = config.get("postgres_changes"), presence.get("key")
        waiting = _object(config.get("postgres_changes_options"))
        return cls(
            ack=_switch(broadcast.get("ack")),
            hears_itself=_switch(broadcast.get("self")),
            replay=broadcast.get("replay"),
            replication_ready=_switch(broadcast.get("replication_ready")),
            presence_key=key if isinstance(key, str) else "",
            presence=_switch(presence.get("enabled")),
            private=_switch(config.get("private")),
            changes=tuple(entry for entry in changes if isinstance(entry, dict))
            if isinstance(changes, list)
            else (),
            wait_ms=_milliseconds(waiting.get("timeout")) if _switch(waiting.get("wait")) else None,
        )


async def join(session: "Session", push: Push, join_ref: Any) -> Channel:
    """The channel, ready to be entered. Raises JoinRefused."""
    server = session.server
    name, config = push.topic.removeprefix("realtime:"), Config.read(push.payload)
    if not name:
        raise JoinRefused("TopicNameRequired", "You must provide a topic name")
    if server.settings.private_only and not config.private:
        raise JoinRefused("PrivateOnly", "This project only allows private channels")
    if server.joins.exceeded():
        raise JoinRefused("ClientJoinRateLimitReached", "Too many joins per second")
    if len(session.channels) >= server.settings.max_channels and push.topic not in session.channels:
        raise JoinRefused("ChannelRateLimitReached", "Too many channels")
    identity = _identity(session, _object(push.payload))
    # Nothing that commits after the reply may be missed, so the stream has to be there before it.
    wait_ms = config.wait_ms if config.changes else None
    live = await server.is_live(wait_ms) if config.private or config.changes else True
    if config.private and not live:
        raise JoinRefused("UnableToConnectToProject", UNREACHABLE)
    readable = {"broadcast", "presence"}
    replayed: list[Broadcast] = []
    if config.replay is not None and not config.private:
        raise JoinRefused("UnableToReplayMessages", "Replay is not allowed for public channels")
    try:
        if config.private:
            readable = await server.authorization.readable(
                identity, name, ["broadcast", *(["presence"] if config.presence else [])]
            )
        if not readable:
            raise PolicyFailed
        if config.replay is not None:
            replayed = await replay.read(server.pool, name, config.replay)
    except PolicyFailed:
        reason = f"You do not have permissions to read from this Channel topic: {name}"
        raise JoinRefused("Unauthorized", reason) from None
    except replay.BadReplay as error:
        raise JoinRefused("UnableToReplayMessages", str(error)) from None
    except TooSlow:
        raise JoinRefused("QueryCanceled", CANCELLED) from None
    except (Unavailable, psycopg.Error, PoolTimeout):
        raise JoinRefused("UnableToConnectToProject", UNREACHABLE) from None
    bindings, refusal = bind(config.changes), None
    if bindings:
        try:
            refusal = await server.changes.refusal(bindings, identity) if live else UNREACHABLE
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("UnableToSubscribeToPostgres: %s", error)
            refusal = UNREACHABLE
    if wait_ms is not None and not live:
        late = f"Timed out after {wait_ms:.0f}ms waiting for the postgres_changes subscription"
        raise JoinRefused("PostgresChangesSubscribeTimeout", late)
    if wait_ms is not None and refusal:
        raise JoinRefused("RealtimeDisabledForConfiguration", refusal)
    return Channel(session, push.topic, join_ref, config, identity, readable, bindings, refusal, replayed)


def _identity(session: "Session", payload: dict[str, Any]) -> Identity:
    token = payload.get("access_token") or payload.get("user_token")
    try:
        if not isinstance(token, str) or token.strip().startswith("sb_"):
            session.identity.check_expiry()
            return session.identity
        return session.server.tokens.identify(token)
    except TokenError as error:
        raise JoinRefused(error.code, str(error)) from None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _milliseconds(value: Any) -> float:
    """Upstream's 15 seconds for what is no number of them, and a minute at most."""
    given = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return min(value, _LONGEST_WAIT_MS) if given else _USUAL_WAIT_MS


def _switch(value: Any) -> bool:
    return value is True or value == "true"
