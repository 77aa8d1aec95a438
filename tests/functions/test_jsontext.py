"""JSON that is passed on as it was written: read as Python reads it, as far as it is read at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejob import jsontext
from sidejob.jsontext import JSON, Raw

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ['a"]', "\\", "{", "],", "\u2028"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
INDENTS = st.sampled_from([None, 1])
THOROUGH = settings(max_examples=300, deadline=None)


def whole(value: JSON) -> object:
    """The value with its raw parts read."""
    if isinstance(value, Raw):
        return json.loads(value.text)
    return {name: whole(item) for name, item in value.items()} if isinstance(value, dict) else value


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@THOROUGH
@given(VALUES, st.booleans(), INDENTS)
def test_what_is_read_and_written_again_is_the_same(value: object, escaped: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    assert whole(jsontext.read(text)) == value
    written = jsontext.dumps(jsontext.read(text))
    assert json.loads(written) == value
    assert b"\n" not in written


@THOROUGH
@given(st.lists(VALUES, max_size=4), st.booleans(), INDENTS)
def test_of_a_list_that_was_cut_off_the_whole_items_are_read(
    value: list[object], escaped: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    assert [json.loads(item) for item in jsontext.read_list(text)] == value
    for end in range(1, len(text)):
        found = [json.loads(item) for item in jsontext.read_list(text[:end], cut=True)]
        assert found == value[: len(found)]
        with pytest.raises(ValueError):  # noqa: PT011  cut off anywhere
            jsontext.read_list(text[:end])


@pytest.mark.parametrize(
    "written", ["1.10", "1e400", "9007199254740993", "9" * 5000, "-0", "0.1234567890123456789"]
)
def test_a_number_keeps_its_digits(written: str) -> None:
    text = f'{{"n":{written},"m":[{written}]}}'.encode()
    assert jsontext.dumps(jsontext.read(text)) == text


def test_depth_is_nothing_to_it() -> None:
    text = b'[{"id":1,"payload":{"a":%s}},{"id":2,"payload":{}}]' % nested(100_000)
    first, second = jsontext.read_list(text)
    assert jsontext.read_members(first)["id"] == 1
    assert second == b'{"id":2,"payload":{}}'
    assert jsontext.dumps([jsontext.read(first), Raw(second)]) == text


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"<html><body>Bad gateway</body></html>", b"[", b"{", b'{"a":1', b'{"a"}', b'{"a":}',
        b"[1,]",
        b"[,1]", b"[1 2]", b"[1]]", b'{"a":1}{', b"nul", b"NaN", b"01", b"1.", b'"a', b"\xff", b'["\xe9"]',
        "[]".encode("utf-16"), b"[}", b'{"a":1]', b'{"a":"\\x"}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_not_read(text: bytes) -> None:
    for reading in (jsontext.read_members, jsontext.read_list):
        with pytest.raises(ValueError):  # noqa: PT011  in any way
            reading(text)


def test_an_object_is_no_list_and_a_list_no_object() -> None:
    with pytest.raises(ValueError, match="no list"):
        jsontext.read_list(b'{"a":1}')
    with pytest.raises(ValueError, match="no object"):
        jsontext.read_members(b"[]")
