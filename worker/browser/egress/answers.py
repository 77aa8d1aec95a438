"""One answer of a server, read as its bytes come: no sockets, no waiting.

Whatever a server sends, the browser gets one answer in its plainest form: one head, and a body that is
exactly as long as the head says. Anything else is refused as soon as it is seen (RFC 9112, 6 and 7).
"""

import re

from worker.browser.egress import http1
from worker.browser.egress.http1 import NotHttp

MAX_INTERIM = 10  # answers of the 100s before the one that counts
MAX_CHUNK_LINE = 4096  # bytes of a chunk's size with its extensions
MAX_CHUNK_EXCESS = 16 * 1024  # bytes of framing beyond 16 and twice the data of each chunk, as Go counts them
MAX_TRAILER_BYTES = 16 * 1024

_EXTENSION = rb"[ \t]*(?:;[^\x00\n\x0b\x0c\r]*)?"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})" + _EXTENSION + rb"\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,16}" + _EXTENSION + rb"\r?\Z")
_START = b"HTTP/1."


class AnswerReader:
    """Takes the server's bytes and returns what the browser gets. Each call works on what it is given, and
    holds no more than an unfinished line or head."""

    def __init__(self, method: str) -> None:
        self.begun = False  # some of the answer has been passed on
        self.ended = False
        self.stays = False  # the server takes another request on this connection, once the answer has ended
        self._method = method
        self._head = bytearray()
        self._interim = 0
        self._left: int | None = 0  # bytes of the body still to come; None: all until the connection ends
        self._chunks: _Chunks | None = None

    @property
    def appetite(self) -> int:
        """Bytes that are better not exceeded at a time: 64 KiB of the smallest chunks take 20 ms."""
        return 64 * 1024 if self._chunks is not None else 256 * 1024

    def feed(self, data: bytes) -> bytes:
        """Raises NotHttp; the browser's answer is then to be broken off."""
        if not self.begun:
            return self._read_head(data)
        return self._read_body(data)

    def finish(self) -> bytes:
        """The server's side has ended. Raises EOFError when something is missing."""
        if not self.begun or self._chunks is not None or self._left is not None:
            raise EOFError("the answer was cut off")
        self.ended = True
        return b""

    def _read_head(self, data: bytes) -> bytes:
        scanned = max(0, len(self._head) - 2)
        self._head += data
        while (end := http1.find_end(self._head, scanned)) >= 0:
            if end > http1.MAX_HEAD_BYTES:
                break
            answer = http1.read_answer(bytes(self._head[:end]), self._method)
            del self._head[:end]
            scanned = 0
            if not answer.interim:
                return answer.forwarded + self._begin(answer)
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise NotHttp(f"more than {MAX_INTERIM} interim answers")
        if len(self._head) >= http1.MAX_HEAD_BYTES:
            raise NotHttp(f"a head of more than {http1.MAX_HEAD_BYTES} bytes")
        if not self._head.startswith(_START[: len(self._head)]):
            raise NotHttp("no status line of HTTP/1.1")
        return b""

    def _begin(self, answer: http1.Answer) -> bytes:
        """Returns what came of the body together with the head."""
        self.begun, self.stays = True, answer.stays
        self._chunks = _Chunks() if answer.length == "chunked" else None
        self._left = answer.length if isinstance(answer.length, int) else None
        self.ended = self._left == 0
        came, self._head = bytes(self._head), bytearray()
        return self.feed(came) if came else b""

    def _read_body(self, data: bytes) -> bytes:
        if self.ended:
            out, rest = b"", data
        elif self._chunks is not None:
            out, rest = self._chunks.feed(data)
            self.ended = self._chunks.ended
        elif self._left is None:
            return data
        else:
            out, rest = data[: self._left], data[self._left :]
            self._left -= len(out)
            self.ended = not self._left
        if rest:
            self.stays = False  # it belongs to no answer: the next request would get it for its own
        return out


class _Chunks:
    """A chunked body (RFC 9112, 7.1), with its chunks joined as they come and without their extensions."""

    def __init__(self) -> None:
        self.ended = False
        self._excess = 0
        self._held = b""  # the beginning of a line
        self._left = 0  # bytes of this chunk's data still to come
        self._inside = False  # a chunk whose last CR LF has not come yet
        self._last = False  # the trailer is being read

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What is passed on, and what comes after the body's end. Raises NotHttp."""
        if self._held:
            data, self._held = self._held + data, b""
        at, end, trailer = 0, len(data), b""
        pieces: list[bytes] = []
        while at < end and not self.ended:
            if self._last:
                stop = self._find_trailer(data, at)
                if stop < 0:
                    break
                trailer, at, self.ended = http1.read_trailer(data[at:stop]), stop, True
            elif self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
            elif self._inside:
                end_of_chunk = data[at : at + 2]
                if not b"\r\n".startswith(end_of_chunk):
                    raise NotHttp("a chunk of another size than it says")
                if len(end_of_chunk) < 2:
                    break
                at, self._inside = at + 2, False
            else:
                size_line = _SIZE.match(data, at)
                if size_line is None:
                    self._expect_line(data, at)
                    break
                begin, size = size_line.end(), int(size_line[1], 16)
                self._weigh(begin - at, size)
                stop = begin + size
                if size and data[stop : stop + 2] == b"\r\n":  # the whole chunk is there
                    pieces.append(data[begin:stop])
                    at = stop + 2
                else:
                    self._left, at = size, begin
                    self._inside, self._last = size > 0, not size
        self._held = b"" if self.ended else data[at:]
        body = b"".join(pieces)
        out = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return (out + b"0\r\n" + trailer, data[at:]) if self.ended else (out, b"")

    def _weigh(self, line: int, size: int) -> None:
        """Raises NotHttp for a body that is little else than extensions."""
        self._excess = max(0, self._excess + line - 14 - 2 * size)
        if line > MAX_CHUNK_LINE or self._excess > MAX_CHUNK_EXCESS:
            raise NotHttp("chunks with too long extensions")

    @staticmethod
    def _expect_line(data: bytes, at: int) -> None:
        """Raises NotHttp unless the rest of a chunk's first line may still come."""
        if len(data) - at >= MAX_CHUNK_LINE:
            raise NotHttp("a chunk's size that is too long")
        if not _SIZE_BEGUN.match(data, at):
            raise NotHttp("a chunk's size that is no number")

    @staticmethod
    def _find_trailer(data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            return at + 2
        end = http1.find_end(data, at)
        if (end if end >= 0 else len(data)) - at > MAX_TRAILER_BYTES:
            raise NotHttp(f"a trailer of more than {MAX_TRAILER_BYTES} bytes")
        return end
