"""The proxy's reader of HTTP beside h11's: what it passes on has one meaning, and it is the server's.

Messages are made of right and wrong parts, and some of their bytes are changed at random.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.browser.egress import http1
from worker.browser.egress.answers import AnswerReader
from worker.browser.egress.http1 import NotHttp

FEW, MANY = 300, 100_000
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@dataclass(frozen=True)
class Meaning:
    """An answer that is complete."""

    status: int
    body: bytes
    extra: bytes  # after its end


def read_by_h11(data: bytes, method: str) -> Meaning | None:
    """None for no proper answer, or half of one."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 22)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        client.receive_data(data)
        ended = not data
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Meaning(status, body, client.trailing_data[0])
            elif event is h11.NEED_DATA and not ended:
                ended = True
                client.receive_data(b"")
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


@dataclass(frozen=True)
class Passed:
    out: bytes  # as the browser gets it
    whole: bool
    stays: bool
    begun: bool


def read_by_us(pieces: Sequence[bytes], method: str) -> Passed:
    reader, out, whole = AnswerReader(method), b"", False
    try:
        for piece in pieces:
            out += reader.feed(piece)
        whole = reader.ended
        if not whole:
            out += reader.finish()
            whole = True
    except (NotHttp, EOFError):
        whole = False
    return Passed(out, whole, reader.stays, reader.begun)


