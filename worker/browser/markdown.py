"""A page's HTML as Markdown. Runs in a child: see worker.computing.

Markdownify looks at all list items before each item, at all rows of a head for each of its rows, and at all
ancestors of each element: an `<ol>` of 190,000 items would take hours. The converter here makes the same text
of them in a time that grows with the page's length.
"""

import re
import sys
from typing import Any

from bs4 import BeautifulSoup, Comment, Doctype, Tag
from bs4.element import NavigableString
from markdownify import MarkdownConverter

from worker.computing import Rejected
from worker.storable import clean_text

MOST_CHARACTERS = 2_000_000  # of HTML: the conversion takes about a second for each million
_MOST_FRAMES = 30_000  # of Python's stack; an element takes three

_BLANKS = re.compile(r"[\t ]+")
_BREAKS = re.compile(r" ?[\r\n][ \r\n]*")
_EDGES = re.compile(r"(\n*)((?:.*[^\n])?)(\n*)", re.DOTALL)
_LINES = re.compile(r"^(.+)", re.MULTILINE)
_HEADING = re.compile(r"h\d+")
_COUNT = re.compile(r"[0-9]{1,9}")  # longer ones mean nothing, and `int` refuses very long ones
_BLOCKS = {"p", "blockquote", "article", "div", "section", "ol", "ul", "li", "dl", "dt", "dd", "table",
           "thead", "tbody", "tfoot", "tr", "td", "th"}  # fmt: skip
_LARGEST_SPAN = 1000  # cells: browsers take no more (HTML, 4.9.11)


