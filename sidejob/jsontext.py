"""JSON that is passed on as it was written: read only as far as a function has to know it, and never changed.

A payload may be nested deeper than Python's parser can follow, or hold a number of more digits than Python
reads, and a float would lose digits of one of 25. So an object is read to the depth of its members: texts,
truth values and small whole numbers become Python's, everything else stays `Raw`, the bytes as they came.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Raw:
    """A JSON value as it was written, in UTF-8."""

    text: bytes


JSON = None | bool | int | float | str | Raw | list["JSON"] | dict[str, "JSON"]

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _nested(levels: int) -> bytes:
    """The pattern of a list or an object with so many levels of others in it."""
    inner = b"|" + _nested(levels - 1) if levels else b""
    content = rb'(?:[^"\[\]{}]++|' + _STRING + inner + b")*+"
    return rb"(?:\[" + content + rb"\]|\{" + content + rb"\})"


# A key with its colon; a text or a word; where neither matches, a bracket has to stand.
_KEY = re.compile(rb"\s*+(" + _STRING + rb")\s*+:", re.DOTALL)
_SCALAR = re.compile(rb"\s*+(?:(" + _STRING + rb')|([^\s"\[\]{},:]++))', re.DOTALL)
# With two levels below it, as most rows are: one look finds its end, ten times faster than one a bracket.
_SHALLOW = re.compile(rb"\s*+" + _nested(2), re.DOTALL)
_BRACKETS = re.compile(_STRING + rb'|[\[\]{}"]', re.DOTALL)
_MARK = re.compile(rb"\s*+([\[\]{},])")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_WORDS: Mapping[bytes, bool | None] = {b"true": True, b"false": False, b"null": None}
_SMALL = 18  # digits of a whole number that is read; any other number stays as it is written
_BLANK = b" \t\r\n"


class Unfinished(ValueError):
    """The text ends before the value does."""


def read(content: bytes) -> JSON:
    """A document: an object as its members, anything else as itself.

    Raises ValueError where it is no JSON as far as it is read, or no UTF-8.
    """
    str(content, "utf-8")
    opening = _MARK.match(content)
    value, end = _members(content, opening.end()) if opening and opening[1] == b"{" else _value(content, 0)
    _check_end(content, end)
    return value


def read_members(content: bytes) -> dict[str, JSON]:
    """An object's members. Raises ValueError where it is none."""
    found = read(content)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def read_list(content: bytes, *, cut: bool = False) -> list[bytes]:
    """The items of a list, each as it is written. cut: the end may be missing; an item that is not whole is
    left out.

    Raises ValueError where it is no list, or no UTF-8.
    """
    try:
        str(content, "utf-8")
    except UnicodeDecodeError as error:
        if not cut or error.reason != "unexpected end of data":
            raise
    opening = _MARK.match(content)
    if opening is None or opening[1] != b"[":
        raise ValueError("no list")
    items: list[bytes] = []
    place = opening.end()
    first = _MARK.match(content, place)
    if first and first[1] == b"]":
        _check_end(content, first.end())
        return items
    while True:
        start = place
        try:
            place = _end_of_value(content, place)
        except Unfinished:
            if cut:
                return items
            raise
        after = _MARK.match(content, place)
        if after is None and cut and not content[place:].strip(_BLANK):
            return items  # a number may go on
        if after is None or after[1] not in b",]":
            raise ValueError("no comma after an item")
        items.append(content[start:place].strip(_BLANK))
        place = after.end()
        if after[1] == b"]":
            _check_end(content, place)
            return items


def dumps(value: object) -> bytes:
    """JSON, of UTF-8, in one line. Raises TypeError for what JSON does not know, ValueError for NaN."""
    match value:
        case Raw():
            # Between values a line break means nothing; inside of a text it cannot stand.
            return value.text.translate(_ONE_LINE)
        case dict():
            members = [_written(key) + b":" + dumps(item) for key, item in value.items()]
            return b"{" + b",".join(members) + b"}"
        case list():
            return b"[" + b",".join(map(dumps, value)) + b"]"
    return _written(value)


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def _written(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _check_end(content: bytes, place: int) -> None:
    if content[place:].strip(_BLANK):
        raise ValueError("something follows the end")


def _end_of_value(content: bytes, place: int) -> int:
    whole = _SHALLOW.match(content, place) or _SCALAR.match(content, place)
    if whole:
        return whole.end()
    opening = _MARK.match(content, place)
    if opening is None:
        raise Unfinished("a value is missing, or a text has no end")
    if opening[1] not in b"[{":
        raise ValueError("a value is missing")
    depth = 0
    for match in _BRACKETS.finditer(content, place):
        mark = match[0]
        if mark in (b"[", b"{"):
            depth += 1
        elif mark in (b"]", b"}"):
            depth -= 1
            if not depth:
                return match.end()
        elif mark == b'"':
            break
    raise Unfinished("a bracket is not closed, or a text")


def _members(content: bytes, place: int) -> tuple[dict[str, JSON], int]:
    """The members of the object whose bracket has just been read, and where the text goes on after it."""
    found: dict[str, JSON] = {}
    empty = _MARK.match(content, place)
    if empty and empty[1] == b"}":
        return found, empty.end()
    while True:
        key = _KEY.match(content, place)
        if key is None:
            raise ValueError("a name is missing")
        found[_text(key[1])], place = _value(content, key.end())
        after = _MARK.match(content, place)
        if after is None or after[1] not in b",}":
            raise ValueError("no comma after a member")
        place = after.end()
        if after[1] == b"}":
            return found, place


def _value(content: bytes, place: int) -> tuple[JSON, int]:
    scalar = _SCALAR.match(content, place)
    if scalar is None:
        end = _end_of_value(content, place)
        return Raw(content[place:end].strip(_BLANK)), end
    text, word = scalar.groups()
    if text is not None:
        return _text(text), scalar.end()
    if word in _WORDS:
        return _WORDS[word], scalar.end()
    if not _NUMBER.fullmatch(word):
        raise ValueError("neither a number nor a word of JSON")
    small = len(word) <= _SMALL and word.lstrip(b"-").isdigit() and word != b"-0"
    return int(word) if small else Raw(word), scalar.end()


def _text(written: bytes) -> str:
    if b"\\" not in written:
        return written[1:-1].decode()
    found: str = json.loads(written)
    return found
