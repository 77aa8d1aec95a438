"""Kept connections to one server, for all threads: the standard library's HTTP client, and who has which.

Not httpx: a function does little else than to pass a call on, and over httpx that was two thirds of its work
and a sixth of its cold start (docs/benchmarks.md, "The functions").
"""

import json
import os
import select
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

GZIP = 16 + zlib.MAX_WBITS  # zlib's word for it
PIECE_BYTES = 64 * 1024  # read at once


class Unsent(Exception):
    """Nothing was sent: no connection could be made in time, or all of them were taken."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whatever it was."""

    status: int
    content: bytes = field(repr=False)
    cut: bool = False  # there was more of it than was asked for

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Raises ValueError where it is not JSON that Python can read."""
        try:
            return json.loads(self.content)
        except RecursionError as error:
            raise ValueError("nested too deep") from error


class Connections:
    """At most so many connections at once. Nothing of one request is kept for the next but the connection:
    no cookie and no header; no redirect is followed, and neither .netrc nor a proxy sees a token."""

    def __init__(self, url: str, *, size: int, connect_seconds: float, kept_seconds: float) -> None:
        """url: the server's, with what stands before all paths. connect_seconds: for a connection to be made,
        and before that for one to be free. kept_seconds: how long after its last use one is used again.
        """
        self._url = urlsplit(url)
        self._trust = trust() if self._url.scheme == "https" else None
        self._connect_seconds = connect_seconds
        self._kept_seconds = kept_seconds
        self._room = threading.BoundedSemaphore(size)
        self._idle: deque[tuple[HTTPConnection, float]] = deque()  # and since when; the latest last

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
        max_bytes: int = 16 * 1024 * 1024,
    ) -> Answer:
        """The answer, read to its end, or to `max_bytes` of its content. path: with its query. seconds: the
        longest silence.

        Raises Unsent; TimeoutError; and OSError, HTTPException, zlib.error for an answer that broke off.
        """
        if not self._room.acquire(timeout=self._connect_seconds):
            raise Unsent("all connections are taken")
        try:
            connection = self._kept() or self._made()
            try:
                connection.sock.settimeout(seconds)
                connection.request(method, self._url.path + path, body, headers)
                response = connection.getresponse()
                content, cut = _content(response, max_bytes)
            except BaseException:
                connection.close()
                raise
            if cut:
                connection.close()
            if connection.sock is not None:  # it is None where the server said that it closes
                self._idle.append((connection, time.monotonic()))
        finally:
            self._room.release()
        return Answer(response.status, content, cut)

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop()[0].close()

    def _kept(self) -> HTTPConnection | None:
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < self._kept_seconds and _is_silent(connection):
                return connection
            connection.close()

    def _made(self) -> HTTPConnection:
        host, port, seconds = self._url.hostname or "", self._url.port, self._connect_seconds
        connection = (
            HTTPSConnection(host, port, timeout=seconds, context=self._trust)
            if self._trust
            else HTTPConnection(host, port, timeout=seconds)
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise Unsent(type(error).__name__) from error
        return connection


def _content(response: HTTPResponse, max_bytes: int) -> tuple[bytes, bool]:
    """Returns the body, unpacked, and whether it was cut off. Raises IncompleteRead, zlib.error.

    It is unpacked piece by piece: a little that unpacks to very much would else have it all in memory.
    """
    packed = (response.getheader("content-encoding") or "").strip().lower() in ("gzip", "x-gzip")
    unpacking = zlib.decompressobj(GZIP) if packed else None
    content = bytearray()
    while piece := response.read(PIECE_BYTES):
        if unpacking is None:
            content += piece
        else:
            content += unpacking.decompress(piece, max_bytes + 1 - len(content))
        if len(content) > max_bytes:
            return bytes(memoryview(content)[:max_bytes]), True
    if response.length:  # http.client tells of it only to those who read all at once
        raise IncompleteRead(b"", response.length)
    if unpacking is not None and not unpacking.eof:
        raise zlib.error("the packed content broke off")
    return bytes(content), False


def _is_silent(connection: HTTPConnection) -> bool:
    """A server says nothing unasked but that it has closed."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)


def trust() -> ssl.SSLContext:
    """Whom to believe over TLS: the machine's own certificates, or certifi's where there are none.

    A hashed directory is read on demand; a whole file is parsed at once, which is a tenth of a cold start.
    SSL_CERT_FILE and SSL_CERT_DIR go first, as everywhere.
    """
    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not directory:
        directory = ssl.get_default_verify_paths().openssl_capath
        if not any(Path(directory).glob("????????.0")):
            import certifi

            file, directory = certifi.where(), None
    context = ssl.create_default_context(cafile=file or None, capath=directory or None)
    context.set_alpn_protocols(["http/1.1"])
    return context
