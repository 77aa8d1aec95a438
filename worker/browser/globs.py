"""Globs over the addresses that a page asks for, in a time that grows with both lengths alone.

An address may have megabytes, and a glob a thousand characters. For short ones Python's own patterns are the
fastest: fnmatch makes such as never go back over a star. They still try each place with the whole of what is
between two stars, so for long ones all places are tried at once: bit n of a number says that n parts of the
glob fit so far (the "shift-and" of Baeza-Yates and Gonnet).
"""

import fnmatch
import re
from collections.abc import Iterator, Sequence

MOST_CHARACTERS = 8192  # of an address; what follows is not compared
_MOST_STEPS = 65_536  # that a pattern may take at worst


class Globs:
    """As fnmatch has them: `*` stands for anything, slashes too, `?` for one character, `[a-z]` for one of
    several, `[!a-z]` for any other."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._globs = [_Glob(glob) for glob in globs]

    def __bool__(self) -> bool:
        return bool(self._globs)

    def match(self, address: str) -> bool:
        """Whether one of them fits the whole address, or its first MOST_CHARACTERS."""
        text = address[:MOST_CHARACTERS]
        return any(glob.matches(text) for glob in self._globs)


class _Glob:
    def __init__(self, glob: str) -> None:
        self._length = len(glob)
        self._pattern = re.compile(fnmatch.translate(glob))
        self._parts: list[re.Pattern[str] | str] = []  # each fits one character; a string fits itself
        self._stays = 0  # bit n: a star stands before part n
        for part in _split(glob):
            if part == "*":
                self._stays |= 1 << len(self._parts)
            else:
                self._parts.append(
                    part if len(part) == 1 and part != "?" else re.compile(fnmatch.translate(part))
                )
        self._fitting: dict[str, int] = {}  # by character, bit n: it fits part n

    def matches(self, text: str) -> bool:
        if len(text) * self._length <= _MOST_STEPS:
            return self._pattern.match(text) is not None
        places = 1
        for character in text:
            fitting = self._fitting.get(character)
            if fitting is None:
                fitting = self._fitting[character] = self._fits(character)
            places = ((places & fitting) << 1) | (places & self._stays)
            if not places:
                return False
        return bool(places >> len(self._parts))

    def _fits(self, character: str) -> int:
        fits = 0
        for number, part in enumerate(self._parts):
            if part == character or (isinstance(part, re.Pattern) and part.match(character)):
                fits |= 1 << number
        return fits


def _split(glob: str) -> Iterator[str]:
    """Single characters, and sets in their brackets."""
    at = 0
    while at < len(glob):
        end = at + 1
        if glob[at] == "[":
            # A bracket that closes at once is one of the set; one that is never closed stands for itself.
            first = at + 2 if glob.startswith("!", at + 1) else at + 1
            closing = glob.find("]", first + 1)
            end = closing + 1 if closing >= 0 else end
        yield glob[at:end]
        at = end
