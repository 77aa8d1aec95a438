"""What is wrong with the JSON of a request, and where: found before anything of it is used.

Each fault names its place: the field's path, as `payload.items.3.url`, and the byte at which it stands.
"""

import json
import re
from itertools import accumulate
from typing import NoReturn

from sidejob.errors import Refused
from sidejob.jsontext import JSON

MAX_NESTING = 100  # levels of objects and lists in one field; the database takes as many
MAX_DIGITS = 400  # of a number, with the zeros that its exponent stands for; the database takes as many
LARGEST = "1.8e308"  # what a float can hold: most who read a payload have nothing larger
FREE = frozenset({"payload", "result", "error", "metrics"})  # fields that hold whatever their sender likes
PATH_LENGTH = 200  # characters of a path that are told

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS = re.compile(_STRING.encode(), re.DOTALL)
_TOKEN = re.compile(rf'\s*+({_STRING}|[\[\]{{}},:"]|[^\s"\[\]{{}},:]++)', re.DOTALL)
_NUMBER = re.compile(r"-?([0-9]++)(?:\.([0-9]++))?(?:[eE]([+-]?[0-9]++))?")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_HIGH, _LOW = range(0xD800, 0xDC00), range(0xDC00, 0xE000)

# Looked for first, since that costs next to nothing: a body with none of these has no such fault.
_ODD_VALUES = re.compile(rb"N|I|[0-9.]{300}|[eE][+-]?0*[0-9]{3}")
_ODD_TEXTS = re.compile(
    rb"\\u0000|\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
_NO_BRACKETS = bytes(mark for mark in range(256) if mark not in b"[]{}")


def check(body: bytes) -> None:
    """Raises Refused: 400 for what is no JSON, or none that can be passed on, 422 for a wrong value."""
    text = _decoded(body)
    values = _STRINGS.sub(b"", body)
    if _depth(values) > MAX_NESTING + 1 or _ODD_VALUES.search(values) or _ODD_TEXTS.search(body):
        _Scan(text).run()
    try:
        json.loads(text, object_pairs_hook=_members, parse_int=str, parse_float=str)
    except _Twice:
        _Scan(text).run()
    except json.JSONDecodeError as error:
        path = _Scan(text).run(error.pos)
        reason = error.msg[:1].lower() + error.msg[1:]
        _refuse_json(f"The body is not valid JSON: {reason}", path, _bytes_before(text, error.pos))


class _Twice(Exception):
    """A name stands twice in an object."""


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


def _decoded(body: bytes) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        _refuse_json("The body begins with a byte order mark (EF BB BF): send UTF-8 without one", "", 0)
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:4]:
        _refuse_json("The body is UTF-16 or UTF-32: send UTF-8", "", 0)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        text = body[: error.start].decode()
        half = body[error.start : error.start + 2]
        what = "half an emoji" if half[:1] == b"\xed" and half[1:] >= b"\xa0" else "a byte that is not UTF-8"
        _refuse_json(f"The body is not valid JSON: it has {what}", _Scan(text).run(len(text)), error.start)


def _depth(values: bytes) -> int:
    if values.count(b"[") + values.count(b"{") <= MAX_NESTING:
        return 0
    brackets = values.translate(None, _NO_BRACKETS)
    return max(accumulate(1 if mark in b"[{" else -1 for mark in brackets), default=0)


def _bytes_before(text: str, place: int) -> int:
    return len(text[:place].encode())


def _refuse_json(sentence: str, path: str, place: int) -> NoReturn:
    within = f", in `{path}`" if path else ""
    details: JSON = {"field": path, "byte": place} if path else {"byte": place}
    raise Refused("invalid_json", f"{sentence}, at byte {place}{within}.", details=details)


class _Level:
    """An object, or a list, that is open."""

    def __init__(self, *, is_object: bool) -> None:
        self.is_object = is_object
        self.at: str | int | None = None if is_object else 0  # its present member's name, or item's place
        self.names: set[str] = set()
        self.named = False  # the name of the member has been read


