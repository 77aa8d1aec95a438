"""/healthz, /readyz and /metrics on asyncio streams: too little to be worth a web framework."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_REQUEST_SECONDS = 5


Details = Callable[[], Mapping[str, object]]


class Subject(Protocol):
    """What the health port reports on."""

    def alive(self) -> bool: ...

    def readiness(self) -> Mapping[str, object]:
        """`ready` (bool) and what it depends on."""
        ...

    def metrics_text(self) -> str: ...


def _answer(subject: Subject, details: Details, method: str, path: str) -> tuple[int, str, str]:
    if path not in ("/healthz", "/readyz", "/metrics"):
        return (
            404,
            "application/json",
            '{"error": "Nothing here. Try /healthz, /readyz or /metrics.", "code": "not_found"}',
        )
    if method not in ("GET", "HEAD"):
        return (
            405,
            "application/json",
            '{"error": "Only GET is answered here.", "code": "method_not_allowed"}',
        )
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", subject.metrics_text()
    if path == "/healthz":
        alive = subject.alive()
        return (200 if alive else 503), "application/json", json.dumps({"ok": alive})
    state = {**subject.readiness(), **details()}
    return (200 if state["ready"] else 503), "application/json", json.dumps(state)


def _respond(
    subject: Subject, details: Details
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                if len(parts) == 3:
                    status, kind, body = _answer(subject, details, parts[0], parts[1].split("?")[0])
                else:
                    status, kind, body = (
                        400,
                        "application/json",
                        '{"error": "Not HTTP.", "code": "bad_request"}',
                    )
                data = body.encode()
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
                    f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
                    "Cache-Control: no-store\r\nConnection: close\r\n".encode()
                    + (b"Allow: GET, HEAD\r\n" if status == 405 else b"")
                    + b"\r\n"
                    + (b"" if parts[0] == "HEAD" else data)
                )
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a caller that went away or does not speak HTTP is his own business
        finally:
            writer.close()

    return respond


@asynccontextmanager
async def serving(subject: Subject, host: str, port: int, details: Details = dict) -> AsyncIterator[int]:
    """Serves until the block ends; yields the port. `details`: more that /readyz tells. Raises OSError when
    the port is taken."""
    server = await asyncio.start_server(_respond(subject, details), host, port, limit=16_384)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
