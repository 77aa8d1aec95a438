"""What of a page may stand in a result: short, storable, without passwords."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from worker.storable import clean_text

_MOST = 20  # entries of a list
_LONGEST = 500  # characters of each


class FirstFew:
    """The first few entries, and how many there were."""

    def __init__(self) -> None:
        self.total = 0
        self._items: list[dict[str, Any]] = []

    def add(self, item: dict[str, Any]) -> None:
        self.total += 1
        if len(self._items) < _MOST:
            self._items.append(item)

    def as_json(self) -> dict[str, Any]:
        return {"total": self.total, "items": self._items}


def storable(text: str) -> str:
    """Without what JSON in Postgres cannot hold: NUL and halves of surrogate pairs."""
    return clean_text(text)


def short(text: str) -> str:
    return storable(text)[:_LONGEST]


def shown_url(url: str) -> str:
    """Without user and password, and not longer than anybody reads."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return short(url)
    return short(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
