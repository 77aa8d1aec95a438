"""The worker's live side: it hears that there is work, and shows that it is there.

Realtime is a hint. Whatever becomes of the socket, the queue is looked at from time to time all the same.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates
from realtime.types import BroadcastPayload
from websockets.exceptions import WebSocketException

from sidejob import channels
from worker.errors import ProjectError
from worker.retry import delays

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 60.0  # between tries to join
_JOIN_SECONDS = 15.0
_STEADY_SECONDS = 30.0  # a connection that lasted so long was a good one: the next pause is short again
# Hosted projects let a client track its presence five times in 30 seconds.
_PRESENCE_SECONDS = 10.0

State = Mapping[str, Any]


class Live:
    """One socket: it listens on the executor's topics, and speaks on the agent's own.

    token: a fresh access token. state: what presence and `agent.status` show. wake: there may be work.
    cancelled: somebody cancelled a job in the hands of one of the executor's workers. now: the database's
    time.
    """

    def __init__(
        self,
        url: str,
        publishable_key: str,
        token: Callable[[], Awaitable[str]],
        agent_id: str,
        executors: Iterable[str],
        *,
        state: Callable[[], State],
        figures: Callable[[], State],
        wake: Callable[[], None],
        cancelled: Callable[[str], None],
        now: Callable[[], datetime],
        every_seconds: float,
    ) -> None:
        self._url = f"{url}/realtime/v1"
        self._key = publishable_key
        self._token = token
        self._agent = channels.agent(agent_id)
        self._agent_id = agent_id
        self._executors = tuple(executors)
        self._state = state
        self._figures = figures
        self._wake = wake
        self._cancelled = cancelled
        self._now = now
        self._every_seconds = every_seconds
        self._changed = asyncio.Event()
        self.listening = False

    def changed(self) -> None:
        """The state is another one now: say so soon."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. A lost or refused socket is tried again, with backoff and jitter, for ever."""
        pauses = delays(0.5, _LONGEST_PAUSE_SECONDS)
        while True:
            joined_at = None
            try:
                async with asyncio.timeout(_JOIN_SECONDS) as joining:
                    client, channel, lost = await self._join()
                    joining.reschedule(None)
                try:
                    joined_at = time.monotonic()
                    self.listening = True
                    log.info("Realtime answers")
                    self._wake()  # for what was said before anyone listened
                    await self._speak(client, channel, lost)
                finally:
                    self.listening = False
                    await _close(client)
            except (ProjectError, WebSocketException, OSError, TimeoutError, _Refused) as error:
                log.log(
                    logging.INFO if joined_at else logging.DEBUG,
                    "no Realtime: %s",
                    str(error) or type(error).__name__,
                )
            except Exception:
                log.exception("the live side met a bug")
            if joined_at is not None:
                log.warning("Realtime is gone; the queue is polled")
                self._wake()
                if time.monotonic() - joined_at > _STEADY_SECONDS:
                    pauses = delays(0.5, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(next(pauses))

    async def _join(self) -> tuple[AsyncRealtimeClient, AsyncRealtimeChannel, asyncio.Event]:
        """All topics, or none. The library's own reconnect is off: it ends after some tries."""
        client = AsyncRealtimeClient(self._url, self._key, auto_reconnect=False)
        lost = asyncio.Event()
        try:
            await client.set_auth(await self._token())
            await client.connect()
            for topic in self._executors:
                channel = client.channel(topic, _private())
                channel.on_broadcast("task.assign", lambda _: self._wake())
                channel.on_broadcast("task.cancel", self._on_cancel)
                await _subscribe(channel, lost)
            agent = client.channel(self._agent, _private(presence_key=self._agent_id))
            await _subscribe(agent, lost)
        except BaseException:
            await _close(client)
            raise
        return client, agent, lost

    def _on_cancel(self, message: BroadcastPayload) -> None:
        payload = message.get("payload")
        if isinstance(payload, Mapping):  # anybody who may speak on the topic may have sent anything
            self._cancelled(str(payload.get("jobId")))

    async def _speak(
        self, client: AsyncRealtimeClient, agent: AsyncRealtimeChannel, lost: asyncio.Event
    ) -> None:
        """Presence and `agent.status` on change, `worker.metrics` regularly, a new token in time."""
        tracked_at, shown = -_PRESENCE_SECONDS, None
        while not lost.is_set():
            token = await self._token()
            if token != client.access_token:
                await client.set_auth(token)
            self._changed.clear()
            state = dict(self._state())
            if state != shown:
                shown = state
                await agent.send_broadcast("agent.status", state)
            if time.monotonic() - tracked_at >= _PRESENCE_SECONDS:
                tracked_at = time.monotonic()
                seen_at = self._now().astimezone(UTC).isoformat(timespec="milliseconds")
                await agent.track({**state, "lastSeenAt": seen_at})
            await agent.send_broadcast("worker.metrics", {"agentId": self._agent_id, **self._figures()})
            await _first_of(self._every_seconds, lost, self._changed)
            if not lost.is_set() and self._changed.is_set():
                await asyncio.sleep(1)  # a burst of short jobs is one change


class _Refused(Exception):
    """A topic could not be joined."""


def _private(presence_key: str | None = None) -> Any:
    presence = {"key": presence_key or "", "enabled": presence_key is not None}
    return {"config": {"private": True, "broadcast": {"ack": False, "self": False}, "presence": presence}}


async def _subscribe(channel: AsyncRealtimeChannel, lost: asyncio.Event) -> None:
    """Joins; later troubles of the channel set `lost`."""
    answers: list[str] = []

    def on_state(state: RealtimeSubscribeStates, error: Exception | None) -> None:
        answers.append(state if error is None else f"{state}: {error}")
        if state != RealtimeSubscribeStates.SUBSCRIBED:
            lost.set()

    await channel.subscribe(on_state)
    if answers != [RealtimeSubscribeStates.SUBSCRIBED]:
        raise _Refused(f"{channel.topic} {', '.join(answers)[:300]}")


async def _close(client: AsyncRealtimeClient) -> None:
    for channel in client.get_channels():
        channel.rejoin_timer.reset()  # else it joins again on its own
    await client.close()


async def _first_of(seconds: float, *events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
