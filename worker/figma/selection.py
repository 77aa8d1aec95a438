"""Which nodes a job is about: by id, or by globs over pages, names, types and components."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.figma.client import Api, Params, nobody_there
from worker.figma.faults import Fault, TooLarge
from worker.figma.options import MOST_NODES, ExportOptions, Select, matches

_IDS_A_REQUEST = 400  # above some 900 Figma answers 413 (pinterest/figma-calculations #42)
_LOOK_DEPTH = 4  # Page/Section/Frame/Component: deeper nodes are asked for by id


@dataclass(frozen=True, slots=True)
class Node:
    """A layer. Sizes are in Figma's units, a pixel at scale 1; None where Figma gave none."""

    id: str
    name: str
    type: str
    page: str | None = None
    path: str | None = None  # Page/Frame/Name, when the way to it is known
    hidden: bool = False  # or wholly transparent: it has no picture
    box: tuple[float, float] | None = None
    ink: tuple[float, float] | None = None  # what is drawn, shadows too

    def pixels(self, scale: float) -> float:
        width, height = self.ink or self.box or (100.0, 100.0)
        return width * scale * height * scale


@dataclass(frozen=True, slots=True)
class Selection:
    nodes: tuple[Node, ...]
    missing: tuple[str, ...]  # ids that the file does not have


async def choose(api: Api, key: str, options: ExportOptions, params: Params) -> Selection:
    """Raises Fault: `invalid_payload` where the choice is larger than a job may be, and Api's."""
    if options.select is None:
        return await by_id(api, key, options.wanted, params)
    nodes = await _by_globs(api, key, options.select, params)
    if len(nodes) * len(options.kinds) > MOST_NODES:
        raise Fault(
            "invalid_payload",
            f"payload.select: matches {len(nodes)} nodes; a job makes {MOST_NODES} pictures at most.",
            field="payload.select",
            matched=len(nodes),
        )
    return Selection(tuple(nodes), ())


async def by_id(api: Api, key: str, ids: Sequence[str], params: Params) -> Selection:
    """A server that cannot tell of nodes may still draw them."""
    found: dict[str, Any] = {}
    try:
        for at in range(0, len(ids), _IDS_A_REQUEST):
            found |= await api.nodes(key, ids[at : at + _IDS_A_REQUEST], {**params, "depth": 1})
    except Fault as fault:
        if not nobody_there(fault):
            raise
        return Selection(tuple(Node(node, "", "") for node in ids), ())
    documents = {node: _document(found.get(node)) for node in ids}
    return Selection(
        tuple(_node(document) for document in documents.values() if document is not None),
        tuple(node for node, document in documents.items() if document is None),
    )


async def _by_globs(api: Api, key: str, select: Select, params: Params) -> list[Node]:
    file = await api.file(key, {**params, "depth": 1})
    pages = [page for page in (file.get("document") or {}).get("children") or () if _is_layer(page)]
    chosen = [page for page in pages if not select.pages or matches(str(page.get("name", "")), select.pages)]
    published = None
    if select.published_only:
        items = await api.published(key, "components") + await api.published(key, "component_sets")
        published = {str(item.get("node_id")) for item in items}
    nodes: dict[str, Node] = {}
    for page in chosen:
        document = await _page(api, key, str(page["id"]), params, deep=bool(select.components))
        for node in _walk(document, str(page.get("name", ""))):
            if _fits(node, select) and (published is None or node.id in published):
                nodes.setdefault(node.id, node)
    return list(nodes.values())


async def _page(api: Api, key: str, page_id: str, params: Params, *, deep: bool) -> Mapping[str, Any]:
    """The page's document, as deep as Figma lets us look."""
    depths = [None, _LOOK_DEPTH, 2, 1] if deep else [_LOOK_DEPTH, 2, 1]
    for depth in depths:
        try:
            more = {} if depth is None else {"depth": depth}
            return _document((await api.nodes(key, [page_id], {**params, **more})).get(page_id)) or {}
        except TooLarge:
            if depth == depths[-1]:
                raise
    return {}


def _walk(document: Mapping[str, Any], page: str) -> Iterator[Node]:
    """The layers below, as they stand in the file; iterative, since files nest deeply."""
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


def _fits(node: Node, select: Select) -> bool:
    if select.components and not (
        node.type in ("COMPONENT", "COMPONENT_SET") and matches(node.name, select.components)
    ):
        return False
    if not select.components and select.types and node.type not in select.types:
        return False
    if not select.names:
        # Without a name, what lies on the page itself: not every instance within.
        return bool(select.components) or (node.path or "").count("/") == 1 + (node.page or "").count("/")
    return matches(node.name, select.names) or matches(node.path or "", select.names)


def _document(entry: Any) -> dict[str, Any] | None:
    document = entry.get("document") if isinstance(entry, dict) else None
    return document if isinstance(document, dict) else None


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


def _size(box: Any) -> tuple[float, float] | None:
    if not isinstance(box, dict):
        return None
    width, height = box.get("width"), box.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        return None
    return (float(width), float(height)) if width > 0 and height > 0 else None
