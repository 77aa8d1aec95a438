"""One TCP connection of the proxy.

asyncio's streams would do, but for three things. Their reader does not suspend while there are bytes to be
had, so that a server that floods holds the whole loop. Their writer goes on writing, and logging, when the
other side has gone. And bytes are counted wherever they are read, not in the one place where they come in.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

from worker.browser.egress import http1

_HELD_BYTES = http1.MAX_HEAD_BYTES  # that nobody has taken yet; then the other side has to wait
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds


class Wire(asyncio.Protocol):
    """`count` hears of each piece that comes in, before anybody else. `on_lost` is called when the connection
    has ended, `on_stray` when the other side does anything while it is not `expected` to."""

    def __init__(self, wires: set["Wire"], count: Callable[[int], None]) -> None:
        self.on_made: Callable[[Wire], None] = _do_nothing
        self.on_lost: Callable[[Wire], None] = _do_nothing
        self.on_stray: Callable[[Wire], None] = Wire.reset
        self.expected = True
        self.due: float | None = None  # by the loop's clock, for what is being waited for
        self._loop = asyncio.get_running_loop()
        self.moved = self._loop.time()  # the last time that a byte came or went
        self._wires = wires
        self._count = count
        self._transport: asyncio.Transport | None = None
        self._held: bytes | bytearray = b""
        self._reading = True
        self._eof = False
        self._lost = False
        self._full = False
        self._taker: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None

    @property
    def idle(self) -> bool:
        """Nothing has come that was not taken, and more may come."""
        return not (self._held or self._eof or self._lost)

    async def take(self, most: int = _HELD_BYTES) -> bytes:
        """Returns what has come, or nothing at the end. Raises ConnectionError when it was broken off."""
        if self._held:
            await asyncio.sleep(0)  # others come first: a server may send faster than its bytes are worked on
        while not self._held:
            if not await self._more():
                return b""
        held = self._held
        data, self._held = (bytes(held), b"") if len(held) <= most else (bytes(held[:most]), held[most:])
        self._go_on()
        return data

    async def take_head(self) -> bytes:
        """Returns a message's first lines with the empty one. Raises NotHttp, EOFError, ConnectionError."""
        scanned = 0
        while (end := http1.find_end(self._held, scanned)) < 0:
            if len(self._held) >= http1.MAX_HEAD_BYTES:
                raise http1.NotHttp(f"a head of more than {http1.MAX_HEAD_BYTES} bytes")
            scanned = max(0, len(self._held) - 2)
            if not await self._more():
                raise EOFError("no further message")
        head, self._held = bytes(self._held[:end]), self._held[end:]
        self._go_on()
        return head

    async def send(self, data: bytes) -> None:
        """Waits until the other side keeps up. Raises ConnectionError when it has gone."""
        if self._transport is None or self._lost or self._transport.is_closing():
            raise ConnectionResetError("the connection has ended")
        self.moved = self._loop.time()
        self._transport.write(data)
        while self._full and not self._lost:
            self._sender = self._loop.create_future()
            await self._sender
        if self._lost:
            raise ConnectionResetError("the connection has ended")

    def close(self) -> None:
        """Ends it once everything is sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Ends it at once, in a way that nobody takes for the proper end of an answer."""
        if self._transport is None or self._lost:
            return
        connection: socket.socket | None = self._transport.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  what a TCP connection has
        self._transport = transport
        self._wires.add(self)
        self.on_made(self)

    def data_received(self, data: bytes) -> None:
        self.moved = self._loop.time()
        self._count(len(data))
        if not self.expected:
            self.on_stray(self)
        if not self._held:
            self._held = data  # mostly: no copy
        elif isinstance(self._held, bytearray):
            self._held += data
        else:
            self._held = bytearray(self._held) + data
        if self._reading and len(self._held) >= _HELD_BYTES and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()
        _wake(self._taker)

    def eof_received(self) -> None:
        """Nobody here goes on talking to one who has hung up: the transport closes itself."""
        self._eof = True
        if not self.expected:
            self.on_stray(self)
        _wake(self._taker)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  its reason changes nothing
        self._lost = True
        self._wires.discard(self)
        _wake(self._taker)
        _wake(self._sender)
        self.on_lost(self)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.moved = self._loop.time()
        _wake(self._sender)

    async def _more(self) -> bool:
        """Waits until more may have come. False at the end; raises ConnectionError when it was broken off."""
        if self._eof:
            return False
        if self._lost:
            raise ConnectionResetError("the connection has ended")
        self._taker = self._loop.create_future()
        await self._taker
        return True

    def _go_on(self) -> None:
        if not self._reading and len(self._held) < _HELD_BYTES // 2 and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _do_nothing(_: Wire) -> None: ...
