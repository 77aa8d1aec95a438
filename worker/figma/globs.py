"""Globs over names of pages, layers and modes."""

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache


def matches(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs fits the whole name. `*` and `?` alone are special."""
    return any(_pattern(glob).match(name) for glob in globs)


@lru_cache(maxsize=1000)
def _pattern(glob: str) -> re.Pattern[str]:
    """By fnmatch, whose patterns never go back over a star: a hostile glob takes no longer than another."""
    return re.compile(translate(glob.replace("[", "[[]")))