def to_markdown(html: str) -> bytes:
    """UTF-8. Raises Rejected `page_too_large`."""
    if len(html) > MOST_CHARACTERS:
        raise Rejected(
            "page_too_large", f"The page is too long for Markdown: more than {MOST_CHARACTERS} characters."
        )
    sys.setrecursionlimit(_MOST_FRAMES)
    try:
        text = str(
            _Converter(heading_style="ATX", bullets="-").convert_soup(BeautifulSoup(html, "html.parser"))
        )
    except RecursionError as error:
        raise Rejected("page_too_large", "The page is nested too deeply for Markdown.") from error
    lines = [line.rstrip() for line in text.strip().splitlines()]
    kept = [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
    return clean_text("\n".join(kept) + "\n").encode()


class _Converter(MarkdownConverter):
    """Overrides what looks at more of the page than the element itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._numbers: dict[int, int] = {}  # of list items, by their identity
        self._with_head: dict[int, bool] = {}  # tables, by their identity

    def process_tag(self, node: Tag, parent_tags: set[str] | None = None) -> str:
        strip = _is_block(node)
        children = [child for child in node.children if not _is_ignored(child, strip)]
        names = {*(parent_tags or ()), node.name}
        if node.name in ("td", "th") or _HEADING.match(node.name):
            names.add("_inline")
        if node.name in ("pre", "code", "kbd", "samp"):
            names.add("_noformat")
        texts = [
            self.process_element(child, parent_tags=names)  # type: ignore[attr-defined]
            for child in children
        ]
        text = "".join(texts) if "pre" in names else _joined(texts)
        convert = self.get_conv_fn_cached(node.name)  # type: ignore[attr-defined]
        return text if convert is None else convert(node, text, parent_tags=parent_tags or set())

    def process_text(self, el: NavigableString, parent_tags: set[str] | None = None) -> str:
        names, text, parent = parent_tags or set(), str(el), el.parent
        if "pre" not in names:
            text = _BREAKS.sub("\n", _BLANKS.sub(" ", text))
        if "_noformat" not in names:
            text = self.escape(text, names)  # type: ignore[attr-defined]
        before, after = el.previous_sibling, el.next_sibling
        strip = _is_block(parent)
        if _is_apart(before) or (strip and not before):
            text = text.lstrip(" \t\r\n")
        if _is_apart(after) or (strip and not after):
            text = text.rstrip()
        return text

    def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002
        text = text.strip()
        if not text:
            return "\n"
        parent, bullet = el.parent, "- "
        if parent is not None and parent.name == "ol":
            start = str(parent.get("start") or "")
            bullet = f"{(int(start) if _COUNT.fullmatch(start) else 1) + self._number(el, parent)}. "
        indented = _LINES.sub(" " * len(bullet) + r"\1", text)
        return f"{bullet}{indented[len(bullet) :]}\n"

    def _number(self, item: Tag, parent: Tag) -> int:
        if id(item) not in self._numbers:
            items = (child for child in parent.children if isinstance(child, Tag) and child.name == "li")
            self._numbers |= {id(child): number for number, child in enumerate(items)}
        return self._numbers[id(item)]

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002
        if not text:
            return ""
        text = text.rstrip(" \n")
        blank = text[: len(text) - len(text.lstrip(" \n"))]
        return f"\n\n```\n{text[blank.rfind(chr(10)) + 1 :]}\n```\n\n"

    def convert_td(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002
        return " " + text.strip().replace("\n", " ") + " |" * _span(el)

    convert_th = convert_td

    def convert_tr(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002
        if _tag_before(el) is not None:
            return f"|{text}\n"
        cells = [child for child in el.children if isinstance(child, Tag) and child.name in ("td", "th")]
        parent, columns = el.parent, sum(map(_span, cells))
        group = parent.name if parent is not None else ""
        line = "| " + " | ".join(["---"] * columns) + " |\n"
        if all(cell.name == "th" for cell in cells) or (group == "thead" and _tag_after(el) is None):
            return f"|{text}\n{line}"
        if (
            group == "tbody"
            and parent is not None
            and self._has_head(parent)
            and _tag_before(parent) is not None
        ):
            return f"|{text}\n"
        return "| " + " | ".join([""] * columns) + f" |\n{line}|{text}\n"

    def _has_head(self, body: Tag) -> bool:
        table = body.parent
        if table is None:
            return False
        if id(table) not in self._with_head:
            self._with_head[id(table)] = any(
                isinstance(child, Tag) and child.name == "thead" for child in table.children
            )
        return self._with_head[id(table)]


def _is_block(element: Any) -> bool:
    """Whether blank text just inside means nothing."""
    return bool(element and element.name) and (
        element.name in _BLOCKS or _HEADING.match(element.name) is not None
    )


def _is_apart(element: Any) -> bool:
    """Whether blank text just outside means nothing."""
    return _is_block(element) or bool(element and element.name == "pre")


def _is_ignored(child: Any, strip: bool) -> bool:
    """Comments, and blank text at the edges of blocks."""
    if isinstance(child, Tag):
        return False
    if isinstance(child, Comment | Doctype):
        return True
    if child.strip():
        return False
    before, after = child.previous_sibling, child.next_sibling
    if strip and (not before or not after):
        return True
    return _is_apart(before) or _is_apart(after)


def _joined(texts: list[str]) -> str:
    """With the larger number of line breaks where two meet, two at most."""
    parts = [""]
    for text in texts:
        edges = _EDGES.fullmatch(text) if text else None
        if edges is None:
            continue
        leading, content, trailing = edges.groups()
        if parts[-1] and leading:
            leading = "\n" * min(2, max(len(parts.pop()), len(leading)))
        parts += [leading, content, trailing]
    return "".join(parts)


def _span(cell: Tag) -> int:
    span = str(cell.get("colspan") or "")
    return max(1, min(_LARGEST_SPAN, int(span))) if _COUNT.fullmatch(span) else 1


def _tag_before(element: Tag) -> Tag | None:
    return next((one for one in element.previous_siblings if isinstance(one, Tag)), None)


def _tag_after(element: Tag) -> Tag | None:
    return next((one for one in element.next_siblings if isinstance(one, Tag)), None)
