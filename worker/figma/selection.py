"""Which nodes a job is about: by id, or by globs over pages, names, types and components."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.figma.client import Api, Params, nobody_there
from worker.figma.faults import Fault, TooLarge
from worker.figma.nodes import Node, Wanted, pick_layers, pick_node, pick_pages
from worker.figma.options import MOST_NODES, ExportOptions, Select

_IDS_A_REQUEST = 400  # above some 900 Figma answers 413 (pinterest/figma-calculations #42)
_LOOK_DEPTH = 4  # Page/Section/Frame/Component: deeper nodes are asked for by id


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
            found |= await api.nodes(key, ids[at : at + _IDS_A_REQUEST], {**params, "depth": 1}, pick_node)
    except Fault as fault:
        if not nobody_there(fault):
            raise
        return Selection(tuple(Node(node, "", "") for node in ids), ())
    rows = {node: found.get(node) for node in ids}
    return Selection(
        tuple(Node.read(row) for row in rows.values() if row is not None),
        tuple(node for node, row in rows.items() if row is None),
    )


async def _by_globs(api: Api, key: str, select: Select, params: Params) -> list[Node]:
    pages = await api.file(key, {**params, "depth": 1}, pick_pages, tuple(select.pages))
    published = None
    if select.published_only:
        items = await api.published(key, "components") + await api.published(key, "component_sets")
        published = frozenset(item["node_id"] for item in items)
    wanted = Wanted(tuple(select.names), tuple(select.types), tuple(select.components), published)
    nodes: dict[str, Node] = {}
    for page_id, name in pages:
        for row in await _layers(api, key, page_id, name, params, wanted):
            node = Node.read(row)
            nodes.setdefault(node.id, node)
    return list(nodes.values())


async def _layers(
    api: Api, key: str, page_id: str, name: str, params: Params, wanted: Wanted
) -> list[list[Any]]:
    """The page's layers that are wanted, as deep as Figma lets us look."""
    depths = [None, _LOOK_DEPTH, 2, 1] if wanted.components else [_LOOK_DEPTH, 2, 1]
    for depth in depths:
        try:
            more = {} if depth is None else {"depth": depth}
            found = await api.nodes(key, [page_id], {**params, **more}, pick_layers, name, wanted)
            return found.get(page_id) or []
        except TooLarge:
            if depth == depths[-1]:
                raise
    return []
