"""One job's way out: a proxy on a port of its own, open as long as the job runs.

The port is the credential: what comes in through it belongs to this job, and once it is closed, a request
that outlives its page (a beacon, a report) finds nobody. A user name and a password would cost a refused
first request for every context, and the driver would look at each request to answer the challenge.

Servers and pages are hostile here. Each byte is counted as it comes in, each connection ends (at the latest
with the door), and nothing is logged for a connection or a request: a page decides how many there are.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from worker.browser.egress import http1
from worker.browser.egress.answers import AnswerReader
from worker.browser.egress.dialling import dial
from worker.browser.egress.limits import Limits
from worker.browser.egress.wire import Wire
from worker.browser.faults import Fault
from worker.browser.targets import Target, Targets, parse

log = logging.getLogger(__name__)

_PLAIN_PORTS = (80, 443)  # below 1024; everything above is open too
_TLS_HANDSHAKE = b"\x16"  # the first byte of a ClientHello's record (RFC 8446, 5.1)
_SWEEP_SECONDS = 5.0  # between looks for connections that have stood still for too long
_MAX_HOST = 254  # characters of a refused host that are kept


class Door:
    """What the job asked for, what it was refused and why, and how much it took."""

    def __init__(self, targets: Targets, limits: Limits) -> None:
        self.refused: Counter[str] = Counter()  # by host
        self.requests = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.over: Fault | None = None  # set when a limit was passed; nothing goes through any more
        self.on_over: Callable[[], None] = lambda: None  # called once, when that happens
        self.url = ""
        self._targets = targets
        self._limits = limits
        self._faults: dict[tuple[str, int], Fault] = {}
        self._admitted: dict[str, asyncio.Task[Target]] = {}  # by origin: each host is looked up once a job
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._broken = False

    @classmethod
    @asynccontextmanager
    async def opened(cls, targets: Targets, limits: Limits) -> AsyncIterator["Door"]:
        door = cls(targets, limits)
        door._server = await asyncio.get_running_loop().create_server(door._browser_wire, "127.0.0.1", 0)
        door.url = f"http://127.0.0.1:{door._server.sockets[0].getsockname()[1]}"
        door._end_idle()
        try:
            yield door
        finally:
            door.close()
            await asyncio.gather(*door._tasks, return_exceptions=True)

    def close(self) -> None:
        """Ends whatever is still under way."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for wire in tuple(self._wires):
            wire.reset()
        for task in (*self._tasks, *self._admitted.values()):
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
        task = self._admitted.get(target.origin)
        if task is None:
            task = asyncio.create_task(self._targets.locate(target))
            self._admitted[target.origin] = task
        await asyncio.wait({task})  # it goes on if this request ends: another may wait for it too
        return task.result()

    def fault_of(self, url: str) -> Fault | None:
        """Why the proxy got nothing from there: the browser itself sees only a closed connection."""
        try:
            return self._faults.get(_place(parse(url)))
        except Fault as fault:
            return fault

    def _browser_wire(self) -> Wire:
        wire = Wire(self._wires, self._count_sent)
        wire.on_made = self._begin
        return wire

    def _server_wire(self) -> Wire:
        return Wire(self._wires, self._count_received)

    def _begin(self, browser: Wire) -> None:
        if self._closed or self.over is not None or len(self._wires) > self._limits.connections:
            browser.reset()
            return
        task = asyncio.create_task(self._serve(browser))
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

        def stop(_: Wire) -> None:
            task.cancel()

        browser.on_lost = stop

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._broken:
            self._broken = True  # said once a job, as a page can repeat whatever led here
            log.error("the proxy failed", exc_info=error)

    async def _serve(self, browser: Wire) -> None:
        try:
            request = await self._read_request(browser)
            if request.method == "CONNECT":
                await self._tunnel(request, browser)
            else:
                await self._forward_all(request, browser)
        except (Fault, OSError, EOFError, TimeoutError, http1.NotHttp):
            pass  # noted where it happened, or the browser's own doing
        finally:
            browser.on_lost = _ignore
            browser.close()

    async def _read_request(self, browser: Wire) -> http1.Request:
        browser.due = browser.moved + self._limits.head_seconds
        request = http1.read_request(await browser.take_head())
        browser.due = None
        self.requests += 1
        if self.requests > self._limits.requests:
            self._end(f"The page made more than {self._limits.requests} requests.")
        if self.over is not None:
            raise self.over
        return request

    async def _forward_all(self, request: http1.Request, browser: Wire) -> None:
        """Plain requests, one after the other, as long as they are for the same server and it stays. One that
        is refused gets no answer: an answer would be shown as the server's own."""
        origin = request.origin
        async with self._dialled(origin) as server:
            # A server that speaks unasked, or hangs up, is left; the browser then asks on a new connection.
            server.expected = False
            server.on_stray = lambda _: browser.close()
            while await self._forward(request, browser, server):
                request = await self._read_request(browser)
                if request.origin != origin:
                    # The browser asks again on a new connection, as it does when an old one has just closed.
                    return

    async def _forward(self, request: http1.Request, browser: Wire, server: Wire) -> bool:
        """Whether both ends take another request."""
        if not server.idle:
            return False
        server.expected = True
        await server.send(request.forwarded)
        if not request.body_bytes:
            return await self._answer(request, browser, server)
        body = asyncio.create_task(_copy(browser, server, request.body_bytes))
        try:  # a server may answer before it has read everything
            return await self._answer(request, browser, server) and body.done()
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)

    async def _answer(self, request: http1.Request, browser: Wire, server: Wire) -> bool:
        """Whether the server takes another request."""
        reader = AnswerReader(request.method)
        server.due = server.moved + self._limits.idle_seconds
        try:
            while not reader.ended:
                data = await server.take(reader.appetite)
                passed_on = reader.feed(data) if data else reader.finish()
                if reader.begun:
                    server.due = None
                if passed_on:
                    await browser.send(passed_on)
        except http1.NotHttp as error:
            message = f"The server's answer is no proper HTTP: {error}."
            self._note(request.origin, Fault("empty_response", message))
            raise
        finally:
            if reader.begun and not reader.ended:
                browser.reset()  # half an answer must not look like a whole one
        server.expected = False
        return reader.stays and server.idle

    async def _tunnel(self, request: http1.Request, browser: Wire) -> None:
        """TLS and WebSockets pass untouched."""
        first = b""
        try:
            secure, plain = f"https://{request.origin}/", f"http://{request.origin}/"
            if self._targets.allows(plain) != self._targets.allows(secure):
                # One of the two is allowed by name, and a tunnel does not say what will go through it.
                await browser.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                first = await browser.take()
                if not first:
                    return
                target = secure if first.startswith(_TLS_HANDSHAKE) else plain
            else:
                target = secure
            async with self._dialled(target) as server:
                if first:
                    await server.send(first)
                else:
                    await browser.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                browser.on_lost = _ignore  # its last words are passed on
                await _join(browser, server)
        except Fault:
            if not first:
                await browser.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            raise

    @asynccontextmanager
    async def _dialled(self, url: str) -> AsyncIterator[Wire]:
        """A connection to the very address that was checked. Raises Fault, and notes it."""
        try:
            target = await self.admit(url)
            if not target.allowed and not (target.port in _PLAIN_PORTS or target.port > 1023):
                raise Fault("blocked_address", f"Port {target.port} is not open to pages.")
            server = await dial(target, self._server_wire)
        except Fault as fault:
            self._note(url, fault)
            raise
        try:
            yield server
        finally:
            server.on_stray = Wire.reset
            server.close()

    def _note(self, url: str, fault: Fault) -> None:
        try:
            target = parse(url)
        except Fault:
            host = url.partition("://")[2].rpartition("@")[2].strip("/")
        else:
            host = target.host
            self._faults[_place(target)] = fault
        if fault.code.startswith(("blocked_", "invalid_")):
            self.refused[host[:_MAX_HOST] or "?"] += 1

    def _count_received(self, size: int) -> None:
        self.received_bytes += size
        if self.received_bytes > self._limits.received_bytes:
            self._end(f"The page took more than {self._limits.received_bytes} bytes.")

    def _count_sent(self, size: int) -> None:
        self.sent_bytes += size
        if self.sent_bytes > self._limits.sent_bytes:
            self._end(f"The page sent more than {self._limits.sent_bytes} bytes.")

    def _end(self, message: str) -> None:
        if self.over is not None:
            return
        self.over = Fault("traffic_limit", message)
        for wire in tuple(self._wires):
            wire.reset()
        self.on_over()

    def _end_idle(self) -> None:
        """Ends each connection on which nothing has moved for too long, over and over."""
        loop = asyncio.get_running_loop()
        now, longest = loop.time(), self._limits.idle_seconds
        for wire in tuple(self._wires):
            if now - wire.moved > longest or (wire.due is not None and now > wire.due):
                wire.reset()
        self._sweep = loop.call_later(min(_SWEEP_SECONDS, longest / 4), self._end_idle)


async def _copy(source: Wire, sink: Wire, length: int) -> None:
    """So many bytes. Raises EOFError when there are fewer."""
    while length:
        data = await source.take(length)
        if not data:
            raise EOFError("a body was cut off")
        length -= len(data)
        await sink.send(data)


async def _pass_on(source: Wire, sink: Wire) -> None:
    while data := await source.take():
        await sink.send(data)


async def _join(browser: Wire, server: Wire) -> None:
    """Passes bytes in both ways until one side has ended."""
    ways = {asyncio.create_task(_pass_on(browser, server)), asyncio.create_task(_pass_on(server, browser))}
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if any(way.exception() for way in done):
            browser.reset()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


def _place(target: Target) -> tuple[str, int]:
    return target.host, target.port


def _ignore(_: Wire) -> None: ...
