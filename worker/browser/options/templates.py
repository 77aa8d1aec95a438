"""Header and footer templates of a PDF: what they must not hold.

Chromium prints them in a page that can load nothing. A picture from elsewhere is simply missing there; a
style sheet or a font from elsewhere ends the page's process. So both are refused before a browser sees them.
"""

import html
import re
from html.parser import HTMLParser

# Attributes that name something to load, by element; `*`: of any.
_LOADS = {
    "link": ("href",),
    "image": ("href", "xlink:href"),  # of SVG
    "feimage": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "object": ("data",),
    "*": ("src", "srcset", "background", "poster"),
}
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})[ \t\r\n\f]?|(.))", re.DOTALL)  # CSS Syntax 3, 4.3.7
_CSS_LOADS = re.compile(r"(?:url|src|image-set)\(\s*[\"']?\s*(?P<address>[^\"')]*)|(?P<import>@import)")


def loaded_by(template: str) -> str | None:
    """What the template would load from elsewhere, in a word or two; None: nothing."""
    finder = _Finder()
    finder.feed(template)
    finder.close()
    return finder.found or _of_css(template) or _of_css(html.unescape(template))


class _Finder(HTMLParser):
    """Takes the first element that loads something from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = (*_LOADS["*"], *_LOADS.get(tag, ()))
        if self.found is None and any(name in names and _is_elsewhere(value or "") for name, value in attrs):
            self.found = f"<{tag[:20]}>"


def _of_css(text: str) -> str | None:
    plain = _COMMENT.sub("", _ESCAPE.sub(_letter, text)).lower()
    for match in _CSS_LOADS.finditer(plain):
        if match["import"]:
            return "@import"
        if _is_elsewhere(match["address"]):
            return "url(…)"
    return None


def _is_elsewhere(address: str) -> bool:
    return not address.strip().lower().startswith(("data:", "#")) and bool(address.strip())


def _letter(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return escape[2]
    number = int(escape[1], 16)
    return chr(number) if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