def mostly(right: Sequence[bytes], wrong: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One in twelve is wrong: of a message of ten parts, half are not."""
    good, bad = st.sampled_from(right), st.sampled_from(wrong)
    return st.integers(0, 11).flatmap(lambda number: bad if number == 5 else good)


ENDS = mostly([b"\r\n"], [b"\n", b"\r", b"\r\r\n", b"", b"\r\n ", b"\n\r\n", b"\0\r\n"])
STATUS = mostly(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 304 Not Modified",
     b"HTTP/1.1 204 No Content", b"HTTP/1.1 999 Denied", b"HTTP/1.1 200 caf\xe9"],
    [b"HTTP/2.0 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 20 OK", b"http/1.1 200 OK", b"<html>",
     b"HTTP/1.1 200\tOK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 2000 OK", b"",
     b" HTTP/1.1 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.2 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1 200 O\0K"],
)  # fmt: skip
FIELDS = mostly(
    [b"X: 1", b"Set-Cookie: a=b", b"Connection: keep-alive", b"Connection: close", b"Transfer-Encoding: chunked",
     b"Content-Length: 5", b"Content-Length: 0", b"content-length:5 ", b"Vary:", b"X:\x80\xff", b"Connection: x, Close"],
    [b"Content-Length: 6", b"Content-Length: +5", b"Content-Length: 5,5", b"Content-Length: 5, 6", b"Content-Length: -5",
     b"Content-Length: 0x5", b"Content-Length: 05", b"Content-Length: " + b"9" * 30, b"Content-Length:", b"Content-Length : 5",
     b"Content-Length: 5 5", b"Content_Length: 7", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: gzip, chunked",
     b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding:\x0bchunked",
     b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:", b"Transfer-Encoding: chunked;q=1",
     b" folded", b"\tfolded", b"X: a\rContent-Length: 3", b"X: a\nContent-Length: 3", b"X: \0", b": empty", b"no colon",
     b"Connection: Content-Length", b"Connection: Transfer-Encoding, x", b"\xa0X: 1", b"X\x00: 1", b"Trailer: X", b"Upgrade: h2c"],
)  # fmt: skip
SIZES = mostly(
    [b"3\r\nabc\r\n", b"1\r\nx\r\n", b"0a\r\n0123456789\r\n", b"3;ext=1\r\nabc\r\n", b"3 \r\nabc\r\n", b"5\r\n0\r\n\r\n\r\n"],
    [b"-1\r\n", b"+3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabcXY", b"3\r\nabc\n0", b"3\r\nab\r\n", b"3\nabc\n", b"3\r\nabc\n", b" 3\r\nabc\r\n",
     b"\r\n", b"3;a\nb\r\nabc\r\n", b"3;a\rb\r\nabc\r\n", b"f" * 17 + b"\r\n", b"f" * 16 + b"\r\n", b"3_0\r\n", b"3;" + b"a" * 5000 + b"\r\nabc\r\n"],
)  # fmt: skip
LAST = mostly(
    [b"0\r\n\r\n", b"0;last\r\n\r\n", b"000\r\nX: 1\r\n\r\n"],
    [b"0\r\nX : 1\r\n\r\n", b"0\r\n folded\r\n\r\n", b"0\r\n\n", b"0\n\n", b"0\r\nContent-Length: 5\r\n\r\n", b"", b"0\r\n", b"0\r\nX: \0\r\n\r\n"],
)  # fmt: skip
EXTRA = mostly([b"", b"", b""], [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\r\n", b"x"])
METHODS = st.sampled_from(["GET", "GET", "HEAD", "POST"])


@st.composite
def heads(draw: st.DrawFn, first: st.SearchStrategy[bytes], fields: st.SearchStrategy[bytes]) -> bytes:
    lines = [draw(first), *draw(st.lists(fields, max_size=5))]
    return b"".join(line + draw(ENDS) for line in lines) + draw(ENDS)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    chunked = b"".join(draw(st.lists(SIZES, max_size=4))) + draw(LAST)
    return draw(st.sampled_from([chunked, chunked, b"hello", b"", b"hell"])) + draw(EXTRA)


@st.composite
def changed(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    data = bytearray(draw(messages))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["put", "drop", "double"]))
        if how == "put":
            data[at:at] = draw(
                st.sampled_from([b"\r", b"\n", b"\0", b" ", b"\t", b":", b";", b"0", b"\x0b", b"\xff", b"a"])
            )
        elif how == "drop":
            del data[at : at + 1]
        else:
            data[at:at] = data[max(0, at - 7) : at]
    return bytes(data)


INTERIM = st.lists(
    mostly(
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"],
        [b"HTTP/1.1 100\r\nContent-Length: 5\r\n\r\nhello"],
    ),
    max_size=2,
).map(b"".join)
CHUNKED = st.just(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
ANSWERS = st.one_of(
    changed(st.tuples(INTERIM, heads(STATUS, FIELDS), bodies()).map(b"".join)),
    st.tuples(CHUNKED, changed(bodies())).map(b"".join),
)


@st.composite
def split(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> list[bytes]:
    data = draw(messages)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [
        piece for piece in (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)) if piece
    ]


def has_one_meaning(pieces: list[bytes], method: str) -> None:
    raw = b"".join(pieces)
    ours, theirs = read_by_us(pieces, method), read_by_h11(raw, method)
    seen = read_by_h11(ours.out, method)  # by the browser
    if not ours.whole:
        assert seen is None, "half an answer looks like a whole one"
        assert ours.begun or not ours.out
    else:
        assert seen is not None
        assert not seen.extra, "more than an answer was passed on"
        assert theirs is not None, "a strict reader takes it for no answer"
        assert (seen.status, seen.body) == (theirs.status, theirs.body)
        assert not (theirs.extra and ours.stays), "what follows would be taken for the next answer"
    at_once = read_by_us([raw], method)
    assert (at_once.whole, at_once.stays) == (ours.whole, ours.stays), "it depends on how the bytes arrive"
    if ours.whole:
        assert read_by_h11(at_once.out, method) == seen


REQUEST_LINES = mostly(
    [b"GET http://a.example/ HTTP/1.1", b"POST http://a.example/p?q=1 HTTP/1.1", b"HEAD http://a.example:81/a?b#c HTTP/1.1",
     b"GET http://a.example/a? HTTP/1.1", b"GET http://a.example HTTP/1.1", b"GET http://a.example?x HTTP/1.1", b"CONNECT a.example:443 HTTP/1.1"],
    [b"GET / HTTP/1.1", b"GET http://a.example/ HTTP/1.0", b"GET  http://a.example/ HTTP/1.1", b"GET http://a.example/ HTTP/1.1 ", b"",
     b"GET http://a.example/a b HTTP/1.1", b"GET http://a.example/\x00 HTTP/1.1", b"G(T http://a.example/ HTTP/1.1", b"GET http:// HTTP/1.1"],
)  # fmt: skip
REQUEST_FIELDS = st.one_of(
    FIELDS,
    st.sampled_from([b"Host: a.example", b"Host: inside", b"Cookie: a=b", b"Proxy-Connection: keep-alive"]),
)
REQUESTS = changed(
    heads(REQUEST_LINES, REQUEST_FIELDS.filter(lambda line: b"chunked" not in line.lower() or b" :" in line))
)


def read_request_by_h11(head: bytes) -> tuple[str, str, int] | None:
    """Method, target and bytes of the body; None for no proper request."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 22)
    try:
        server.receive_data(head)
        event = server.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request) or server.trailing_data[0]:
        return None
    fields = dict(event.headers)
    length = b"chunked" if b"transfer-encoding" in fields else fields.get(b"content-length", b"0")
    return event.method.decode(), event.target.decode(), -1 if length == b"chunked" else int(length)


