"""An SVG without what a picture does not need: scripts, handlers, foreign content, links out of the file.

A signed URL shows the file in the project's own origin, and layer names and texts are other people's.
"""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from worker.figma.pictures import BadPicture

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
_MOST_FRAMES = 20_000  # of Python's stack; an element takes two
_REMOVED = {
    "script",
    "foreignObject",
    "iframe",
    "object",
    "embed",
    "audio",
    "video",
    "a",
    "handler",
    "listener",
}
_ANIMATIONS = {"set", "animate", "animateTransform", "animateMotion"}
_INSIDE = re.compile(r"\s*(#|data:image/(png|jpeg|gif|webp)[;,])", re.IGNORECASE)
_OUTSIDE_STYLE = re.compile(
    r"@import|expression\s*\(|javascript:|url\(\s*['\"]?\s*(?!['\"]?(#|data:image/))", re.IGNORECASE
)

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def sanitize(path: Path) -> bool:
    """Rewrites a checked SVG in place; returns whether anything was taken away. Runs in a child: see
    worker.computing."""
    sys.setrecursionlimit(_MOST_FRAMES)
    tree = ElementTree.parse(path)  # noqa: S314  pictures.check has refused documents with entities
    root = tree.getroot()
    if root is None:
        raise BadPicture("it is no svg")
    try:
        removed = _clean(root)
        if removed:
            tree.write(path, encoding="utf-8", xml_declaration=False)
    except RecursionError as error:
        raise BadPicture("it is nested too deeply") from error
    return removed > 0


def _clean(element: "ElementTree.Element[str]") -> int:
    removed = 0
    for name, value in list(element.attrib.items()):
        if _is_harmful(_local(name), value):
            del element.attrib[name]
            removed += 1
    for child in list(element):
        name = _local(str(child.tag))
        if name == "style" and _OUTSIDE_STYLE.search(_plain("".join(child.itertext()))):
            harmful = True
        elif name in _ANIMATIONS:
            harmful = _local(child.get("attributeName", "")).lower() in ("href", "xlink:href", "style")
        else:
            harmful = name in _REMOVED
        if harmful:
            _take_out(element, child, keep_children=name == "a")
            removed += 1
    return removed + sum(_clean(child) for child in element)


def _take_out(
    parent: "ElementTree.Element[str]", child: "ElementTree.Element[str]", keep_children: bool
) -> None:
    at = list(parent).index(child)
    parent.remove(child)
    if keep_children:  # what a link surrounds is part of the picture
        inner = ElementTree.Element(f"{{{SVG}}}g")
        inner.extend(list(child))
        parent.insert(at, inner)


def _is_harmful(name: str, value: str) -> bool:
    plain = _plain(value)
    if name.lower().startswith("on"):
        return True
    if name in ("href", "src"):
        return not _INSIDE.match(plain)
    return bool(_OUTSIDE_STYLE.search(plain))


def _plain(text: str) -> str:
    """Without the escapes and comments that hide words from a search."""
    shown = re.sub(r"\\([0-9a-fA-F]{1,6})\s?", lambda code: chr(min(int(code[1], 16), 0x10FFFF)), text)
    return re.sub(r"[\x00-\x20]+", " ", re.sub(r"/\*.*?\*/", "", shown, flags=re.DOTALL))


def _local(name: str) -> str:
    return name.rpartition("}")[2]
