"""Layers, and how they are picked from Figma's answers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from worker.figma.globs import matches
from worker.figma.picks import word

Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Node:
    """A layer. Sizes are in Figma's units, a pixel at scale 1; None where Figma gave none."""

    id: str
    name: str
    type: str
    page: str | None = None
    path: str | None = None  # Page/Frame/Name, when the way to it is known
    hidden: bool = False  # or wholly transparent: it has no picture
    box: Size | None = None
    ink: Size | None = None  # what is drawn, shadows too

    def pixels(self, scale: float) -> float:
        width, height = self.ink or self.box or (100.0, 100.0)
        return width * scale * height * scale

    @classmethod
    def read(cls, row: Sequence[Any]) -> "Node":
        """From a row that was picked."""
        node, name, kind, page, path, hidden, box, ink = row
        return cls(
            node, name, kind, page, path, hidden, tuple(box) if box else None, tuple(ink) if ink else None
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Globs and types of layers; an empty list matches all."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    components: tuple[str, ...]
    published: frozenset[str] | None = None  # ids

    def fits(self, node: Node) -> bool:
        if self.published is not None and node.id not in self.published:
            return False
        if self.components and not (
            node.type in ("COMPONENT", "COMPONENT_SET") and matches(node.name, self.components)
        ):
            return False
        if not self.components and self.types and node.type not in self.types:
            return False
        if not self.names:
            # Without a name, what lies on the page itself: not every instance within.
            on_page = (node.path or "").count("/") == 1 + (node.page or "").count("/")
            return bool(self.components) or on_page
        return matches(node.name, self.names) or matches(node.path or "", self.names)


def pick_node(entry: Mapping[str, Any]) -> list[Any] | None:
    document = entry.get("document")
    return _row(_node(document)) if isinstance(document, dict) else None


def pick_layers(entry: Mapping[str, Any], page: str, wanted: Wanted) -> list[list[Any]]:
    """The layers below a page that are wanted, as they stand in the file."""
    document = entry.get("document")
    layers = _walk(document if isinstance(document, dict) else {}, page)
    return [_row(node) for node in layers if wanted.fits(node)]


def pick_pages(answer: Mapping[str, Any], globs: Sequence[str]) -> list[list[str]]:
    """Ids and names of the pages that fit."""
    pages = [page for page in (answer.get("document") or {}).get("children") or () if _is_layer(page)]
    named = [(str(page["id"]), str(page.get("name", ""))) for page in pages]
    return [[page_id, name] for page_id, name in named if not globs or matches(name, globs)]


def _walk(document: Mapping[str, Any], page: str) -> Iterator[Node]:
    """Iterative, since files nest deeply."""
    waiting = [(child, page, False) for child in reversed(document.get("children") or ())]
    while waiting:
        layer, above, hidden = waiting.pop()
        if not _is_layer(layer):
            continue
        node = _node(layer, page, f"{above}/{layer.get('name', '')}", hidden)
        yield node
        path = node.path or ""
        waiting.extend((child, path, node.hidden) for child in reversed(layer.get("children") or ()))


def _is_layer(value: Any) -> bool:
    return isinstance(value, dict) and "id" in value


def _node(
    document: Mapping[str, Any], page: str | None = None, path: str | None = None, hidden: bool = False
) -> Node:
    return Node(
        id=str(document.get("id", "")),
        name=str(document.get("name", "")),
        type=str(document.get("type", "")),
        page=page,
        path=path,
        hidden=hidden or document.get("visible") is False or document.get("opacity") == 0,
        box=_size(document.get("absoluteBoundingBox")),
        ink=_size(document.get("absoluteRenderBounds")),
    )


def _row(node: Node) -> list[Any]:
    """With names cut to what anybody reads."""
    return [word(value) if isinstance(value, str) else value for value in astuple(node)]


def _size(box: Any) -> Size | None:
    if not isinstance(box, dict):
        return None
    width, height = box.get("width"), box.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        return None
    size = float(width), float(height)
    return size if width > 0 and height > 0 and all(map(math.isfinite, size)) else None
