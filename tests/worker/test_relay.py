"""The relay between browser and driver: what passes, what is cut, what is replaced."""

import json
import os
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.browser import relay


def relayed(pieces: Iterable[bytes]) -> list[bytes]:
    """What the driver reads of what the browser writes in these pieces."""
    from_browser, browser = os.pipe()
    driver, to_driver = os.pipe()
    heard = bytearray()

    def listen() -> None:
        while piece := os.read(driver, 1 << 20):
            heard.extend(piece)

    def pass_on() -> None:
        relay.relay(from_browser, to_driver)
        os.close(to_driver)

    threads = [threading.Thread(target=work) for work in (listen, pass_on)]
    for thread in threads:
        thread.start()
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[os.write(browser, left) :]
    os.close(browser)
    for thread in threads:
        thread.join()
    os.close(driver)
    os.close(from_browser)
    return bytes(heard).split(b"\0")[:-1]


def told(*messages: dict[str, Any]) -> list[Any]:
    pieces = [json.dumps(message, separators=(",", ":")).encode() + b"\0" for message in messages]
    return [json.loads(words) for words in relayed(pieces)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=50).filter(lambda words: b"\0" not in words), max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_ordinary_messages_pass_unchanged_however_they_are_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(words + b"\0" for words in messages)
    pieces, at = list[bytes](), 0
    while at < len(stream):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(stream[at : at + size])
        at += size
    assert relayed(pieces) == messages


def test_a_long_event_has_its_strings_cut_and_keeps_its_form() -> None:
    url = "https://example.com/?" + "x" * (2 * relay.MAX_EVENT)
    event = {
        "method": "Network.requestWillBeSent",
        "params": {"requestId": "7", "request": {"url": url, "method": "GET", "size": 7}},
        "sessionId": "ABC",
    }
    before, cut, after = told({"method": "A.b"}, event, {"id": 1, "result": {}})
    assert (before, after) == ({"method": "A.b"}, {"id": 1, "result": {}})
    assert len(cut["params"]["request"].pop("url")) < 5000
    assert cut == {**event, "params": {"requestId": "7", "request": {"method": "GET", "size": 7}}}


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"method": "Runtime.consoleAPICalled", "params": {"type": "warning", "args": "x"}}, "warning"),
        ({"method": "Runtime.exceptionThrown", "params": {"text": "x"}}, "exception"),
    ],
)
def test_what_a_page_says_at_length_is_replaced_by_how_long_it_was(event: dict[str, Any], kind: str) -> None:
    size = relay.MAX_EVENT + 500
    event["params"]["more"] = "y" * size
    (instead,) = told({**event, "sessionId": "ABC"})
    assert instead["method"] == "Runtime.exceptionThrown"
    assert instead["sessionId"] == "ABC"
    words = instead["params"]["exceptionDetails"]["text"].split()
    assert words[-2] == kind
    assert int(words[-1]) > size


def test_an_answer_that_is_too_long_becomes_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_READ_BYTES", 1000)
    monkeypatch.setattr(relay, "MAX_CUT", 2000)
    monkeypatch.setattr(relay, "MAX_ANSWER", 3000)
    monkeypatch.setattr(relay, "MAX_FILE", 9000)
    picture = {"id": 2, "result": {"data": "y" * 5000}, "sessionId": "ABC"}
    long = {"id": 3, "result": {"value": "y" * 5000}, "sessionId": "ABC"}
    huge = {"id": 4, "result": {"data": "y" * 50_000}}
    first, second, third, last = told(picture, long, huge, {"id": 5, "result": {}})
    assert (first, last) == (picture, {"id": 5, "result": {}})
    error = {"code": -32000, "message": relay.TOO_LARGE}
    assert second == {"id": 3, "error": error, "sessionId": "ABC"}
    assert third == {"id": 4, "error": error}


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b'{"method":"A.b","params":{"x":"' + b"y" * relay.MAX_EVENT
    assert relayed([long, b'\0{"id":1}\0']) == [b'{"id":1}'], "it is no JSON"
    deep = b'{"method":"A.b","params":' + b"[" * relay.MAX_EVENT + b"]" * relay.MAX_EVENT + b"}\0"
    assert relayed([deep]) == []
    assert told({"method": "Runtime.bindingCalled", "params": {"payload": "y" * relay.MAX_EVENT}}) == []
    monkeypatch.setattr(relay, "MAX_CUT", relay.MAX_EVENT)
    assert told({"method": "A.b", "params": {"x": "y" * relay.MAX_EVENT}}) == []
