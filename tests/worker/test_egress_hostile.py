"""Servers that are out to harm: they end with their own job's limits, and nobody else hears of them."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.worker.test_egress import OK, get, opened
from worker.browser.egress import answers, http1
from worker.browser.egress.door import Door
from worker.browser.egress.limits import Limits
from worker.browser.faults import Fault

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LONG = 60  # seconds: a test that takes them has failed
MB = 1024 * 1024


class Stage:
    """A server that does as it is told on each connection, and knows when the other side has gone."""

    def __init__(self, act: Act) -> None:
        self.origin = ""
        self.connections = 0
        self.sent = 0  # bytes that the other side may have got
        self.gone = asyncio.Event()  # the other side has ended a connection
        self._act = act

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._act(reader, writer)
            while await reader.read(65536):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone.set()
            writer.transport.abort()


@asynccontextmanager
async def staging(act: Act) -> AsyncIterator[Stage]:
    stage = Stage(act)
    server = await asyncio.start_server(stage.serve, "127.0.0.1", 0)
    stage.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stage
    finally:
        server.close()


def says(*parts: bytes, for_ever: bytes = b"", hangs_up: bool = False) -> Act:
    """Answers its first request so, whatever it is; then goes on and on with `for_ever`."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
        await writer.drain()
        while for_ever and not writer.transport.is_closing():
            writer.write(for_ever)
            await writer.drain()
        if hangs_up:
            writer.write_eof()

    return act


async def connect(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]), limit=MB)


async def ask(door: Door, request: bytes) -> tuple[bytes, bool]:
    """All that comes until the door closes the connection, and whether it was broken off."""
    reader, writer = await connect(door)
    got = b""
    try:
        async with asyncio.timeout(LONG):
            writer.write(request)
            while data := await reader.read(65536):
                got += data
        return got, False
    except ConnectionError:
        return got, True
    finally:
        writer.transport.abort()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A page decides how often a thing happens: nothing of it is logged."""
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.records if "Executing" not in record.getMessage()] == []


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_ANSWERS: dict[str, bytes] = {
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.9\r\n",
    "HTTP/0.9": b"<html>old</html>",
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status with a sign": b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "line feeds alone": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "one line feed alone": b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\r\nok",
    "a carriage return alone": b"HTTP/1.1 200 OK\r\nX: 1\rContent-Length: 2\r\n\r\nok",
    "NUL": b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a name": b"HTTP/1.1 200 OK\r\nX\0: 1\r\nContent-Length: 2\r\n\r\nok",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: 1\r\n Content-Length: 9\r\nContent-Length: 2\r\n\r\nok",
    "a folded first line": b"HTTP/1.1 200 OK\r\n X: 1\r\nContent-Length: 2\r\n\r\nok",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "no colon": b"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\nok",
    "no name": b"HTTP/1.1 200 OK\r\n: 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok.",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok.",
    "a list of one length": b"HTTP/1.1 200 OK\r\nContent-Length: 2,2\r\n\r\nok",
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
    "a hexadecimal length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "an empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "a length of 5,000 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nok",
    "a wrong length without a body": b"HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two lines": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "packed and chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, not last": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "another encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    "almost chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nanything",
    "a body of an interim answer": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nok" + OK,
    "eleven interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 11 + OK,
    "five hundred and one lines": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 501 + b"\r\n",
    "a head of 256 KiB": b"HTTP/1.1 200 OK\r\nX: " + b"x" * http1.MAX_HEAD_BYTES + b"\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_can_be_read_in_two_ways_is_no_answer(name: str) -> None:
    async with staging(says(NO_ANSWERS[name])) as stage, opened(stage.origin) as door:
        assert await ask(door, get(stage.origin + "/")) == (b"", False)
        async with asyncio.timeout(LONG):
            await stage.gone.wait()
        fault = door.fault_of(stage.origin + "/")
        assert isinstance(fault, Fault)
        assert fault.code == "empty_response"
        assert "no proper HTTP" in fault.message


HALF_ANSWERS: dict[str, bytes] = {
    "a negative size": b"-1\r\n",
    "a size with a sign": b"+2\r\nok\r\n",
    "a size in another base": b"0x2\r\nok\r\n",
    "a size of 5,000 digits": b"0" * 5000 + b"2\r\nok\r\n",
    "a size of 17 digits": b"0" * 16 + b"2\r\nok\r\n",
    "no size": b"\r\nok\r\n",
    "a space before the size": b" 2\r\nok\r\n",
    "a size that ends in a line feed": b"2\nok\r\n",
    "more than its size": b"2\r\nokay\r\n",
    "more than its size, as long as an end": b"2\r\nokay0\r\n\r\n",
    "an end of a line feed": b"2\r\nok\n0\r\n\r\n",
    "an extension over two lines": b"2;a\nb\r\nok\r\n",
    "a long extension": b"2;" + b"x" * answers.MAX_CHUNK_LINE + b"\r\nok\r\n",
    "many extensions": (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 40,
    "a folded trailer": b"0\r\n folded: 1\r\n\r\n",
    "a long trailer": b"0\r\nX: " + b"x" * answers.MAX_TRAILER_BYTES + b"\r\n\r\n",
    "a trailer of line feeds": b"0\r\nX: 1\n\n",
}


@pytest.mark.parametrize("name", HALF_ANSWERS)
async def test_half_an_answer_does_not_look_like_a_whole_one(name: str) -> None:
    good = b"5\r\nhello\r\n"
    async with staging(says(CHUNKED, good + HALF_ANSWERS[name])) as stage, opened(stage.origin) as door:
        got, broken_off = await ask(door, get(stage.origin + "/"))
        assert broken_off
        assert not got.endswith(b"0\r\n\r\n")
        async with asyncio.timeout(LONG):
            await stage.gone.wait()


async def test_a_body_without_a_length_is_broken_off_as_the_server_broke_it_off() -> None:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await passed_on.wait()
        connection = writer.get_extra_info("socket")
        connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: a reset
        writer.transport.abort()

    passed_on = asyncio.Event()
    async with staging(act) as stage, opened(stage.origin) as door:
        reader, writer = await connect(door)
        async with asyncio.timeout(LONG):
            writer.write(get(stage.origin + "/"))
            assert (await reader.readuntil(b"half")).endswith(b"half")
            passed_on.set()
            with pytest.raises(ConnectionResetError):
                await reader.read()
        writer.close()


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a head": (b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n" * 100),
    "a line": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000),
    "a size": (CHUNKED, b"0" * 1000),
    "negative sizes": (CHUNKED, b"-1\r\n" * 100),
    "an extension": (CHUNKED + b"1;", b"x" * 1000),
    "extensions": (CHUNKED, b"1;" + b"x" * 1000 + b"\r\nx\r\n"),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n" * 1000),
    "a chunk": (CHUNKED + b"f" * 15 + b"\r\n", b"x" * 10_000),
    "a trailer": (CHUNKED + b"0\r\n", b"X: 1\r\n" * 100),
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
    "a long body": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", b"x" * 10_000),
    "answers": (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "nonsense": (b"", b"\0" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_server_without_end_is_left(name: str) -> None:
    """At the latest at the job's limit, with every byte counted."""
    first, for_ever = ENDLESS[name]
    limits = Limits(received_bytes=2 * MB)
    async with staging(says(first, for_ever=for_ever)) as stage, opened(stage.origin, limits=limits) as door:
        reader, writer = await connect(door)
        writer.write(get(stage.origin + "/"))
        swallowing = asyncio.create_task(swallow(reader))
        async with asyncio.timeout(LONG):
            await stage.gone.wait()
        assert door.received_bytes <= limits.received_bytes + 512 * 1024
        writer.close()
        await swallowing


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG):
        while not happened():  # noqa: ASYNC110  a turn of the loop is what is waited for
            await asyncio.sleep(0)


