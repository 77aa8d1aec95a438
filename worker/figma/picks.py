"""Picks from Figma's answers what a job needs of them.

An answer may have tens of megabytes, which take a second to parse and ten times their size in memory. So
large ones are read in a child (worker.computing), and only what was picked comes back. Each pick makes plain
JSON of an answer, and raises what it likes where that is not as Figma's documents have it.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.computing import Rejected

_LONGEST_WORD = 1000  # characters of a name that is passed on
_WRONG = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)

Pick = Callable[..., Any]


def read(body: bytes, pick: Pick, *arguments: Any) -> Any:
    """What is picked from a JSON object. Raises Rejected `no_json`, or `shape`."""
    answer = parse(body)
    if not isinstance(answer, dict):
        raise Rejected("no_json", "answered JSON of another shape")
    with shaping():
        return pick(answer, *arguments)


def parse(body: bytes) -> Any:
    """Raises Rejected `no_json`: for numbers of thousands of digits and endless nesting, too."""
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Rejected("no_json", "answered what is no JSON") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@contextlib.contextmanager
def shaping() -> Iterator[None]:
    """Within it, what is not where Figma's documents have it is Figma's failure."""
    try:
        yield
    except _WRONG as error:
        raise Rejected("shape", "Figma answered JSON of another shape.") from error


def pick_head(answer: Mapping[str, Any]) -> dict[str, str]:
    """What tells a file's state. Some answers wrap it in `file`."""
    inner = answer.get("file", answer)
    return {
        name: word(inner[name]) for name in ("version", "last_touched_at", "lastModified") if inner.get(name)
    }


def pick_images(answer: Mapping[str, Any]) -> dict[str, Any]:
    """`images`: addresses by id, null for what has nothing to show; or `err`: Figma's own words."""
    if answer.get("err"):
        return {"err": word(answer["err"])}
    return {"images": _addresses(answer["images"])}


def pick_fills(answer: Mapping[str, Any]) -> dict[str, str | None]:
    return _addresses(answer["meta"]["images"])


def _addresses(found: Mapping[str, Any]) -> dict[str, str | None]:
    for address in found.values():
        if address is not None and not isinstance(address, str):
            raise TypeError("an address is text")
    return dict(found)


def pick_entries(answer: Mapping[str, Any], pick: Pick, *arguments: Any) -> dict[str, Any]:
    """Of each node of an answer, by id; null for one that does not exist."""
    return {
        node: None if entry is None else pick(entry, *arguments) for node, entry in answer["nodes"].items()
    }


def pick_published(answer: Mapping[str, Any], kind: str) -> list[dict[str, str]]:
    """`node_id`, `name` and `description` of the library's items."""
    items = answer["meta"].get(kind)
    wanted = ("node_id", "name", "description")
    return [
        {name: word(item.get(name) or "") for name in wanted}
        for item in (items if isinstance(items, list) else ())
    ]


def pick_references(entry: Any) -> list[str]:
    """Every `imageRef` of a node, in fills and strokes alike; iterative, since files nest deeply."""
    found: dict[str, None] = {}
    waiting = [entry]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "imageRef" in value:
                found[word(value["imageRef"])] = None
            waiting.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
    return list(found)


def pick_page_ids(path: Path) -> dict[str, Any]:
    """From a saved answer: the ids of a file's pages, and its version."""

    def pick(answer: Mapping[str, Any]) -> dict[str, Any]:
        pages = (answer.get("document") or {}).get("children") or []
        return {"version": word(answer.get("version") or ""), "pages": [str(page["id"]) for page in pages]}

    found: dict[str, Any] = read(path.read_bytes(), pick)
    return found


def word(value: Any) -> str:
    return str(value)[:_LONGEST_WORD]
