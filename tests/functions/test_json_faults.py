"""What is wrong with a body's JSON is said, with the field's path and the byte at which it stands."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejob import bodies, jsonfaults
from sidejob.errors import Refused
from sidejob.jsonfaults import MAX_DIGITS, MAX_NESTING

JOB = "0f0e0d0c-0b0a-4908-8706-050403020100"
FILE = {"name": "a", "path": "p"}


def refusal(body: bytes) -> Refused:
    with pytest.raises(Refused) as refused:
        bodies.parsed(bodies.TaskAssign, body)
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 500
    return refused.value


def assigning(payload: bytes) -> bytes:
    return b'{"type":"t","payload":' + payload + b"}"


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


@pytest.mark.parametrize(
    ("body", "says", "place", "path"),
    [
        (b'\xef\xbb\xbf{"type":"t"}', "byte order mark", 0, ""),
        ('{"type":"t"}'.encode("utf-16"), "UTF-16", 0, ""),
        ('{"type":"t"}'.encode("utf-16-le"), "UTF-16", 0, ""),
        (b'{"type":"\xff"}', "not UTF-8", 9, "type"),
        (assigning(b'{"a":["\xc3\xa9\xed\xa0\xbd"]}'), "half an emoji", 31, "payload.a.0"),
        (assigning(b'{"a":["\xc3\xa9", "x\\ud83d"]}'), "half an emoji: \\ud83d", 36, "payload.a.1"),
        (assigning(b'{"a":"\\ude00"}'), "half an emoji: \\ude00", 28, "payload.a"),
        (assigning(b'{"a":"\\ud83d\\ud83d\\ude00"}'), "half an emoji: \\ud83d", 28, "payload.a"),
        (assigning(b'{"a":"\\ud83dx\\ude00"}'), "half an emoji: \\ud83d", 28, "payload.a"),
        (assigning(b'{"a\\ud83d":1}'), "half an emoji", 25, "payload"),
        (assigning(nested(101)), "deeper than 100 levels", 522, "payload.a.a.a."),
        (b"[" * 100_000, "deeper than 100 levels", 101, "0.0.0"),
        (b'{"type":"t",}', "not valid JSON", 12, ""),
        (b'{"type" "t"}', "not valid JSON", 8, "type"),
        (b'{"type":"t","payload":{"a":[1,tru]}}', "not valid JSON", 30, "payload.a.1"),
        (b'{"type":"t"} x', "not valid JSON", 13, ""),
        (b'{"type":"t', "not valid JSON", 8, "type"),
        (b"type=browser.screenshot", "not valid JSON", 0, ""),
    ],
)
def test_what_is_no_json_says_what_and_where(body: bytes, says: str, place: int, path: str) -> None:
    refused = refusal(body)
    assert (refused.status, refused.code) == (400, "invalid_json")
    assert says in refused.message
    assert f"at byte {place}" in refused.message
    assert isinstance(refused.details, dict)
    assert refused.details["byte"] == place
    assert str(refused.details.get("field", "")).startswith(path)
    assert path in refused.message


@pytest.mark.parametrize(
    ("body", "says", "path"),
    [
        (b'{"type":"t","type":""}', "stands twice", "type"),
        (assigning(b'{"b":[{"a":1,"\\u0061":2}]}'), "stands twice", "payload.b.0.a"),
        (assigning(b'{"x":[1,NaN]}'), "NaN", "payload.x.1"),
        (assigning(b'{"x":-Infinity}'), "-Infinity", "payload.x"),
        (assigning(b'{"x":1e999}'), "400 digits", "payload.x"),
        (assigning(b'{"x":1e399}'), "1.8e308", "payload.x"),
        (assigning(b'{"x":-1e309}'), "1.8e308", "payload.x"),
        (assigning(b'{"x":1e-500}'), "400 digits", "payload.x"),
        (assigning(b'{"x":1e99999999999999999999999}'), "400 digits", "payload.x"),
        (assigning(b'{"x":0.' + b"1" * 400 + b"}"), "400 digits", "payload.x"),
        (assigning(b'{"x":' + b"9" * 5000 + b"}"), "400 digits", "payload.x"),
        (assigning(b'{"x":["a\\u0000"]}'), "NUL", "payload.x.0"),
        (assigning(b'{"a\\u0000":1}'), "NUL", "payload"),
        (b'{"type":"a\\u0000"}', "NUL", "type"),
    ],
)
def test_a_value_that_cannot_be_passed_on_says_what_and_where(body: bytes, says: str, path: str) -> None:
    refused = refusal(body)
    assert (refused.status, refused.code) == (422, "invalid_body")
    assert says in refused.message
    assert refused.message.startswith(f"`{path.partition('.')[0]}`: ")
    assert f"`{path}`" in refused.message
    assert isinstance(refused.details, list)
    assert isinstance(refused.details[0], dict)
    assert refused.details[0]["field"] == path


@pytest.mark.parametrize(
    "payload",
    [
        nested(MAX_NESTING), b'{"a":' + b"[" * 99 + b"]" * 99 + b"}", b'{"x":1.7e308}', b'{"x":1e-399}',
        b'{"x":0.' + b"1" * (MAX_DIGITS - 1) + b"}", b'{"x":1.10}', b'{"x":9007199254740993}', b'{"x":"NaN"}',
        b'{"x":"\\ud83d\\ude00"}', b'{"x":"\\\\ud83d"}', b'{"x":"\\\\u0000"}', b'{"x":"\xf0\x9f\x98\x80"}',
        b'{"x":"' + b"[" * 5000 + b'"}', b'{"x":"' + b"9" * 5000 + b'"}', b'{"x":"1e999"}', b'{"x":0e9999}',
    ],
)  # fmt: skip
def test_what_can_be_passed_on_is(payload: bytes) -> None:
    bodies.parsed(bodies.TaskAssign, assigning(payload))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.booleans(), st.data())
def test_of_a_body_that_is_cut_off_or_changed_anywhere_it_says_something(
    value: dict[str, Any], escaped: bool, data: st.DataObject
) -> None:
    """Never another exception, and a fault wherever Python's own parser finds one."""
    body = bytearray(json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(0, 2))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        json.loads(bytes(body).decode())
        whole = True
    except ValueError:
        whole = False
    try:
        jsonfaults.check(bytes(body))
        refused = None
    except Refused as error:
        refused = error
    if refused is None:
        assert whole
    else:
        assert refused.status in (400, 422)
        assert "at byte" in refused.message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"artifacts": [FILE, FILE | {"path": "q"}]}, "artifacts.1.name"),
        ({"artifact": FILE, "artifacts": [FILE]}, "artifacts.0.name"),
        ({"artifacts": [FILE, FILE | {"name": "b"}, {"name": "a", "sameAs": JOB}]}, "artifacts.2.name"),
        ({"retryAfterSeconds": -1}, "retryAfterSeconds"),
        ({"retryAfterSeconds": 31_536_001}, "retryAfterSeconds"),
        ({"retryAfterSeconds": "60"}, "retryAfterSeconds"),
        ({"retryAfterSeconds": True}, "retryAfterSeconds"),
        ({"retryAfterSeconds": 60, "retryAt": "2026-11-23T18:13:31Z"}, "retryAfterSeconds"),
        ({"artifacts": [{"name": "a"}]}, "artifacts.0.path"),
        ({"artifacts": [{"name": "a", "sameAs": JOB, "sha256": "0" * 64}]}, "artifacts.0.sha256"),
    ],
)  # fmt: skip
def test_what_one_field_demands_of_another_is_422_and_named(body: dict[str, Any], field: str) -> None:
    report = {"jobId": JOB, "ok": True, "attempt": 1, "leaseToken": "t"} | body
    with pytest.raises(Refused) as refused:
        bodies.parsed(bodies.TaskResult, json.dumps(report).encode())
    assert (refused.value.status, refused.value.code) == (422, "invalid_body")
    assert refused.value.message.startswith(f"`{field}`")
    assert isinstance(refused.value.details, list)
    assert [fault["field"] for fault in refused.value.details if isinstance(fault, dict)] == [field]


def test_a_report_may_say_in_how_many_seconds() -> None:
    report = b'{"jobId":"%s","ok":false,"attempt":1,"leaseToken":"t","retryAfterSeconds":%s}'
    for seconds, read in ((b"0", 0.0), (b"1.5", 1.5), (b"31536000", 31_536_000.0)):
        assert bodies.parsed(bodies.TaskResult, report % (JOB.encode(), seconds)).retry_after_seconds == read
