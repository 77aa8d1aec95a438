"""The live side: from commit to subscriber beside LISTEN/NOTIFY, a thousand sockets, two hundred readers."""

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import jwt
import psycopg
from websockets.asyncio.client import ClientConnection, connect
from websockets.sync import client as blocking

from bench.rounds import Times, alternate, table
from bench.stack import SUPABASE_URL, database

ADDRESS = (
    f"{SUPABASE_URL.replace('http', 'ws', 1)}/realtime/v1/websocket"
    f"?apikey={os.environ['SUPABASE_SECRET_KEY']}&vsn=2.0.0"
)
SOCKETS, TOPICS, BROADCASTS, LOAD_SECONDS = 1000, 200, 500, 30  # broadcasts a second
SUBSCRIBERS, EVENTS, EVENT_SECONDS = 200, 200, 10  # events a second


def measure() -> None:
    with _notes() as sql:
        _latency(sql)
        asyncio.run(_load())
        asyncio.run(_readers(sql, each_his_own=True))
        asyncio.run(_readers(sql, each_his_own=False))


@contextmanager
def _notes() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A table under row level security, in the publication."""
    with database() as sql:
        sql.execute(
            "drop schema if exists bench_realtime cascade; create schema bench_realtime;"
            " grant usage on schema bench_realtime to authenticated, service_role;"
            " create table bench_realtime.notes"
            "   (id bigint generated always as identity primary key, job uuid, sent float8);"
            " alter table bench_realtime.notes enable row level security;"
            " create policy mine on bench_realtime.notes for select to authenticated"
            "   using (job = (select auth.uid()) or job = '00000000-0000-0000-0000-000000000000');"
            " grant select on bench_realtime.notes to authenticated, service_role;"
            " alter publication supabase_realtime add table bench_realtime.notes"
        )
        try:
            yield sql
        finally:
            sql.execute("drop schema bench_realtime cascade")


def _join(topic: str, token: str | None = None, **config: object) -> str:
    payload = {"config": {"private": False, **config}} | ({"access_token": token} if token else {})
    return json.dumps(["1", "1", f"realtime:{topic}", "phx_join", payload])


def _changes(**filter: str) -> list[dict[str, str]]:
    return [{"event": "INSERT", "schema": "bench_realtime", "table": "notes", **filter}]


def _latency(sql: psycopg.Connection[tuple[object, ...]]) -> None:
    with database() as listener, blocking.connect(ADDRESS, compression=None, proxy=None) as socket:
        listener.execute("listen bench_realtime")
        socket.send(_join("latency", postgres_changes=_changes()))
        while b"Subscribed" not in socket.recv(decode=False):
            pass

        def notify() -> None:
            sql.execute("notify bench_realtime")
            next(listener.notifies(timeout=5))

        def change() -> None:
            sql.execute("insert into bench_realtime.notes (job) values (gen_random_uuid())")
            socket.recv(timeout=5)

        def send() -> None:
            sql.execute("select realtime.send('{}', 'x', 'latency', false)")
            socket.recv(timeout=5)

        ways: dict[str, Callable[[], object]] = {
            "LISTEN/NOTIFY": notify,
            "insert → postgres_changes": change,
            "realtime.send → broadcast": send,
        }
        print(table("statement sent → message received", alternate(ways, rounds=300), "LISTEN/NOTIFY"))


@asynccontextmanager
async def _joined(joins: list[str]) -> AsyncIterator[list[ClientConnection]]:
    """A socket a join, all of them answered; those with postgres_changes once they flow."""
    async with AsyncExitStack() as sockets:
        opened = []
        for start in range(0, len(joins), 50):
            batch = joins[start : start + 50]
            opening = (
                connect(ADDRESS, compression=None, max_queue=None, proxy=None, ping_interval=None)
                for _ in batch
            )
            opened += await asyncio.gather(*(sockets.enter_async_context(one) for one in opening))
            await asyncio.gather(
                *(_answered(one, join) for one, join in zip(opened[start:], batch, strict=True))
            )
        yield opened


async def _answered(socket: ClientConnection, join: str) -> None:
    await socket.send(join)
    wanted = b"Subscribed" if "postgres_changes" in join else b"phx_reply"
    async with asyncio.timeout(30):
        while wanted not in await socket.recv(decode=False):
            pass


async def _paced(count: int, per_second: int, act: Callable[[int], object]) -> None:
    """Calls `act` so often, in bursts of what is due, on the clock."""
    began, done = time.perf_counter(), 0
    while done < count:
        due = min(count, int((time.perf_counter() - began) * per_second) + 1)
        for number in range(done, due):
            answer = act(number)
            if asyncio.iscoroutine(answer):
                await answer
        done = due
        await asyncio.sleep(0.002)


async def _collect(sockets: list[ClientConnection], taken: Callable[[bytes], float]) -> list[float]:
    """Fills a list with seconds, one a message, until cancelled."""
    seconds: list[float] = []

    async def read(socket: ClientConnection) -> None:
        async for data in socket:
            now = time.time()
            seconds.append(now - taken(data if isinstance(data, bytes) else data.encode()))

    for socket in sockets:
        _readers_at_work.add(asyncio.ensure_future(read(socket)))
    return seconds


_readers_at_work: set["asyncio.Future[None]"] = set()


async def _until(seconds: list[float], count: int) -> None:
    """Until all have come, or none came for two seconds."""
    before = -1
    while len(seconds) < count and before != len(seconds):
        before = len(seconds)
        await asyncio.sleep(2)


def _broadcast(topic: str) -> bytes:
    parts = [b"1", b"2", f"realtime:{topic}".encode(), b"x", b""]
    return bytes([3, *map(len, parts), 1]) + b"".join(parts) + json.dumps({"t": time.time()}).encode()


async def _load() -> None:
    server = _server()
    before = _megabytes(server)
    topics = [f"load-{uuid.uuid4().hex[:8]}" for _ in range(TOPICS)]
    async with _joined([_join(topics[n % TOPICS]) for n in range(SOCKETS)]) as sockets:
        with_sockets = _megabytes(server)
        seconds = await _collect(sockets, lambda data: json.loads(data[data.index(b"{") :])["t"])
        count, cpu, began = BROADCASTS * LOAD_SECONDS, _cpu_seconds(server), time.perf_counter()

        async def speak(_: int) -> None:
            place = random.randrange(SOCKETS)
            await sockets[place].send(_broadcast(topics[place % TOPICS]))

        await _paced(count, BROADCASTS, speak)
        took = time.perf_counter() - began
        cpu = _cpu_seconds(server) - cpu
        expected = count * (SOCKETS // TOPICS - 1)
        await _until(seconds, expected)
        print(
            f"\n{SOCKETS} sockets on {TOPICS} topics, {count / took:.0f} broadcasts a second for {took:.0f} s"
        )
        _tell(seconds, expected)
        print(
            f"  {(with_sockets - before) * 1000 / SOCKETS:.1f} MB a thousand sockets,"
            f" CPU {cpu / took:.0%} of a core"
        )


async def _readers(sql: psycopg.Connection[tuple[object, ...]], *, each_his_own: bool) -> None:
    """Each subscriber is a user of his own, so each has a policy of his own to pass."""
    people = [str(uuid.uuid4()) for _ in range(SUBSCRIBERS)]
    secret, server = os.environ["SUPABASE_JWT_SECRET"], _server()
    joins = []
    for person in people:
        claims = {"role": "authenticated", "sub": person, "exp": int(time.time()) + 600}
        filters = {"filter": f"job=eq.{person}"} if each_his_own else {}
        joins.append(
            _join("readers", jwt.encode(claims, secret, "HS256"), postgres_changes=_changes(**filters))
        )
    async with _joined(joins) as sockets:
        seconds = await _collect(sockets, _sent)
        count, cpu, began = EVENTS * EVENT_SECONDS, _cpu_seconds(server), time.perf_counter()
        everyone = str(uuid.UUID(int=0))

        def insert(number: int) -> None:
            job = people[number % SUBSCRIBERS] if each_his_own else everyone
            sql.execute("insert into bench_realtime.notes (job, sent) values (%s, %s)", (job, time.time()))

        await _paced(count, EVENTS, lambda number: asyncio.to_thread(insert, number))
        took = time.perf_counter() - began
        expected = count if each_his_own else count * SUBSCRIBERS
        await _until(seconds, expected)
        cpu = _cpu_seconds(server) - cpu
        whom = "each hears his own" if each_his_own else "each hears all"
        print(
            f"\n{SUBSCRIBERS} subscribers under RLS, {whom},"
            f" {count / took:.0f} events a second for {took:.0f} s"
        )
        _tell(seconds, expected)
        print(f"  CPU {cpu / (time.perf_counter() - began):.0%} of a core")


def _sent(data: bytes) -> float:
    start = data.index(b'"sent":') + 7
    return float(data[start : data.index(b"}", start)])


def _tell(seconds: list[float], expected: int) -> None:
    for reader in _readers_at_work:
        reader.cancel()
    _readers_at_work.clear()
    times = Times(tuple(seconds))
    print(
        f"  {len(seconds):,} received, {expected - len(seconds)} lost,"
        f" p50 {times.percentile(0.5):.1f} ms, p99 {times.percentile(0.99):.1f} ms"
    )


def _server() -> int:
    """The Realtime server's process: the one told the port that belongs to this gateway (Linux)."""
    told = f"REALTIME_PORT={(urlsplit(SUPABASE_URL).port or 54321) + 4}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                told in (folder / "environ").read_bytes().split(b"\0")
                and b"local.realtime" in (folder / "cmdline").read_bytes()
            ):
                return int(folder.name)
        except OSError:
            continue
    raise SystemExit("the local Realtime server is not running")


def _megabytes(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 1e6


def _cpu_seconds(process: int) -> float:
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
