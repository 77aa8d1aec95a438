"""Follow one job from Python, with supabase-py's AsyncClient: each event once, in order, whatever fails.

    async for event in watch(client, job_id):
        print(event["seq"], event["event_type"])

Realtime is a hint, the table is the truth: a message says that it is worth looking, and what is yielded was
read. Whoever uses this has the package `supabase`; no function imports it.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from sidejob import channels, history
from sidejob.errors import UPSTREAM
from sidejob.verdicts import verdict

if TYPE_CHECKING:
    from realtime import AsyncRealtimeChannel, RealtimeChannelOptions
    from realtime.types import BroadcastPayload
    from supabase import AsyncClient

T = TypeVar("T")
Event = dict[str, Any]  # a row of job_events

log = logging.getLogger(__name__)

FLOOR_SECONDS = 30.0  # between two looks at the table while Realtime answers
DEAF_SECONDS = 2.0  # and while it does not
PAGE = 500  # rows a look; hosted projects give 1,000 at most
JOIN_SECONDS = 30.0  # how long one try to join may take; supabase-py connects up to five times in it
LEAVE_SECONDS = 2.0  # how long the server may take to say that it has heard us leave
CHECK_SECONDS = 5.0  # between two looks at a channel that may have been closed without a word
STEADY_SECONDS = 30.0  # a channel that lasted so long was a good one: the next pause is short again
LONGEST_PAUSE_SECONDS = 30.0
REFUSALS = 5  # how often a token may be refused, or a table be unknown: both may be on their way just now

_NO_RIGHTS = "42501"  # on the table itself: nobody is signed in


class JobNotFound(LookupError):
    """There is no such job, or not for this caller: the database does not tell them apart."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"There is no job {job_id} that you may see. Did this client sign in?")


async def watch(client: "AsyncClient", job_id: str | UUID, after: int = 0) -> AsyncGenerator[Event, None]:
    """The events of a job after the seq `after`, each as it comes; ends with the job's last event.

    An outage of the project is waited out. Who may leave early writes
    `async with contextlib.aclosing(watch(…)) as events`, so that the channel is left at once.
    Raises ValueError for an id that is no UUID, JobNotFound at the start and when the job is taken out of the
    caller's sight, postgrest's APIError for what waiting does not mend, such as a session that has ended.
    """
    job_id = str(UUID(str(job_id)))
    if history.is_over(await _patiently(client, lambda: _job(client, job_id)), after):
        return
    async with _Hints(client, channels.job(job_id), after) as hints:
        while True:
            hints.forget()
            rows = await _patiently(client, lambda seq=after: _rows(client, job_id, seq))  # type: ignore[misc]
            fresh = history.following(rows, after)
            for event in fresh:
                hints.seq = after = event["seq"]
                yield event
                if event["event_type"] in history.LAST_EVENTS:
                    return
            if not rows:
                job = await _patiently(client, lambda: _job(client, job_id))
                if history.is_over(job, after):
                    return
            if len(fresh) < PAGE:
                whole = len(fresh) == len(rows)
                await hints.wait(FLOOR_SECONDS if hints.live and whole else DEAF_SECONDS)


async def _rows(client: "AsyncClient", job_id: str, after: int) -> list[Event]:
    asked = client.table("job_events").select("*").eq("job_id", job_id).gt("seq", after)
    rows = _understood((await asked.order("seq").limit(PAGE).execute()).data)
    if not all(isinstance(row.get("seq"), int) and "event_type" in row for row in rows):
        raise _Misunderstood
    return rows


async def _job(client: "AsyncClient", job_id: str) -> Event:
    from postgrest import CountMethod
    from postgrest.exceptions import APIError

    # The count is in a header that PostgREST sends: to supabase-py a proxy's empty answer is an empty list.
    wanted = client.table("jobs").select("status,event_seq", count=CountMethod.exact)
    try:
        answer = await wanted.eq("id", job_id).limit(1).execute()
        rows = _understood(answer.data)
    except APIError as error:
        if error.code == _NO_RIGHTS:
            raise JobNotFound(job_id) from error
        raise
    if not rows and answer.count is None:
        raise _Misunderstood
    if not rows:
        raise JobNotFound(job_id)
    if not isinstance(rows[0].get("event_seq"), int) or "status" not in rows[0]:
        raise _Misunderstood
    return rows[0]