async def swallow(reader: asyncio.StreamReader) -> int:
    size = 0
    try:
        while data := await reader.read(MB):
            size += len(data)
    except ConnectionError:
        pass
    return size


async def test_every_byte_of_both_ways_is_counted_once() -> None:
    sent = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2;ext=1\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    async with staging(says(sent)) as stage, opened(stage.origin) as door:
        request = get(stage.origin + "/", method="POST", body=b"body")
        reader, writer = await connect(door)
        writer.write(request)
        async with asyncio.timeout(LONG):
            await reader.readuntil(b"X-Trailer: 1\r\n\r\n")
        assert (door.received_bytes, door.sent_bytes) == (len(sent), len(request))
        writer.close()
    async with staging(says(b"any bytes", hangs_up=True)) as stage, opened(stage.origin) as door:
        tunnel = f"CONNECT {stage.origin[7:]} HTTP/1.1\r\n\r\n".encode()
        got, _ = await ask(door, tunnel + b"\0\r\n\r\n")
        assert got.endswith(b"any bytes")
        assert (door.received_bytes, door.sent_bytes) == (9, len(tunnel) + 5)


@pytest.mark.parametrize("tunnelled", [True, False])
async def test_what_a_page_sends_is_limited_too(tunnelled: bool) -> None:
    async def act(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    async with staging(act) as stage, opened(stage.origin, limits=Limits(sent_bytes=MB)) as door:
        reader, writer = await connect(door)
        if tunnelled:
            writer.write(f"CONNECT {stage.origin[7:]} HTTP/1.1\r\n\r\n".encode())
        else:
            writer.write(get(stage.origin + "/", f"Content-Length: {10**9}", method="POST"))
        async with asyncio.timeout(LONG):
            with contextlib.suppress(ConnectionError):
                while door.over is None:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            await stage.gone.wait()
        assert door.over is not None
        assert "sent more" in door.over.message
        assert door.sent_bytes < 2 * MB
        assert (await swallow(reader)) < 100
        writer.close()


async def test_a_browser_that_goes_takes_its_server_along() -> None:
    slow = says(b"HTTP/1.1 200 OK\r\n\r\n", for_ever=b"x" * 1000)
    for act in (slow, says(), says(CHUNKED, for_ever=b"1\r\nx\r\n" * 1000)):
        async with staging(act) as stage, opened(stage.origin) as door:
            _, writer = await connect(door)
            writer.write(get(stage.origin + "/"))
            async with asyncio.timeout(LONG):
                await until(lambda: stage.connections)
                writer.transport.abort()
                await stage.gone.wait()


async def test_what_follows_an_answer_is_not_the_next_one() -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    for first in (
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        CHUNKED + b"0\r\n\r\n",
    ):
        async with staging(says(first + evil)) as stage, opened(stage.origin) as door:
            got, _ = await ask(door, get(stage.origin + "/one") + get(stage.origin + "/two"))
            assert got.count(b"HTTP/1.1") == 1
            assert b"evil" not in got
            assert stage.connections == 1


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    """Before the first request, after an answer, and a server that hangs up meanwhile."""
    quiet_now = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(OK)(reader, writer)
        await quiet_now.wait()
        writer.write(OK)

    async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(OK)(reader, writer)
        await quiet_now.wait()
        writer.write_eof()

    for act in (late, leaves):
        quiet_now.clear()
        async with staging(act) as stage, opened(stage.origin) as door:
            reader, writer = await connect(door)
            async with asyncio.timeout(LONG):
                writer.write(get(stage.origin + "/"))
                await reader.readuntil(b"ok")
                quiet_now.set()
                assert await reader.read() == b""
                await stage.gone.wait()
            writer.close()


async def test_a_flood_does_not_hold_up_the_loop_or_another_door() -> None:
    """Between two turns of the loop there is little work, however fast a server sends."""
    for for_ever in (b"x" * MB, b"1\r\nx\r\n" * 100_000):
        first = CHUNKED if for_ever[:1] == b"1" else b"HTTP/1.1 200 OK\r\n\r\n"
        async with (
            staging(says(first, for_ever=for_ever)) as flood,
            staging(says(OK)) as honest,
            opened(flood.origin, limits=Limits(received_bytes=10**12)) as wide,
            opened(honest.origin) as door,
        ):
            reader, writer = await connect(wide)
            writer.write(get(flood.origin + "/"))
            swallowing = asyncio.create_task(swallow(reader))
            seen, most = 0, 0
            async with asyncio.timeout(LONG):
                while wide.received_bytes < 2 * MB:
                    await asyncio.sleep(0)
                    most, seen = max(most, wide.received_bytes - seen), wide.received_bytes
                for _ in range(5):
                    other, its = await connect(door)
                    its.write(get(honest.origin + "/"))
                    assert (await other.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
                    its.close()
            assert most <= 512 * 1024
            assert not swallowing.done()
            writer.transport.abort()
            await swallowing


@pytest.mark.parametrize(
    ("act", "request_"),
    [
        (says(), b""),
        (says(b"HTTP/1.1 200 OK\r\nX:"), b""),
        (says(OK[:-1]), b""),
        (says(), b"CONNECT %b HTTP/1.1\r\n\r\n"),
        (says(), b"GET http://%b/ HTTP/1.1\r\nX"),
    ],
)
async def test_a_connection_on_which_nothing_moves_ends(act: Act, request_: bytes) -> None:
    limits = Limits(idle_seconds=0.2, head_seconds=0.1)
    async with staging(act) as stage, opened(stage.origin, limits=limits) as door:
        where = stage.origin[7:].encode()
        got, broken_off = await ask(door, request_ % where if request_ else get(stage.origin + "/"))
        assert broken_off
        assert not got or got.startswith(b"HTTP/1.1 200")


async def test_a_head_that_never_ends_is_not_waited_for_however_it_drips() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000:
            if writer.transport.is_closing():
                return
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    async with staging(drip) as stage, opened(stage.origin, limits=Limits(idle_seconds=0.5)) as door:
        assert await ask(door, get(stage.origin + "/")) == (b"", True)


async def test_no_more_connections_are_open_than_a_job_may_have() -> None:
    async with staging(says()) as stage, opened(stage.origin, limits=Limits(connections=4)) as door:
        two = [await connect(door) for _ in range(2)]
        for _, writer in two:
            writer.write(get(stage.origin + "/"))
        await until(lambda: stage.connections >= 2)
        assert (await ask(door, get(stage.origin + "/")))[0] == b""
        assert stage.connections == 2
        for _, writer in two:
            writer.close()


def _of_door(tasks: set[asyncio.Task[object]]) -> list[str]:
    return [name for name in map(repr, tasks) if "egress/" in name]


async def test_a_door_that_closes_leaves_no_task_and_no_connection() -> None:
    before = asyncio.all_tasks()
    acts = (says(), says(b"HTTP/1.1 200 OK\r\n\r\n", for_ever=b"x" * 10_000))
    for act in acts:
        async with staging(act) as stage:
            async with opened(stage.origin) as door:
                writers = []
                for request in (
                    get(stage.origin + "/"),
                    f"CONNECT {stage.origin[7:]} HTTP/1.1\r\n\r\n\0\r\n\r\n".encode(),
                ):
                    _, writer = await connect(door)
                    writer.write(request)
                    writers.append(writer)
                await until(lambda: stage.connections >= 2)
            await until(stage.gone.is_set)
            await until(lambda: not door._wires and not _of_door(asyncio.all_tasks() - before))
            for writer in writers:
                writer.transport.abort()


async def test_a_look_up_that_fails_after_its_page_has_gone_is_not_logged() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def resolve(_: str) -> list[object]:
        started.set()
        await go_on.wait()
        raise OSError("broken")

    async def visit() -> None:  # the door, and with it the look-up, is forgotten with this
        async with opened() as door:
            door._targets._resolve = resolve
            _, writer = await connect(door)
            writer.write(get("http://slow.example/"))
            async with asyncio.timeout(LONG):
                await started.wait()
                writer.transport.abort()
                await until(lambda: not door._tasks)
                go_on.set()
                await until(lambda: all(task.done() for task in door._admitted.values()))

    await visit()
    gc.collect()


async def test_a_refused_host_is_kept_short() -> None:
    async with opened() as door:
        await ask(door, get("http://" + "a" * 100_000 + "/"))
        assert [len(host) for host in door.refused] == [254]


TARGETS = {
    "/a?": "/a?",
    "/a??b=1&": "/a??b=1&",
    "/": "/",
    "": "/",
    "?a": "/?a",
    "//double": "//double",
    "/%7e%2F%zz": "/%7e%2F%zz",
    "/a;b=1;": "/a;b=1;",
    "/a?b#": None,
    "/a?http://inside/": "/a?http://inside/",
    '/a"<>|{}[]^`\\': '/a"<>|{}[]^`\\',
}


@pytest.mark.parametrize(("written", "asked"), TARGETS.items())
async def test_the_path_is_asked_for_byte_by_byte_as_it_was_written(written: str, asked: str | None) -> None:
    heads: list[bytes] = []

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    async with staging(act) as stage, opened(stage.origin) as door:
        host = stage.origin[7:]
        await ask(door, f"GET {stage.origin}{written} HTTP/1.1\r\nHost: inside\r\nX: 1\r\n\r\n".encode())
        wanted = [f"GET {asked} HTTP/1.1\r\nHost: {host}\r\nX: 1\r\n\r\n".encode()] if asked else []
        assert heads == wanted


NO_REQUESTS = [
    "GET %s/ HTTP/1.0", "GET %s/ HTTP/1.1 ", "GET  %s/ HTTP/1.1", "GET %s/\tHTTP/1.1", "GET %s/ http/1.1", "G:T %s/ HTTP/1.1", "GET %s/é HTTP/1.1",
    "GET %s/ HTTP/1.1\r\nHost : a", "GET %s/ HTTP/1.1\r\nHost: a\r\nHost: a", "GET %s/ HTTP/1.1\r\nX: \0", "GET %s/ HTTP/1.1\nX: 1",
    "GET %s/ HTTP/1.1\r\nContent-Length: 1,1", "GET %s/ HTTP/1.1\r\nContent-Length: +1", "POST %s/ HTTP/1.1\r\nContent-Length: " + "1" * 5000,
    "POST %s/ HTTP/1.1\r\nTransfer-Encoding: identity", "POST %s/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    "GET %s/ HTTP/1.1\r\n" + "X: 1\r\n" * 501,
]  # fmt: skip


@pytest.mark.parametrize("request_", NO_REQUESTS)
async def test_what_can_be_read_in_two_ways_is_no_request(request_: str) -> None:
    async with staging(says(OK)) as stage, opened(stage.origin) as door:
        got, _ = await ask(door, (request_.replace("%s", stage.origin) + "\r\n\r\n").encode())
        assert got == b""
        assert stage.connections == 0
