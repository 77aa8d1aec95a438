"""One job's way out: a proxy on a port of its own, open as long as the job runs.

The port is the credential: what comes in through it belongs to this job, and once it is closed, a request
that outlives its page (a beacon, a report) finds nobody. A user name and a password would cost a refused
first request for every context, and the driver would look at each request to answer the challenge.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from worker.browser.egress import http1
from worker.browser.egress.limits import Limits
from worker.browser.faults import Fault
from worker.browser.targets import Target, Targets, parse

_HEAD_BYTES = 256 * 1024  # of a request or an answer; Chromium's own limit for answers
_HEAD_SECONDS = 60.0
_DIAL_SECONDS = 10.0  # for all addresses of a host together
_CHUNK_BYTES = 256 * 1024
_PLAIN_PORTS = (80, 443)  # below 1024; everything above is open too
_TLS_HANDSHAKE = 0x16  # the first byte of a ClientHello's record (RFC 8446, 5.1)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Door:
    """What the job asked for, what it was refused and why, and how much it took."""

    def __init__(self, targets: Targets, limits: Limits) -> None:
        self.refused: Counter[str] = Counter()  # by host
        self.requests = 0
        self.received_bytes = 0
        self.over: Fault | None = None  # set when a limit was passed; nothing goes through any more
        self.on_over: Callable[[], None] = lambda: None  # called once, when that happens
        self._targets = targets
        self._limits = limits
        self._faults: dict[tuple[str, int], Fault] = {}
        self._admitted: dict[str, asyncio.Task[Target]] = {}  # by origin: each host is looked up once a job
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def opened(cls, targets: Targets, limits: Limits) -> AsyncIterator["Door"]:
        door = cls(targets, limits)
        door._server = await asyncio.start_server(door._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        door.url = f"http://127.0.0.1:{door._server.sockets[0].getsockname()[1]}"
        try:
            yield door
        finally:
            door.close()

    def close(self) -> None:
        """Ends whatever is still under way."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        for task in self._admitted.values():
            task.cancel()

    async def enter(self, url: str) -> Target:
        """Where the job itself wants to go. Raises Fault as `admit` does, and notes it."""
        try:
            return await self.admit(url)
        except Fault as fault:
            self._note(url, fault)
            raise

    async def admit(self, url: str) -> Target:
        """Raises Fault if the job may not go there, or nobody knows where it is."""
        target = parse(url)
        if target.origin not in self._admitted:
            self._admitted[target.origin] = asyncio.create_task(self._targets.locate(target))
        return await asyncio.shield(self._admitted[target.origin])

    def fault_of(self, url: str) -> Fault | None:
        """Why the proxy got nothing from there: the browser itself sees only a closed connection."""
        try:
            return self._faults.get(_place(parse(url)))
        except Fault as fault:
            return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            request = await _request(reader)
            if request.method == "CONNECT":
                self._count(requests=1)
                await self._tunnel(request, (reader, writer))
            else:
                await self._forward_all(request, (reader, writer))
        except (Fault, OSError, EOFError, TimeoutError, http1.NotHttp, asyncio.LimitOverrunError):
            pass  # noted where it happened, or the browser's own doing
        finally:
            self._open.discard(writer)
            if self.over is not None:
                writer.transport.abort()
            else:
                writer.close()

    async def _forward_all(self, request: http1.Request, browser: Streams) -> None:
        """Plain requests, one after the other, as long as they are for the same server and it stays. One that
        is refused gets no answer: an answer would be shown as the server's own."""
        place = _origin(request)
        self._count(requests=1)
        async with self._dialled(place) as server:
            while await self._forward(request, browser, server):
                request = await _request(browser[0])
                self._count(requests=1)
                if _origin(request) != place:
                    # The browser asks again on a new connection, as it does when an old one has just closed.
                    return

    async def _forward(self, request: http1.Request, browser: Streams, server: Streams) -> bool:
        """Whether both ends take another request."""
        length_sent = request.body_bytes
        server[1].write(request.forwarded())
        if not length_sent:
            return await self._answer(request, browser[1], server[0])
        body = self._copy(browser[0], server[1], length_sent, sent=True)
        sending = asyncio.create_task(body)
        try:  # a server may answer before it has read everything
            return await self._answer(request, browser[1], server[0]) and sending.done()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _answer(
        self, request: http1.Request, browser: asyncio.StreamWriter, server: asyncio.StreamReader
    ) -> bool:
        """Whether the server takes another request."""
        while (answer := http1.answer(await server.readuntil(b"\r\n\r\n"))).interim:
            pass
        length = answer.body(request.method)
        stays = answer.stays and length != "rest"
        head = answer.forwarded(stays)
        self._count(received=len(head))
        browser.write(head)
        if length == "chunked":
            await self._copy_chunks(server, browser)
        else:
            await self._copy(server, browser, None if length == "rest" else length)
        await browser.drain()
        return stays

    async def _tunnel(self, request: http1.Request, browser: Streams) -> None:
        """TLS and WebSockets pass untouched."""
        first = b""
        try:
            secure, plain = f"https://{request.target}/", f"http://{request.target}/"
            if self._targets.allows(plain) != self._targets.allows(secure):
                # One of the two is allowed by name, and a tunnel does not say what will go through it.
                await self._say(browser[1], b"200 Connection established")
                first = await browser[0].read(_CHUNK_BYTES)
                target = secure if first[:1] == bytes([_TLS_HANDSHAKE]) else plain
            else:
                target = secure
            async with self._dialled(target) as (from_server, to_server):
                if first:
                    to_server.write(first)
                else:
                    await self._say(browser[1], b"200 Connection established")
                ways = {
                    asyncio.create_task(self._copy(browser[0], to_server, sent=True)),
                    asyncio.create_task(self._copy(from_server, browser[1])),
                }
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        except Fault:
            if not first:
                await self._say(browser[1], b"403 Forbidden")
            raise

    @staticmethod
    async def _say(writer: asyncio.StreamWriter, status: bytes) -> None:
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        await writer.drain()

    @asynccontextmanager
    async def _dialled(self, url: str) -> AsyncIterator[Streams]:
        """A connection to the very address that was checked. Raises Fault, and notes it."""
        try:
            target = await self.admit(url)
            if not target.allowed and not (target.port in _PLAIN_PORTS or target.port > 1023):
                raise Fault("blocked_address", f"Port {target.port} is not open to pages.")
            streams = await _dial(target)
        except Fault as fault:
            self._note(url, fault)
            raise
        self._open.add(streams[1])
        try:
            yield streams
        finally:
            self._open.discard(streams[1])
            streams[1].close()

    def _note(self, url: str, fault: Fault) -> None:
        with contextlib.suppress(Fault):
            place = _place(parse(url))
            self._faults[place] = fault
        if fault.code.startswith(("blocked_", "invalid_")):
            self.refused[_host(url)] += 1

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        most: int | None = None,
        *,
        sent: bool = False,
    ) -> None:
        """To the end, or `most` bytes. Raises EOFError when there are fewer."""
        while most is None or most > 0:
            data = await reader.read(_CHUNK_BYTES if most is None else min(most, _CHUNK_BYTES))
            if not data:
                if most:
                    raise EOFError("a body was cut off")
                return
            if most is not None:
                most -= len(data)
            if not sent:
                self._count(received=len(data))
            writer.write(data)
            await writer.drain()

    async def _copy_chunks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """RFC 9112, 7.1."""
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            try:
                size = int(line.partition(b";")[0].strip(), 16)
            except ValueError:
                raise http1.NotHttp("no chunk size") from None
            writer.write(line)
            if size > 0:
                await self._copy(reader, writer, size + 2)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            self._count(received=len(line))
            writer.write(line)
        writer.write(line)

    def _count(self, requests: int = 0, received: int = 0) -> None:
        """Raises Fault when the job has had enough."""
        self.requests += requests
        self.received_bytes += received
        if self.over is None and self.requests > self._limits.requests:
            self._end(f"The page made more than {self._limits.requests} requests.")
        if self.over is None and self.received_bytes > self._limits.received_bytes:
            self._end(f"The page took more than {self._limits.received_bytes} bytes.")
        if self.over is not None:
            raise self.over

    def _end(self, message: str) -> None:
        self.over = Fault("traffic_limit", message)
        for writer in tuple(self._open):
            writer.transport.abort()
        self.on_over()