class _Misunderstood(Exception):
    """An answer that is none of the project's, such as a proxy's page."""


def _understood(data: object) -> list[Event]:
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise _Misunderstood
    return data


async def _patiently(client: "AsyncClient", ask: Callable[[], Awaitable[T]]) -> T:
    """What is asked for, once the project gives it. Raises what waiting does not mend."""
    import httpx
    from postgrest.exceptions import APIError

    refusals = tries = 0
    while True:
        try:
            return await ask()
        except (httpx.TransportError, httpx.DecodingError) as error:
            log.debug("the project cannot be reached: %r", error)
        except (_Misunderstood, ValueError, RecursionError) as error:
            log.debug("that was no answer of the project: %r", error)
        except APIError as error:
            code = str(error.code or "")
            of_token = _is_of_token(code)
            refusals += of_token or UPSTREAM.get(code) == "schema_outdated"
            if refusals > REFUSALS or (verdict(code) != "later" and not of_token):
                raise
            log.debug("the project does not answer well: %r", error)
            if of_token:
                with contextlib.suppress(Exception):
                    await client.auth.get_session()  # refreshes it when it has expired
        await asyncio.sleep(_pause(tries))
        tries += 1


def _is_of_token(code: str) -> bool:
    """Was the token refused, or did a gateway refuse without a code? It may be refreshed just now."""
    return not code or code == "401" or UPSTREAM.get(code) == "invalid_token"


def _pause(tries: int) -> float:
    """Seconds: half a second, doubled each time, with jitter."""
    return min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1)


class _Hints:
    """Says when it is worth looking at the table. Keeps the topic joined while it is entered."""

    def __init__(self, client: "AsyncClient", topic: str, seq: int) -> None:
        self._client = client
        self._topic = topic
        self._heard = asyncio.Event()
        self.seq = seq  # the last one that was seen: messages about it and those before it are no news
        self.live = False  # joined

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_joined())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def forget(self) -> None:
        """From here on, `wait` returns for what is heard later."""
        self._heard.clear()

    async def wait(self, seconds: float) -> None:
        """Until there may be news, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()

    async def _stay_joined(self) -> None:
        tries = 0
        while True:
            started = time.monotonic()
            try:
                await self._joined()
            except Exception as error:  # noqa: BLE001  whatever it is, the table is read all the same
                log.debug("no Realtime for %s: %r", self._topic, error)
            tries = 0 if time.monotonic() - started > STEADY_SECONDS else tries + 1
            await asyncio.sleep(_pause(tries))

    async def _joined(self) -> None:
        """Joins, and returns when the channel is lost. Each try is a new channel: supabase-py forgets one
        that was closed, and gives up on a socket after some tries."""
        realtime = self._client.realtime
        if f"realtime:{self._topic}" in realtime.channels:
            return  # somebody else's: a client has one channel a topic, and its owner may close it
        lost, left = asyncio.Event(), asyncio.Event()

        def on_state(state: str, _: Exception | None) -> None:
            if state == "SUBSCRIBED":
                self.live = not lost.is_set()
                self._heard.set()  # for what happened before anybody listened
            else:
                lost.set()
            if state == "CLOSED":
                left.set()

        channel = self._client.channel(self._topic, _private())
        channel.on_broadcast("*", self._on_message)
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await channel.subscribe(on_state)
            while channel.is_joined and realtime.is_connected and not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await lost.wait()
        finally:
            lost.set()
            self.live = False
            self._heard.set()  # so that the next look comes after the shorter pause
            await self._leave(channel, left)

    async def _leave(self, channel: "AsyncRealtimeChannel", left: asyncio.Event) -> None:
        realtime = self._client.realtime
        if realtime.is_connected and (channel.is_joined or channel.is_joining):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await channel.unsubscribe()
                    await left.wait()
        channel.rejoin_timer.reset()  # else it joins again on its own
        channel.join_push.destroy()
        if realtime.channels.get(channel.topic) is channel:
            del realtime.channels[channel.topic]
        await realtime.remove_channel(channel)  # closes the socket after the last channel

    def _on_message(self, message: "BroadcastPayload") -> None:
        """A report of progress that the history does not keep has no seq."""
        seq = message["payload"].get("seq")
        if isinstance(seq, int) and seq > self.seq:
            self._heard.set()


def _private() -> "RealtimeChannelOptions":
    return {
        "config": {
            "private": True,
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": "", "enabled": False},
        }
    }