def is_asked_as_the_browser_wrote_it(data: bytes) -> None:
    end = http1.find_end(data)
    head = data[:end] if end >= 0 else data
    try:
        request = http1.read_request(head)
    except NotHttp:
        return
    host = (
        b"" if re.search(rb"(?im)^host:", head) else b"Host: any\r\n"
    )  # h11 wants one, the proxy needs none
    theirs = read_request_by_h11(head[:-2] + host + b"\r\n")
    assert theirs is not None, "a strict reader takes it for no request"
    method, target, body_bytes = theirs
    assert (method, body_bytes) == (request.method, request.body_bytes)
    if request.method == "CONNECT":
        assert request.forwarded == b""
        return
    authority, _, rest = (
        target.partition("://")[2].partition("/") if "/" in target[7:] else (target[7:], "", "")
    )
    if "?" in authority:
        authority, _, rest = target[7:].partition("?")
        path = "/?" + rest
    else:
        path = "/" + rest
    assert request.origin == f"http://{authority}/"
    assert read_request_by_h11(request.forwarded) == (method, path, body_bytes)
    assert re.findall(rb"(?im)^host: *(.*?)\r$", request.forwarded) == [authority.encode()]


def tried(count: int, check: Callable[..., None], **given_: Any) -> None:
    settings(max_examples=count, deadline=None, suppress_health_check=UNHURRIED)(given(**given_)(check))()


def test_an_answer_has_the_same_meaning_for_server_proxy_and_browser() -> None:
    tried(FEW, has_one_meaning, pieces=split(ANSWERS), method=METHODS)


def test_a_request_has_the_same_meaning_for_browser_proxy_and_server() -> None:
    tried(FEW, is_asked_as_the_browser_wrote_it, data=REQUESTS)


@pytest.mark.soak
def test_no_answer_out_of_a_hundred_thousand_has_two_meanings() -> None:
    tried(MANY, has_one_meaning, pieces=split(ANSWERS), method=METHODS)


@pytest.mark.soak
def test_no_request_out_of_a_hundred_thousand_has_two_meanings() -> None:
    tried(MANY, is_asked_as_the_browser_wrote_it, data=REQUESTS)


RIGHT_FIELDS = st.lists(
    st.sampled_from(
        [
            b"X: 1",
            b"Set-Cookie: a=b; Path=/",
            b"Vary:",
            b"X-Caf\xe9: \xe9".replace(b"Caf\xe9", b"Cafe"),
            b"Connection: keep-alive",
        ]
    ),
    max_size=6,
)


@given(
    fields=RIGHT_FIELDS,
    body=st.binary(max_size=60),
    chunk=st.integers(1, 9),
    how=st.sampled_from(["length", "chunked", "rest"]),
)
@settings(max_examples=FEW, deadline=None)
def test_an_honest_answer_is_passed_on_whole(fields: list[bytes], body: bytes, chunk: int, how: str) -> None:
    if how == "chunked":
        fields = [*fields, b"Transfer-Encoding: chunked"]
        parts = [body[at : at + chunk] for at in range(0, len(body), chunk)]
        sent = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        fields, sent = [*fields, b"Content-Length: %d" % len(body)] if how == "length" else fields, body
    raw = b"\r\n".join([b"HTTP/1.1 200 OK", *fields]) + b"\r\n\r\n" + sent
    for pieces in ([raw], [raw[at : at + 1] for at in range(len(raw))]):
        passed = read_by_us(pieces, "GET")
        assert passed.whole
        assert passed.stays is (how != "rest")
        assert read_by_h11(passed.out, "GET") == Meaning(200, body, b"")