async def _request(reader: asyncio.StreamReader) -> http1.Request:
    async with asyncio.timeout(_HEAD_SECONDS):
        return http1.request(await reader.readuntil(b"\r\n\r\n"))


def _origin(request: http1.Request) -> str:
    """Of a plain request. Raises http1.NotHttp."""
    scheme, _, rest = request.target.partition("://")
    if scheme.lower() != "http":
        raise http1.NotHttp("not for a proxy")
    return f"http://{re.split('[/?#]', rest)[0]}/"


async def _dial(target: Target) -> Streams:
    """The first address that answers."""
    try:
        async with asyncio.timeout(_DIAL_SECONDS):
            for address in target.addresses:
                last = address == target.addresses[-1]
                try:
                    async with asyncio.timeout(None if last else _DIAL_SECONDS / 3):
                        return await asyncio.open_connection(str(address), target.port, limit=_HEAD_BYTES)
                except (OSError, TimeoutError):
                    if last:
                        raise
    except TimeoutError as error:
        raise Fault("connection_timeout", "The server did not take the connection in time.") from error
    except OSError as error:
        raise Fault("connection_refused", "The server refused the connection.") from error
    raise Fault("dns_not_found", "The host name has no address.")


def _place(target: Target) -> tuple[str, int]:
    return target.host, target.port


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"
