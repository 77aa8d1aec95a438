"""Heads of HTTP/1.1 messages (RFC 9112), read strictly and written again in their plainest form.

Two readers that understand one message in two ways are how requests and answers are smuggled. A head that
leaves a choice is refused, so that server, proxy and browser always agree on where a message ends.
"""

import re
from dataclasses import dataclass
from typing import Literal

MAX_HEAD_BYTES = 256 * 1024  # Chromium's own limit for answers
MAX_FIELDS = 500  # lines of a head or a trailer

Length = int | Literal["chunked", "rest"]  # of a body; "rest": it ends with the connection

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# A line each: no space before the colon, no continuation lines, no CR, LF or NUL in a value.
_FIELDS = re.compile(rb"(?:%b:[^\x00\n\x0b\x0c\r]*\r\n)*+" % _TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/1\.1" % _TOKEN)
_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp]://([^/?#\\]+)([/?][^#]*)?")
_AUTHORITY = re.compile(r"[^/?#\\@]+:[0-9]{1,5}")
_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")

# Between two hops only (RFC 9110, 7.6.1), and what says where a body ends: the proxy writes its own.
_OWN = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class NotHttp(ValueError):
    """The bytes are no HTTP message with a single meaning. The text stands after a colon in a sentence."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    origin: str  # http://host:port/ as the browser wrote it; host:port of a CONNECT
    body_bytes: int
    forwarded: bytes  # the head as the server is asked; nothing for a CONNECT


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    length: Length
    stays: bool  # the server takes another request on this connection
    forwarded: bytes  # the head as the browser gets it

    @property
    def interim(self) -> bool:
        """Another head follows."""
        return self.status < 200


def find_end(data: bytes | bytearray, start: int = 0) -> int:
    """Index after the empty line that ends a head; -1 when it has not come yet. A line feed alone counts too:
    nothing longer is waited for, and the reader refuses it."""
    match = _END.search(data, start)
    return match.end() if match else -1


def read_request(head: bytes) -> Request:
    """Raises NotHttp."""
    first, fields, own = _split(head)
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise NotHttp("no request line")
    method, target = match[1].decode(), match[2].decode()
    if b"transfer-encoding" in own:
        raise NotHttp("a request of unknown length")
    if sum(name == b"host" for name, _ in fields) > 1:
        raise NotHttp("more than one host")
    length = _content_length(own.get(b"content-length", ())) or 0
    if method == "CONNECT":
        if length or not _AUTHORITY.fullmatch(target):
            raise NotHttp("no host and port to connect to")
        return Request(method, target, 0, b"")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise NotHttp("no address that a proxy is asked for")
    authority, path = absolute[1], absolute[2] or "/"
    if path.startswith("?"):
        path = "/" + path
    # The address says where the request goes, whatever its Host field says (RFC 9112, 3.2.2).
    lines = [f"{method} {path} HTTP/1.1\r\nHost: {authority}".encode()]
    lines += [line for name, line in fields if name != b"host"]
    if b"content-length" in own:
        lines.append(b"Content-Length: %d" % length)
    return Request(method, f"http://{authority}/", length, b"\r\n".join(lines) + b"\r\n\r\n")


def read_answer(head: bytes, method: str) -> Answer:
    """`method`: of the request that it answers. Raises NotHttp."""
    first, fields, own = _split(head)
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise NotHttp("no status line of HTTP/1.1")
    status, codings = int(match[2]), own.get(b"transfer-encoding", ())
    said = _content_length(own.get(b"content-length", ()))
    if codings and ([coding.lower() for coding in codings] != [b"chunked"] or match[1] == b"0"):
        raise NotHttp("a transfer encoding other than chunked")
    if status == 101:
        raise NotHttp("an upgrade that was not asked for")
    if status < 200:
        return Answer(status, 0, True, b"")
    bodiless = method == "HEAD" or status in (204, 304)
    length: Length = 0 if bodiless else "chunked" if codings else "rest" if said is None else said
    # Both at once may be an attempt at smuggling: chunked counts, and nothing follows it (RFC 9112, 6.3).
    both = bool(codings) and said is not None
    stays = match[1] == b"1" and length != "rest" and not both and not _closes(own)
    lines = [first, *(line for _, line in fields)]
    if codings and status not in (204, 304):
        lines.append(b"Transfer-Encoding: chunked")
    elif said is not None and status != 204:
        lines.append(b"Content-Length: %d" % said)
    if not stays:
        lines.append(b"Connection: close")
    return Answer(status, length, stays, b"\r\n".join(lines) + b"\r\n\r\n")


def read_trailer(section: bytes) -> bytes:
    """A chunked body's last fields, with the empty line after them, but for those that no trailer may hold.
    Raises NotHttp."""
    kept, _ = _fields(section.removesuffix(b"\r\n"))
    return b"".join(line + b"\r\n" for name, line in kept if name != b"host") + b"\r\n"


Fields = list[tuple[bytes, bytes]]  # name in lower case, and the line as it came, without its end
Own = dict[bytes, list[bytes]]  # values by name


def _split(head: bytes) -> tuple[bytes, Fields, Own]:
    """The first line, the fields that are passed on, and those that are not. Raises NotHttp."""
    if not head.endswith(b"\r\n\r\n"):
        raise NotHttp("a line that does not end in CR LF")
    first, _, block = head[:-2].partition(b"\r\n")
    fields, own = _fields(block)
    if options := [option for option in _options(own) if option not in (b"close", b"keep-alive")]:
        fields = [(name, line) for name, line in fields if name not in options]
    return first, fields, own


def _fields(block: bytes) -> tuple[Fields, Own]:
    if not _FIELDS.fullmatch(block):
        raise NotHttp("a header line that can be read in two ways")
    lines = block.split(b"\r\n")[:-1]
    if len(lines) > MAX_FIELDS:
        raise NotHttp(f"more than {MAX_FIELDS} header lines")
    fields: Fields = []
    own: Own = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _OWN:
            own.setdefault(name, []).append(value.strip(b" \t"))
        else:
            fields.append((name, line))
    return fields, own


def _options(own: Own) -> list[bytes]:
    return [
        option.strip(b" \t").lower() for value in own.get(b"connection", ()) for option in value.split(b",")
    ]


def _closes(own: Own) -> bool:
    return b"close" in _options(own)


def _content_length(values: list[bytes] | tuple[()]) -> int | None:
    """None when there is none. Raises NotHttp."""
    if not values:
        return None
    if len(set(values)) > 1:
        raise NotHttp("several lengths")
    if not _LENGTH.fullmatch(values[0]):
        raise NotHttp("a length that is no number")
    return int(values[0])
