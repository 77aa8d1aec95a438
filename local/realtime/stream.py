"""The change stream: what commits, as it commits, through a temporary replication slot.

A replication connection instead of polling: an idle stream costs nothing, and a change is here a moment after
its commit. The slot ends with its connection, so what commits while there is none is never seen; `on_live`
says that one begins.
"""

import asyncio
import logging
import struct
import time
import uuid
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from local.realtime.wal import Change, Decoder

PUBLICATIONS = "supabase_realtime,supabase_realtime_messages_publication"
# How values are written; the same for who reads the stream and who asks about its values.
VALUES_AS_TEXT = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=1"
_BATCH = 500  # changes at once; more wait in Postgres
_STATUS_SECONDS = 10.0  # Postgres ends a connection that is silent for a minute
_EPOCH = 946_684_800

log = logging.getLogger(__name__)


class StreamEnded(Exception):
    pass


class Stream:
    """Runs until cancelled. `consume` gets changes in commit order, as many at once as have come."""

    def __init__(
        self, url: str, consume: Callable[[list[Change]], Awaitable[None]], on_live: Callable[[], None]
    ) -> None:
        self._url = url
        self._consume = consume
        self._on_live = on_live
        self.live = asyncio.Event()

    async def run(self) -> None:
        pause = 0.1
        while True:
            try:
                connection = await AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    replication="database",
                    options=VALUES_AS_TEXT,
                    fallback_application_name="realtime",
                )
                try:
                    await self._follow(connection.pgconn)
                finally:
                    await connection.close()
            except (psycopg.Error, OSError, StreamEnded) as error:
                log.warning("PostgresReplicationLost: %s", str(error).strip())
            except Exception:
                log.exception("PostgresReplicationLost")
            pause = 0.1 if self.live.is_set() else min(pause * 2, 2.0)
            self.live.clear()
            await asyncio.sleep(pause)

    async def _follow(self, pgconn: PGconn) -> None:
        slot = f"supabase_realtime_{uuid.uuid4().hex}"
        await _run(pgconn, f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')")
        await _run(
            pgconn,
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0"
            f" (proto_version '1', publication_names '{PUBLICATIONS}')",
        )
        self.live.set()
        self._on_live()
        decoder = Decoder()
        batch: list[Change] = []
        received, told = 0, time.monotonic()
        while True:
            size, data = pgconn.get_copy_data(1)
            if size > 0:
                message = bytes(data)
                if message[:1] == b"w":
                    received = max(received, struct.unpack_from("!Q", message, 9)[0])
                    if change := decoder.decode(message[25:]):
                        batch.append(change)
                else:
                    end, _, answer = struct.unpack_from("!QQ?", message, 1)
                    received = max(received, end)
                    told = 0.0 if answer else told
            elif size < 0:
                raise StreamEnded(_reason(pgconn))
            if batch and (size == 0 or len(batch) >= _BATCH):
                await self._consume(batch)
                batch = []
            if time.monotonic() - told >= _STATUS_SECONDS and not batch:
                told = time.monotonic()
                micros = int((time.time() - _EPOCH) * 1e6)
                pgconn.put_copy_data(
                    struct.pack("!cQQQq?", b"r", received, received, received, micros, False)
                )
                await _flush(pgconn)
            if size == 0:
                await _readable(pgconn, _STATUS_SECONDS)
                pgconn.consume_input()


def _reason(pgconn: PGconn) -> str:
    result = pgconn.get_result()
    return (result.error_message if result else b"").decode(errors="replace") or "the server ended the stream"


async def _run(pgconn: PGconn, command: str) -> None:
    pgconn.send_query(command.encode())
    await _flush(pgconn)
    while True:
        while pgconn.is_busy():
            await _readable(pgconn, None)
            pgconn.consume_input()
        result: PGresult | None = pgconn.get_result()
        if result is None:
            return
        if result.status == ExecStatus.FATAL_ERROR:
            raise StreamEnded(result.error_message.decode(errors="replace"))
        if result.status == ExecStatus.COPY_BOTH:
            return


async def _flush(pgconn: PGconn) -> None:
    while pgconn.flush():  # noqa: ASYNC110  a full network is all there is to wait for
        await asyncio.sleep(0.01)


async def _readable(pgconn: PGconn, seconds: float | None) -> None:
    """Until there is something to read, or the time is over."""
    if pgconn.status != ConnStatus.OK:
        raise StreamEnded("the connection is lost")
    loop = asyncio.get_running_loop()
    there = loop.create_future()
    loop.add_reader(pgconn.socket, there.cancel)  # woken is woken
    try:
        await asyncio.wait({there}, timeout=seconds)
    finally:
        loop.remove_reader(pgconn.socket)
