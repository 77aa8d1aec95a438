"""Makes what handlers say fit to be sent: for JSON, for Postgres, and within the database's bounds.

A page, a design or a bug may put anything into a result: NUL, half a surrogate pair, NaN, a number of a
thousand digits, an object that JSON does not know, itself. The database would refuse the whole report for it,
and the job would end as if its worker had died.
"""

import json
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any

MAX_DEPTH = 64  # arrays and objects within each other
MAX_DIGITS = 350  # of a whole number; the largest float has 309

# Bytes of the value as Postgres writes it (supabase/migrations/…_create_domains.sql).
MAX_RESULT_BYTES = 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_PROGRESS_BYTES = 16 * 1024
MAX_CHECKPOINT_BYTES = 256 * 1024
MAX_METRICS_BYTES = 16 * 1024

TOO_DEEP = "[nested too deep]"
TOO_MANY_DIGITS = "[number with too many digits]"
UNREADABLE = "[unreadable]"

_MAX_NAMED = 20  # names of details that were left out


class TooLarge(Exception):
    """A value is larger than it may be."""


def clean_text(text: object, longest: int | None = None) -> str:
    """The text without what JSON in Postgres cannot hold: NUL, and halves of surrogate pairs. `longest`: in
    characters; what is longer ends in an ellipsis."""
    try:
        plain = str.__str__(text) if isinstance(text, str) else str(text)
    except Exception:  # noqa: BLE001  somebody's own __str__
        return UNREADABLE
    plain = utf8(plain.replace("\0", "")).decode()
    return plain if longest is None or len(plain) <= longest else plain[: longest - 1] + "…"


def utf8(text: str) -> bytes:
    """A file's bytes: halves of surrogate pairs, which no encoding has, become question marks."""
    return text.encode("utf-8", "replace")


def clean(value: Any, max_bytes: int) -> Any:
    """The value as JSON that can be stored. What cannot is replaced by a note, NaN and infinities by null.
    Raises TooLarge when more than `max_bytes` would be left."""
    return _Cleaning(max_bytes).walk(value, 0)


def clean_error(code: object, message: object, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An error as a report carries it. Details that do not fit are left out, and `leftOut` names them."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    room = MAX_ERROR_BYTES - 24 * 1024  # code, message and the names of what is left out
    for name, value in (details or {}).items():
        cleaning = _Cleaning(room)
        try:
            kept |= cleaning.walk({name: value}, 0)
            room = cleaning.room
        except TooLarge:
            left_out.append(clean_text(name, 100))
    if left_out:
        kept["leftOut"] = left_out[:_MAX_NAMED]
    return {**kept, "code": clean_text(code, 100) or "failed", "message": clean_text(message, 4000)}


def clean_progress(progress: Any) -> Any:
    """What is too large is replaced by a note that says so."""
    try:
        return clean(progress, MAX_PROGRESS_BYTES)
    except TooLarge:
        return {"note": f"The progress has more than {MAX_PROGRESS_BYTES // 1024} KiB and is not shown."}


class _Cleaning:
    """One value on its way. `room`: the bytes that are left."""

    def __init__(self, room: int) -> None:
        self.room = room

    def _spend(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise TooLarge

    def walk(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            self._spend(5)
            return value
        if isinstance(value, int | float):
            return self._number(value)
        if isinstance(value, Mapping | list | tuple | AbstractSet):
            if depth >= MAX_DEPTH:
                return self._text(TOO_DEEP)
            self._spend(2)
            if isinstance(value, Mapping):
                return self._mapping(value, depth + 1)
            return [self._entry(entry, depth + 1) for entry in value]
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(f"[{len(value)} bytes]")
        return self._text(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        number = 1  # cleaning may make names alike: counted on, so that many of them cost no more than others
        for name, entry in value.items():
            key = self._text(name)
            while key in found:
                number += 1
                key = f"{key}-{number}"
                self._spend(len(key) + 2)
            found[key] = self._entry(entry, depth)
            self._spend(2)
        return found

    def _entry(self, value: Any, depth: int) -> Any:
        self._spend(2)
        return self.walk(value, depth)

    def _text(self, value: object) -> str:
        text = clean_text(value)
        self._spend(len(text))  # before more is done about a long one
        self._spend(len(json.dumps(text, ensure_ascii=False).encode()) - len(text))
        return text

    def _number(self, value: float) -> Any:
        if isinstance(value, int):
            if value.bit_length() > MAX_DIGITS * 3.32:
                return self._text(TOO_MANY_DIGITS)
            value = int(value)
            self._spend(len(str(value)))
            return value
        value = float(value)
        if not math.isfinite(value):
            self._spend(5)
            return None
        self._spend(len(f"{Decimal(repr(value)):f}"))  # Postgres writes 1e300 with all its digits
        return value
