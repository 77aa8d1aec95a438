"""One WebSocket: handshake, messages in their order, a client that does not read.

`websockets` without its I/O speaks the protocol; what goes out are frames made once for all their receivers,
written straight to the transport. No task waits for a silent socket, so a thousand of them are cheap.
"""

import asyncio
import json
import logging
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from local.realtime.frames import V1, Malformed, Serializer, serializer
from local.realtime.session import Session
from local.realtime.tokens import TokenError

if TYPE_CHECKING:
    from local.realtime.server import Server

PATHS = ("/realtime/v1/websocket", "/socket/websocket")
_MOST_WAITING = 1000  # messages of one client; more stay in the network
_CLOSE_SECONDS = 3.0  # for the client to answer a close

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    def __init__(self, server: "Server", *, server_state: Any, **_: Any) -> None:
        """As uvicorn makes it, when a request asks for an upgrade."""
        self.server = server
        self.serializer: Serializer = V1
        self.heard_at = time.monotonic()
        self.open = False
        self.session: Session | None = None
        self._others: set[Any] = server_state.connections
        self._protocol = ServerProtocol(max_size=server.settings.max_frame_bytes)
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        self._parts: list[bytes] = []
        self._text = True
        self._inbox: deque[str | bytes] = deque()
        self._task: asyncio.Task[None] | None = None

    # What asyncio and uvicorn call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._others.add(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._send_protocol_data()

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False
        self._inbox.clear()
        self._others.discard(self)
        self.server.connections.discard(self)
        if self.session:
            self.session.end()

    def shutdown(self) -> None:
        """The server stops."""
        self.close(1012)

    # What the rest of the server calls.

    def send(self, frame: bytes) -> None:
        """Sends at the end of this turn of the loop, together with what else comes."""
        if self.open:
            self._out.append(frame)
            if len(self._out) == 1:
                asyncio.get_running_loop().call_soon(self._flush)

    def push(self, join_ref: Any, ref: Any, topic: str, event: str, payload: str) -> None:
        self.send(self.serializer.encode(join_ref, ref, topic, event, payload))

    def close_soon(self, code: int) -> None:
        """After what is to be sent in this turn of the loop."""
        asyncio.get_running_loop().call_soon(self.close, code)

    def close(self, code: int, reason: str = "") -> None:
        self._flush()
        self.open = False
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._send_protocol_data()
        self._abort_soon()

    def _abort_soon(self) -> None:
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._transport.abort)

    def _flush(self) -> None:
        if self.open and self._out:
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            if self._transport.get_write_buffer_size() > self.server.settings.max_unsent_bytes:
                log.warning("SocketTooSlow: a client does not read; it is cut off")
                self.open = False
                self._transport.abort()
        self._out.clear()

    def _send_protocol_data(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif not self._transport.is_closing():
                # Half closed: what the client still sends is read, or the network would drop our last words.
                self.open = False
                self._transport.write_eof()
                self._abort_soon()

    def _handshake(self, request: Request) -> None:
        address = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        try:
            key = request.headers.get("x-api-key") or query.get("apikey")
            if refusal := self._refusal(address.path, query.get("vsn"), key):
                raise _Refused(*refusal)
            identity = self.server.tokens.identify(key or "")
        except TokenError as error:
            self._reject(HTTPStatus.UNAUTHORIZED, str(error))
            return
        except _Refused as refused:
            self._reject(refused.status, str(refused))
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.open = True
            self.session = Session(self.server, self, identity)
            self.server.connections.add(self)

    def _refusal(self, path: str, version: str | None, key: str | None) -> tuple[HTTPStatus, str] | None:
        spoken, most = serializer(version), self.server.settings.max_users
        if path not in PATHS:
            return HTTPStatus.NOT_FOUND, "Not Found"
        if spoken is None:
            return HTTPStatus.FORBIDDEN, f"The version {version} of the serializer is not served"
        if not key:
            return HTTPStatus.UNAUTHORIZED, "API key is missing"
        if most and len(self.server.connections) >= most:
            return HTTPStatus.TOO_MANY_REQUESTS, "Too many connected users"
        self.serializer = spoken
        return None

    def _reject(self, status: HTTPStatus, text: str) -> None:
        response = self._protocol.reject(status, json.dumps({"error": text}))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json; charset=utf-8"
        self._protocol.send_response(response)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text, self._parts = frame.opcode is Opcode.TEXT, []
        elif frame.opcode is not Opcode.CONT:
            return  # the protocol has answered a ping or a close
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        data, self._parts = b"".join(self._parts), []
        if self._text:
            try:
                self._inbox.append(data.decode())
            except UnicodeDecodeError:
                self._protocol.fail(1007, "invalid UTF-8")
                return
        else:
            self._inbox.append(data)
        if not self._task:
            self._task = asyncio.get_running_loop().create_task(self._drain())
        elif len(self._inbox) == _MOST_WAITING:
            self._transport.pause_reading()

    async def _drain(self) -> None:
        """One message after the other; whatever is wrong with one, the socket stays."""
        try:
            while self._inbox and self.session:
                data = self._inbox.popleft()
                if len(self._inbox) == _MOST_WAITING // 2 and not self._transport.is_closing():
                    self._transport.resume_reading()
                try:
                    await self.session.handle(self.serializer.decode(data))
                except Malformed as error:
                    log.warning("MalformedWebSocketMessage: %s", error)
                except Exception:
                    log.exception("UnknownErrorOnWebSocketMessage")
        finally:
            self._task = None


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
