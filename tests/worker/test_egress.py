"""The proxy, asked by hand: what it passes on, what it keeps to itself, and what it refuses."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from worker.browser.addresses import IPAddress
from worker.browser.egress.door import Door
from worker.browser.egress.limits import Limits
from worker.browser.faults import Fault
from worker.browser.targets import Targets

END = b"\r\n\r\n"


class Server:
    """Answers each request with the next of its answers, and keeps what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.asked: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._answers = list(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self._answers:
                head = await reader.readuntil(END)
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")),
                    b":0",
                )
                self.asked.append(head + await reader.readexactly(int(length.partition(b":")[2])))
                writer.write(self._answers.pop(0))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[Server]:
    served = Server(*answers)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


async def ask(door: Door, *requests: bytes) -> bytes:
    """All that comes back on one connection, until it is closed or quiet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    got = b""
    for request in requests:
        writer.write(request)
        patience = 60.0  # for an answer to begin; what follows comes at once
        try:
            while True:
                async with asyncio.timeout(patience):
                    data = await reader.read(65536)
                if not data:
                    break
                got, patience = got + data, 0.5
        except (TimeoutError, ConnectionError):
            pass
    writer.close()
    return got


def get(url: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {url} HTTP/1.1", f"Host: {url.split('/')[2]}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + END + body


def opened(*origins: str, limits: Limits | None = None, names: dict[str, list[str]] | None = None):  # type: ignore[no-untyped-def]
    async def resolve(host: str) -> list[IPAddress]:
        return [ipaddress.ip_address(address) for address in (names or {})[host]]

    return Door.opened(Targets(frozenset(origins), resolve), limits or Limits())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_requests_for_one_server_share_a_connection() -> None:
    async with serving(OK, OK) as server, opened(server.origin) as door:
        got = await ask(door, get(server.origin + "/a?b=1"), get(server.origin + "/c"))
        assert got.count(b"ok") == 2
        assert [asked.split(b"\r\n")[0] for asked in server.asked] == [
            b"GET /a?b=1 HTTP/1.1",
            b"GET /c HTTP/1.1",
        ]
        assert (server.connections, door.requests) == (1, 2)


async def test_a_request_for_another_server_never_reaches_the_first() -> None:
    async with serving(OK, OK) as one, serving(OK) as other, opened(one.origin, other.origin) as door:
        got = await ask(door, get(one.origin + "/"), get(other.origin + "/secret"))
        assert got.count(b"ok") == 1
        assert len(one.asked) == 1
        assert not other.asked


async def test_what_is_between_two_hops_is_not_passed_on() -> None:
    async with serving(OK) as server, opened(server.origin) as door:
        headers = (
            "Proxy-Authorization: x",
            "Proxy-Connection: keep-alive",
            "Upgrade: h2c",
            "TE: trailers",
            "X-Own: 1",
        )
        await ask(door, get(server.origin + "/", *headers, method="POST", body=b"body"))
        (asked,) = server.asked
        assert b"X-Own: 1" in asked
        assert asked.endswith(b"\r\n\r\nbody")
        assert not [word for word in (b"Proxy-", b"Upgrade", b"TE:") if word in asked]


BODIES: list[tuple[bytes, bytes, bool]] = [
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n",
        b"0\r\nX: 1\r\n\r\n",
        True,
    ),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"204 No Content\r\n\r\n", True),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok", True),
    (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end", False),
    # Chunked counts, and nothing follows: the connection ends with it.
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        False,
    ),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"\r\n\r\nok", True),
    (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 10 + OK, b"ok", True),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
]


@pytest.mark.parametrize(("answer", "end", "stays"), BODIES)
async def test_an_answer_ends_where_it_says(answer: bytes, end: bytes, stays: bool) -> None:
    async with serving(answer) as server, opened(server.origin) as door:
        got = await ask(door, get(server.origin + "/"))
        assert got.endswith(end)
        assert (b"Connection: close" not in got) is stays


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET ftp://example.com/ HTTP/1.1\r\n\r\n",
        b"GET file:///etc/passwd HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET http://127.0.0.1:%(port)d/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST http://127.0.0.1:%(port)d/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST http://127.0.0.1:%(port)d/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET http://127.0.0.1:%(port)d/ HTTP/1.1\r\nX: a\nHost: inside\r\n\r\n",
        b"GET http://127.0.0.1:%(port)d/ HTTP/1.1\r\nX: a\rHost: inside\r\n\r\n",
        b"GET http://127.0.0.1:%(port)d/ HTTP/1.1\r\nX: a\r\n Content-Length: 5\r\n\r\n",
    ],
)
async def test_what_is_no_plain_request_gets_no_answer(request_: bytes) -> None:
    async with serving(OK) as server, opened(server.origin) as door:
        request_ = request_.replace(b"%(port)d", str(server.port).encode())
        assert await ask(door, request_) == b""
        assert not server.asked


async def test_an_address_that_is_not_allowed_is_not_even_dialled() -> None:
    async with serving(OK) as server, opened() as door:
        assert await ask(door, get(server.origin + "/")) == b""
        tunnel = f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n\r\n".encode()
        assert (await ask(door, tunnel)).startswith(b"HTTP/1.1 403")
        assert server.connections == 0
        assert door.refused == {"127.0.0.1": 2}
        fault = door.fault_of(server.origin + "/any")
        assert fault is not None
        assert fault.code == "blocked_address"


@pytest.mark.parametrize(
    ("first", "passes"), [(b"GET / HTTP/1.1\r\n\r\n", True), (b"\x16\x03\x01\x00\x00", False)]
)
async def test_an_origin_allowed_for_http_is_not_open_to_tls(first: bytes, passes: bool) -> None:
    async with serving(OK) as server, opened(server.origin) as door:
        tunnel = f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n\r\n".encode()
        got = await ask(door, tunnel, first)
        assert got.startswith(b"HTTP/1.1 200")
        assert got.endswith(b"ok") is passes
        assert server.connections == int(passes)


async def test_the_address_that_was_checked_is_the_one_that_is_dialled() -> None:
    """A name that changes its answer after the check gains nothing: it is not asked again."""
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    asked: list[str] = []

    async def resolve(host: str) -> list[IPAddress]:
        asked.append(host)
        return [ipaddress.ip_address(address) for address in answers[min(len(asked), 2) - 1]]

    async with serving(OK, OK) as server:
        origin = f"http://moving.example:{server.port}"
        async with Door.opened(Targets(frozenset({origin}), resolve), Limits()) as door:
            for _ in range(2):
                assert (await ask(door, get(origin + "/"))).endswith(b"ok")
        assert asked == ["moving.example"]


@pytest.mark.parametrize("port", [22, 25, 53, 111, 1023])
async def test_ports_of_other_services_are_closed(port: int) -> None:
    async with opened(names={"public.example": ["93.184.215.14"]}) as door:
        assert await ask(door, get(f"http://public.example:{port}/")) == b""
        fault = door.fault_of(f"http://public.example:{port}/")
        assert fault is not None
        assert fault.code == "blocked_address"


async def test_requests_and_bytes_of_a_job_are_limited() -> None:
    async with serving(*[OK] * 9) as server, opened(server.origin, limits=Limits(requests=3)) as door:
        for _ in range(5):
            await ask(door, get(server.origin + "/"))
        assert len(server.asked) == 3
        assert door.over is not None
        assert door.over.code == "traffic_limit"
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    async with serving(large) as server, opened(server.origin, limits=Limits(received_bytes=50_000)) as door:
        assert len(await ask(door, get(server.origin + "/"))) < 100_000
        assert door.over is not None
        assert door.over.final


async def test_a_door_leads_to_no_door() -> None:
    async with opened() as door, opened() as neighbour:
        for each in (door, neighbour):
            assert await ask(door, get(each.url + "/")) == b""
            tunnel = f"CONNECT {each.url.removeprefix('http://')} HTTP/1.1\r\n\r\n".encode()
            assert (await ask(door, tunnel)).startswith(b"HTTP/1.1 403")
        assert (neighbour.requests, neighbour.refused.total()) == (0, 0)


async def test_a_closed_door_leads_nowhere() -> None:
    async with serving(OK) as server:
        async with opened(server.origin) as door:
            pass
        with pytest.raises(ConnectionError):
            await ask(door, get(server.origin + "/"))
        assert server.connections == 0


async def test_a_host_nobody_knows_is_told_from_one_that_refuses() -> None:
    async with serving() as server:
        port = server.port
    async with opened(f"http://127.0.0.1:{port}") as door:
        assert await ask(door, get(f"http://127.0.0.1:{port}/")) == b""
        fault = door.fault_of(f"http://127.0.0.1:{port}/")
        assert isinstance(fault, Fault)
        assert fault.code == "connection_refused"
