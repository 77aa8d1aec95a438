"""What exported files are called: the template first, cleaning last, and no two alike."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from worker.figma.nodes import Node

_MOST_BYTES = 120
_MOST_ID_CHARACTERS = 48
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows refuses
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_SEPARATORS = '/\\:*?"<>|\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'  # and what turns text around

Render = tuple[Node, str, float]  # node, format, scale


def file_names(renders: Sequence[Render], template: str) -> list[str]:
    """One name each. Where several would be equal, whatever their case, all get their node's id, so that the
    outcome does not depend on the order; what is still equal gets its format and scale."""
    names = [_name(render, template, "") for render in renders]
    for more in (_node_id, _node_and_kind):
        counts = Counter(name.casefold() for name in names)
        names = [
            _name(render, template, more(render)) if counts[name.casefold()] > 1 else name
            for render, name in zip(renders, names, strict=True)
        ]
    return _numbered(names)


def _numbered(names: list[str]) -> list[str]:
    """For layers that are named after what the above makes of others."""
    taken: set[str] = set()
    for index, name in enumerate(names):
        number = 2
        while names[index].casefold() in taken:
            stem, _, extension = name.rpartition(".")
            names[index], number = f"{stem}-{number}.{extension}", number + 1
        taken.add(names[index].casefold())
    return names


def _name(render: Render, template: str, addition: str) -> str:
    node, kind, scale = render
    extension = f".{kind}"
    filled = template.format_map(
        {
            "name": node.name,
            "page": node.page or "",
            "nodeId": _dashed(node.id),
            "format": kind,
            "ext": extension[1:],
            "scale": f"{scale:g}",
            "scaleSuffix": "" if scale == 1 else f"@{scale:g}x",
        }
    )
    stem = filled.removesuffix(extension)
    return _clean(stem, node, len(extension) + len(addition)) + addition + extension


def _clean(stem: str, node: Node, reserved_bytes: int) -> str:
    plain = unicodedata.normalize("NFC", stem)
    plain = "".join("-" if unicodedata.category(c) in _UNPRINTABLE or c in _SEPARATORS else c for c in plain)
    plain = plain.encode(errors="replace")[: _MOST_BYTES - reserved_bytes].decode(errors="ignore").strip(". ")
    if not plain.strip("-"):
        plain = f"node-{_dashed(node.id)}"
    return f"_{plain}" if _RESERVED.match(plain) else plain


def _node_id(render: Render) -> str:
    return f"-{_dashed(render[0].id)}"


def _node_and_kind(render: Render) -> str:
    return f"{_node_id(render)}-{render[1]}-{render[2]:g}x"


def _dashed(node_id: str) -> str:
    """Ids of nodes deep in instances are long: their ends differ, and a digest tells what does not fit."""
    plain = node_id.replace(":", "-").replace(";", "_")
    if len(plain) <= _MOST_ID_CHARACTERS:
        return plain
    digest = hashlib.sha256(node_id.encode()).hexdigest()[:8]
    return f"{digest}-{plain[-_MOST_ID_CHARACTERS + 9 :]}"
