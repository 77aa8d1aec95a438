"""Files as the API tells of them: pages, layers, their sizes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Layer:
    id: str
    name: str
    width: float = 100.0
    height: float = 80.0
    type: str = "FRAME"
    visible: bool = True
    opacity: float = 1.0
    draws: bool = True  # False: an empty group, which has no picture
    children: list["Layer"] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)  # fills, effects, style, …
    picture_size: tuple[int, int] | None = None  # of its pictures, whatever the bounds say

    def as_json(self, depth: int | None) -> dict[str, Any]:
        document: dict[str, Any] = {"id": self.id, "name": self.name, "type": self.type, **self.more}
        if self.type != "CANVAS":
            box = {"x": 0.0, "y": 0.0, "width": self.width, "height": self.height}
            document |= {"absoluteBoundingBox": box, "absoluteRenderBounds": box if self.draws else None}
        if not self.visible:
            document["visible"] = False
        if self.opacity != 1:
            document["opacity"] = self.opacity
        if depth is None or depth > 0:
            below = None if depth is None else depth - 1
            document["children"] = [child.as_json(below) for child in self.children]
        return document

    def walk(self) -> Iterator["Layer"]:
        waiting = [self]
        while waiting:
            layer = waiting.pop()
            yield layer
            waiting.extend(reversed(layer.children))


@dataclass
class Document:
    key: str
    name: str
    pages: list[Layer]
    version: str = "1000001"
    editor: str = "figma"
    branch_of: str | None = None
    fills: dict[str, bytes] = field(default_factory=dict)  # imageRef → the picture as it was uploaded
    comments: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, Any] | None = None  # None: the plan has none
    styles: dict[str, dict[str, str]] = field(default_factory=dict)
    published: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    earlier: set[str] = field(default_factory=set)  # versions that may be asked for

    def __post_init__(self) -> None:
        self.layers = {layer.id: layer for page in self.pages for layer in page.walk()}

    def touch(self) -> None:
        """Somebody edited the file."""
        self.earlier.add(self.version)
        self.version = str(int(self.version) + 1)

    def head(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": "viewer",
            "lastModified": "2026-11-01T10:00:00Z",
            "editorType": self.editor,
            "version": self.version,
        }

    def as_json(self, depth: int | None) -> dict[str, Any]:
        below = None if depth is None else depth - 1
        pages = [page.as_json(below) for page in self.pages]
        root = {"id": "0:0", "name": "Document", "type": "DOCUMENT", "children": pages}
        tables = {"components": {}, "componentSets": {}, "styles": self.styles, "schemaVersion": 0}
        return {**self.head(), "document": root, **tables}


def page(name: str, *layers: Layer, page_id: str = "0:1") -> Layer:
    return Layer(page_id, name, type="CANVAS", children=list(layers))


def proven_case() -> Document:
    """The file of the owner's export, with the nodes that it asked for."""
    return Document(
        "u9VG9NhC6C8hVJYx8o9rpS",
        "Landing page",
        [
            page(
                "Web",
                Layer("1:2", "Hero", 640, 360),
                Layer("1:4", "Pricing", 480, 320),
                Layer("1:8", "Footer", 640, 120),
            )
        ],
    )


def many_icons(key: str, count: int) -> Document:
    icons = [Layer(f"10:{number}", f"icon-{number:04}", 24, 24, "COMPONENT") for number in range(count)]
    return Document(key, "Icons", [page("Icons", *icons)])
