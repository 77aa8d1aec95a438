"""HTTP as no library writes it, byte for byte: over the gateway, and straight at a function's own server."""

import json
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.stack import Person

CHUNKS = b'8;a=b\r\n{"type":\r\n4;c\r\n"t"}\r\n0\r\nX-Trailer: 1\r\n\r\n'


@dataclass(frozen=True)
class Odd:
    """One request to task-assign, or to jobs-recent without a body, and the status that it has to get."""

    status: int
    headers: tuple[bytes, ...] = ()
    body: bytes | None = None
    chunked: bool = False
    method: bytes = b""
    version: bytes = b"1.1"

    def written(self, path: str, person: Person) -> bytes:
        method = self.method or (b"GET" if self.body is None else b"POST")
        lines = [method + f" {path} HTTP/".encode() + self.version, b"Host: odd.test", *self.headers]
        lines += [f"{name}: {value}".encode() for name, value in person.headers.items()]
        if self.body is not None:
            length = str(len(self.body)).encode()
            lines += [b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: " + length]
        return b"\r\n".join(lines) + b"\r\n\r\n" + (self.body or b"")


JSON = (b"Content-Type: application/json",)
TABLE = {
    "chunks with extensions and a trailer": Odd(200, JSON, CHUNKS, chunked=True),
    "no chunk at all": Odd(400, JSON, b"0\r\n\r\n", chunked=True),
    "100-continue": Odd(200, (*JSON, b"Expect: 100-continue"), b'{"type":"t"}'),
    "100-continue without a body": Odd(200, (b"Expect: 100-continue",)),
    "a body where none belongs": Odd(200, JSON, b"{}", method=b"GET"),
    "HTTP/1.0": Odd(200, JSON, b'{"type":"t"}', version=b"1.0"),
    "a key twice": Odd(422, JSON, b'{"type":"t","type":""}'),
    "a key given in two headers": Odd(
        200, (*JSON, b"Idempotency-Key: odd", b"Idempotency-Key: http"), b'{"type":"t"}'
    ),
    "a key that is no text": Odd(422, (*JSON, b"Idempotency-Key: \xff\xfe"), b'{"type":"t"}'),
    "UTF-16": Odd(400, JSON, '{"type":"t"}'.encode("utf-16")),
    "a byte order mark": Odd(400, JSON, b'\xef\xbb\xbf{"type":"t"}'),
    "a lone surrogate": Odd(400, JSON, b'{"type":"\\ud800"}'),
    "a compressed body": Odd(415, (*JSON, b"Content-Encoding: gzip"), b"\x1f\x8b\x08\x00"),
    "TRACE": Odd(405, (), method=b"TRACE"),
    "PATCH": Odd(405, JSON, b"{}", method=b"PATCH"),
    "100,000 brackets": Odd(400, JSON, b"[" * 100_000),
    "the server's own variables": Odd(200, (b"SCRIPT_NAME: /x", b"PATH_INFO: /y")),
    "an offer of HTTP/2": Odd(
        200, (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    ),
    "a request id that is none": Odd(200, (b"x-request-id: a\tb", b"traceparent: 00-zz")),
}  # fmt: skip


def exchange(url: str, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """The final answer: status, headers with names in lower case, body."""
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), place.port), timeout=60) as line:
        line.sendall(raw)
        with line.makefile("rb") as reading:
            while (first := reading.readline().split())[1] == b"100":
                assert reading.readline() == b"\r\n"
            headers: dict[str, str] = {}
            while (header := reading.readline()) != b"\r\n":
                name, _, value = header.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            body = reading.read(int(headers["content-length"])) if "content-length" in headers else b""
    return int(first[1]), headers, body


@pytest.mark.parametrize("place", ["gateway", "collab"])
@pytest.mark.parametrize("case", TABLE)
def test_odd_http_gets_the_status_that_it_deserves(member: Person, place: str, case: str) -> None:
    odd, env = TABLE[case], member.stack.env
    if place == "gateway":
        base, path = (
            env["SUPABASE_URL"],
            f"/functions/v1/{'jobs-recent' if odd.body is None else 'task-assign'}",
        )
    else:
        base, path = env["COLLAB_URL"], f"/api/collab/{'jobs/recent' if odd.body is None else 'task.assign'}"
    if case == "a body where none belongs":
        path = path.replace("task-assign", "jobs-recent").replace("task.assign", "jobs/recent")
    status, headers, body = exchange(base, odd.written(path, member))
    assert status == odd.status, body
    assert re.fullmatch(r"[\w.:+/=@-]{8,128}", headers["x-request-id"])
    assert headers["access-control-allow-origin"] == "*"
    if body and status >= 400:
        assert set(json.loads(body)) == {"error", "code", "details", "hint", "requestId"}