class _Scan:
    """Goes through the whole text, one token after the other, and knows at each where it is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._levels: list[_Level] = []

    def run(self, until: int | None = None) -> str:
        """The path at `until`. Without it, raises Refused for the first fault, if there is one."""
        for match in _TOKEN.finditer(self._text):
            token, place = match[1], match.start(1)
            if until is not None and place >= until:
                break
            level = self._levels[-1] if self._levels else None
            match token[0]:
                case "{" | "[":
                    if until is None and len(self._levels) > MAX_NESTING:
                        self._refuse_depth(place)
                    self._levels.append(_Level(is_object=token[0] == "{"))
                case "}" | "]":
                    self._levels = self._levels[:-1]
                case ",":
                    if level and isinstance(level.at, int):
                        level.at += 1
                    elif level:
                        level.at, level.named = None, False
                case ":":
                    pass
                case '"':
                    if until is None:
                        self._check_text(token, place)
                    if level and level.is_object and not level.named and len(token) > 1:
                        self._name(level, token, place, checked=until is None)
                case _:
                    if until is None:
                        self._check_value(token, place)
        return self._path()

    def _path(self) -> str:
        names = [str(level.at) for level in self._levels if level.at is not None]
        path = ".".join(name if name.isprintable() else json.dumps(name)[1:-1] for name in names)
        return path if len(path) <= PATH_LENGTH else f"{path[:PATH_LENGTH]}…"

    def _name(self, level: _Level, token: str, place: int, *, checked: bool) -> None:
        try:
            name = str(json.loads(token, strict=False))
        except ValueError:  # an escape that is none: the parser words it
            name = token[1:-1]
        level.at, level.named = name, True
        if checked and name in level.names:
            self._refuse("stands twice", place)
        level.names.add(name)

    def _check_text(self, token: str, place: int) -> None:
        escapes = list(_ESCAPE.finditer(token))
        for number, match in enumerate(escapes):
            code = int(match[1], 16) if match[1] else 0x20
            if code == 0:
                self._refuse("must not contain the character NUL (\\u0000)", place + match.start())
            before, after = number - 1, number + 1
            if code in _HIGH:
                paired = after < len(escapes) and escapes[after].start() == match.end()
                other = escapes[after][1] if paired else None
                paired = other is not None and int(other, 16) in _LOW
            elif code in _LOW:
                paired = number > 0 and escapes[before].end() == match.start()
                other = escapes[before][1] if paired else None
                paired = other is not None and int(other, 16) in _HIGH
            else:
                continue
            if not paired:
                sentence = f"The body has half an emoji: {match[0]} without its other half"
                _refuse_json(sentence, self._path(), _bytes_before(self._text, place + match.start()))

    def _check_value(self, token: str, place: int) -> None:
        if token in ("NaN", "Infinity", "-Infinity"):
            self._refuse(f"must not be {token}, which is no JSON", place)
        number = _NUMBER.fullmatch(token)
        if number is None:
            return  # the parser words it
        whole, fraction, exponent = number[1].lstrip("0"), number[2] or "", number[3] or "0"
        power = max(-9999, min(9999, int(exponent[:20])))
        if whole or fraction.strip("0"):
            digits = max(len(whole) + power, 1) + max(len(fraction) - power, 0)
        else:
            digits = len(whole) + len(fraction)
        if max(digits, len(number[1]) + len(fraction)) > MAX_DIGITS:
            self._refuse(f"may have {MAX_DIGITS} digits at most", place)
        if float(token) in (float("inf"), float("-inf")):
            self._refuse(f"must not be beyond {LARGEST}", place)

    def _refuse_depth(self, place: int) -> NoReturn:
        sentence = f"The body is nested deeper than {MAX_NESTING} levels"
        _refuse_json(sentence, self._path(), _bytes_before(self._text, place))

    def _refuse(self, message: str, place: int) -> NoReturn:
        path, at = self._path(), _bytes_before(self._text, place)
        fault: JSON = {"field": path, "message": message, "byte": at}
        first = path.partition(".")[0]
        named = first if first in FREE else path
        within = f", in `{path}`" if named != path else ""
        subject = f"`{named}`:" if path else "The body"
        raise Refused("invalid_body", f"{subject} {message}, at byte {at}{within}.", details=[fault])
