"""HTTP/1.1 heads as a forwarding proxy needs them (RFC 9112): what it passes on, and what it keeps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

_HOP_BY_HOP = (
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"proxy-authenticate",
    b"te",
    b"trailer",
    b"upgrade",
)


class NotHttp(ValueError):
    """The bytes are no head that a proxy can pass on."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str  # an address, or host:port of a CONNECT
    headers: tuple[bytes, ...]  # lines

    @property
    def body_bytes(self) -> int:
        """Raises NotHttp when the body's length is not told in so many bytes."""
        lengths = {line.partition(b":")[2].strip() for line in _named(self.headers, b"content-length")}
        if next(_named(self.headers, b"transfer-encoding"), None) is not None or len(lengths) > 1:
            raise NotHttp("a body of unknown length")
        text = lengths.pop() if lengths else b"0"
        if not text.isdigit():
            raise NotHttp("a length that is no number")
        return int(text)

    def forwarded(self) -> bytes:
        """As the server itself is asked."""
        parts = urlsplit(self.target)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        first = f"{self.method} {path} HTTP/1.1".encode("latin-1")
        return _head(first, _kept(self.headers))


@dataclass(frozen=True, slots=True)
class Answer:
    version: bytes
    status: int
    headers: tuple[bytes, ...]  # lines
    first: bytes  # the status line

    @property
    def interim(self) -> bool:
        """Another head follows."""
        return self.status < 200

    def body(self, method: str) -> int | Literal["chunked", "rest"]:
        """How long the body is; "rest": it ends with the connection (RFC 9112, 6.3)."""
        if method == "HEAD" or self.status in (204, 304):
            return 0
        lengths = {line.partition(b":")[2].strip() for line in _named(self.headers, b"content-length")}
        named = _named(self.headers, b"transfer-encoding")
        codings = [line.partition(b":")[2].strip().lower() for line in named]
        if codings:
            # Both, or another coding: what a server means by it nobody knows. To the end is always right.
            return "chunked" if codings == [b"chunked"] and not lengths else "rest"
        text = lengths.pop() if len(lengths) == 1 else b""
        return int(text) if text.isdigit() else "rest"

    @property
    def stays(self) -> bool:
        """Whether the server takes another request on this connection."""
        said = [line.partition(b":")[2].strip().lower() for line in _named(self.headers, b"connection")]
        return self.version == b"HTTP/1.1" and b"close" not in said

    def forwarded(self, stays: bool) -> bytes:
        kept = _kept(self.headers)
        return _head(self.first, kept if stays else (*kept, b"Connection: close"))


def answer(head: bytes) -> Answer:
    """Raises NotHttp."""
    first, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise NotHttp("no status line")
    return Answer(version, int(rest[:3]), tuple(headers), first)


def request(head: bytes) -> Request:
    """Raises NotHttp."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if any(b"\r" in line or b"\n" in line or line[:1] in (b" ", b"\t") for line in lines):
        raise NotHttp("a line that servers may read as two, or two as one")
    try:
        method, target, version = lines[0].decode("latin-1").split(" ")
    except ValueError:
        raise NotHttp("no request line") from None
    if not version.startswith("HTTP/1."):
        raise NotHttp("another version")
    return Request(method, target, tuple(lines[1:]))


def _kept(headers: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(line for line in headers if line.partition(b":")[0].strip().lower() not in _HOP_BY_HOP)


def _named(headers: tuple[bytes, ...], name: bytes) -> Iterator[bytes]:
    return (line for line in headers if line.partition(b":")[0].strip().lower() == name)


def _head(first: bytes, headers: tuple[bytes, ...]) -> bytes:
    return b"\r\n".join((first, *headers)) + b"\r\n\r\n"
