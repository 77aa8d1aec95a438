"""A TCP connection to the stack that can be cut or held up; the tests do not look at what passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Wire:
    """`url` leads to the stack while the wire is whole. `cut` ends what is open and refuses what comes; under
    `hold` nothing ends and nothing passes, as when packets are lost."""

    def __init__(self, upstream: str) -> None:
        self.url = ""
        self._to = urlsplit(upstream)
        self._whole = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self, *, only_sockets: bool = False) -> None:
        """only_sockets: new connections may be made again at once."""
        self._whole = only_sockets
        for writer in self._open:
            writer.transport.abort()

    def hold(self) -> None:
        self._flows.clear()

    def mend(self) -> None:
        self._whole = True
        self._flows.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(self._to.hostname, self._to.port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._open |= ends
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def wire_to(upstream: str) -> AsyncIterator[Wire]:
    wire = Wire(upstream)
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        wire.mend()
        wire.cut()
        server.close()
        await server.wait_closed()
