"""The parts of the server and how they hang together."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from local.realtime import replay
from local.realtime.authorization import Authorization
from local.realtime.changes import Changes
from local.realtime.connection import Connection
from local.realtime.limits import Rate
from local.realtime.settings import Settings
from local.realtime.stream import VALUES_AS_TEXT, Stream
from local.realtime.tokens import Tokens
from local.realtime.topics import Topics
from local.realtime.wal import Change

_JOIN_SECONDS = 3.0  # at most
_SWEEP_SECONDS = 5.0
_PARTITIONS_SECONDS = 3600.0

log = logging.getLogger(__name__)


class Server:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokens = Tokens(settings)
        self.topics = Topics()
        self.connections: set[Connection] = set()
        self.joins = Rate(settings.max_joins * 60, 60)  # limits a second are means of a minute
        self.events = Rate(settings.max_events * 60, 60)
        self.pool = self._connections(VALUES_AS_TEXT)
        # Of their own, and for a while at most: somebody's slow policy holds up nobody's changes.
        self._policies = self._connections(f"-c statement_timeout={settings.max_policy_ms}")
        self.authorization = Authorization(self._policies)
        self.changes = Changes(self.pool)
        self.stream = Stream(settings.database_url, self._consume, self._on_live)

    @property
    def _patience_seconds(self) -> float:
        return self.settings.max_database_ms / 1000

    def _connections(self, options: str) -> AsyncConnectionPool[AsyncConnection[TupleRow]]:
        return AsyncConnectionPool(
            self.settings.database_url, min_size=1, max_size=8, timeout=5, reconnect_timeout=5, open=False,
            check=AsyncConnectionPool.check_connection,  # the database may have been started again
            kwargs={"options": options, "fallback_application_name": "realtime"},
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Comes up with the change stream if the database lets it; else the stream follows later."""
        await self.pool.open(wait=False)
        await self._policies.open(wait=False)
        tasks = [
            asyncio.create_task(job) for job in (self.stream.run(), self._sweep(), self._tend_partitions())
        ]
        try:
            # A long transaction of somebody else may hold the stream's beginning up.
            await self._live_within(self._patience_seconds)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.pool.close()
            await self._policies.close()

    async def is_live(self, wait_ms: float | None = None) -> bool:
        """Do changes flow? Waits so long for it, or a few seconds."""
        patience = min(_JOIN_SECONDS, self._patience_seconds)
        return await self._live_within(patience if wait_ms is None else wait_ms / 1000)

    async def _live_within(self, seconds: float) -> bool:
        if not self.stream.live.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stream.live.wait(), seconds)
        return self.stream.live.is_set()

    async def _consume(self, batch: Sequence[Change]) -> None:
        # The stream is quicker than the commit's last step: who is told must find what he is told of.
        async with self.pool.connection() as connection:
            await connection.execute(
                "select realtime.wait_until_visible(%s)", (list({change.xid for change in batch}),)
            )
        changes = []
        for change in batch:
            if change.relation.schema != "realtime":
                changes.append(change)
            elif change.relation.name == "messages":
                self._broadcast_row(change)
        await self.changes.consume(changes)

    def _broadcast_row(self, change: Change) -> None:
        names = (column.name for column in change.relation.columns)
        row = {
            name: value
            for name, value in zip(names, change.new or (), strict=False)
            if isinstance(value, str)
        }
        if row.get("skip_broadcast") == "t" or row.get("extension") != "broadcast":
            return
        binary = row.get("binary_payload")
        content = None if binary is None else bytes.fromhex(binary.removeprefix("\\x"))
        message = replay.from_row(row["id"], row.get("event"), row.get("payload"), content)
        self.topics.broadcast(row["topic"], row.get("private") == "t", message)

    def _on_live(self) -> None:
        """What happened before is not known: whoever waits for the database's word is told to join anew."""
        for topic in self.topics:
            for channel in list(topic.channels):
                if channel.private or channel.bindings:
                    channel.fail()

    async def _sweep(self) -> None:
        """Ends sockets whose client is silent or has no channel."""
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self.settings.idle_seconds / 4))
            now = time.monotonic()
            for connection in list(self.connections):
                session = connection.session
                idle = now - connection.heard_at > self.settings.idle_seconds
                unused = (
                    session and not session.channels and now - session.used_at > self.settings.unused_seconds
                )
                if idle or unused:
                    connection.close(1000)

    async def _tend_partitions(self) -> None:
        while True:
            await asyncio.sleep(_PARTITIONS_SECONDS)
            try:
                async with self.pool.connection() as connection:
                    await connection.execute("select realtime.tend_partitions()")
            except psycopg.Error as error:
                log.warning("MissingPartition: %s", error)
