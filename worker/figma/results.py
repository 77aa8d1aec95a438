"""What an export tells of its pictures: items, remarks, counts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from worker.figma.nodes import Node
from worker.figma.pictures import Size
from worker.figma.shelf import Kept

_DOWNSCALED_ABOVE = 32e6  # pixels: Figma makes larger pictures smaller, without a word (figma/rest-api-spec)
_MOST_RESULT_BYTES = 500_000  # of the 1 MiB that result and artifact rows share

Kind = tuple[str, float]  # format and scale


def judged(node: Node, kind: Kind, size: Size) -> tuple[str, ...]:
    """What is to be said of a picture's pixels: Figma rounds, and makes very large ones smaller."""
    if kind[0] not in ("png", "jpg") or size.width is None or size.height is None:
        return ()
    expected = [(w * kind[1], h * kind[1]) for w, h in filter(None, (node.ink, node.box))]
    slack = max(1.0, kind[1])
    if not expected or any(
        abs(size.width - w) <= slack and abs(size.height - h) <= slack for w, h in expected
    ):
        return ()
    if any(w * h > _DOWNSCALED_ABOVE and size.width < w and size.height < h for w, h in expected):
        return ("downscaled",)
    return ("unexpectedSize",)


def item_of(node: Node, kind: Kind, kept: Kept) -> dict[str, Any]:
    item = {
        "nodeId": node.id,
        "name": node.name[:200],
        "page": node.page and node.page[:200],
        "path": node.path and node.path[:500],
        "format": kind[0],
        "scale": kind[1],
        "artifact": kept.file.name,
        "width": kept.file.width,
        "height": kept.file.height,
    }
    return {name: value for name, value in item.items() if value is not None} | dict.fromkeys(
        kept.remarks, True
    )


def remarks_of(item: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in ("downscaled", "unexpectedSize", "sanitized") if item.get(name))


def counts_of(items: Sequence[Mapping[str, Any]], skipped: Sequence[Any]) -> dict[str, int]:
    return {
        "exported": len(items),
        "skipped": len(skipped),
        "fromCache": sum(bool(item.get("fromCache")) for item in items),
    }


def fitting(result: dict[str, Any]) -> dict[str, Any]:
    """Without the longest words where there are too many of them: the artifact rows have the names."""
    for name in ("path", "page", "name"):
        if len(json.dumps(result, ensure_ascii=False).encode(errors="replace")) <= _MOST_RESULT_BYTES:
            break
        for item in result["items"]:
            item.pop(name, None)
        result["abridged"] = True
    return result


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
