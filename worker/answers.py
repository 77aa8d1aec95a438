"""Reads what the project answers. A payload in it is anybody's, and a proxy may have answered in its place.

JSON is taken apart by a scanner that neither recurses nor builds values, so that an entry that cannot be read
spoils no other. Only what is needed is decoded, each entry by itself, within the two bounds below.
"""

import json
import re
from typing import Any

MAX_DEPTH = 500  # arrays and objects within each other; Python's own decoder ends below 1,000
MAX_DIGITS = 4_000  # of a whole number; Python reads none of more than 4,300

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(")?|[\[\]{},:]', re.DOTALL)
_SPACE = " \t\r\n"


class Unreadable(Exception):
    """This text is no JSON, or more than is read; the sentence says which, and has no subject."""


def split(text: str) -> list[tuple[str, str]]:
    """The entries of the outermost array or object, each as (name, text); the name is empty in an array, and
    JSON text in an object. Of a text that ends too early, the last entry is the torn one. Raises Unreadable
    where there is no array or object, or nothing of it."""
    text = text.strip(_SPACE)
    if text[:1] not in ("[", "{"):
        raise Unreadable("is neither an array nor an object")
    found: list[tuple[str, str]] = []
    depth, begin, colon, end = 0, 1, 0, len(text)
    for token in _TOKEN.finditer(text):
        at = token.start()
        char = text[at]
        if char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
            if depth == 0:
                end = at
                break
        elif depth == 1 and char == ",":
            found.append(_entry(text, begin, colon, at))
            begin, colon = at + 1, 0
        elif depth == 1 and char == ":" and text[0] == "{" and not colon:
            colon = at
    last = _entry(text, begin, colon, end)
    if found or any(last):
        return [*found, last]
    if end == len(text):
        raise Unreadable("ends too early")
    return []


def _entry(text: str, begin: int, colon: int, end: int) -> tuple[str, str]:
    if not colon:
        return "", text[begin:end].strip(_SPACE)
    return text[begin:colon].strip(_SPACE), text[colon + 1 : end].strip(_SPACE)


def members(text: str) -> dict[str, str]:
    """The members of an object, their values as text. Raises Unreadable."""
    if not text.startswith("{"):
        raise Unreadable("is no object")
    found = {}
    for name, value in split(text):
        key = decode(name)
        if not isinstance(key, str):
            raise Unreadable("has a member without a name")
        found[key] = value
    return found


def decode(text: str) -> Any:
    """The value. Raises Unreadable; takes time in proportion to the text."""
    if (depth := _depth(text)) > MAX_DEPTH:
        raise Unreadable(f"is nested {depth} deep; {MAX_DEPTH} can be read")
    try:
        return json.loads(text, parse_int=_whole, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable("is no JSON") from error


def _depth(text: str) -> int:
    deepest = depth = 0
    for token in _TOKEN.finditer(text):
        char = text[token.start()]
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise Unreadable(f"has a number of {len(digits)} digits; {MAX_DIGITS} can be read")
    return int(digits)


def _refuse(constant: str) -> float:
    raise ValueError(constant)
