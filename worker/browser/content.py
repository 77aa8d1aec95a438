"""`browser.content`: what a page says, once its scripts have run."""

import json
from typing import Any

from pydantic import Field

from worker.browser import scripts
from worker.browser.asking import Answer, ask
from worker.browser.budget import Budget
from worker.browser.computing import compute
from worker.browser.faults import Fault
from worker.browser.markdown import MOST_CHARACTERS as MOST_MARKDOWN
from worker.browser.markdown import to_markdown
from worker.browser.options.content import ContentOptions, Part
from worker.browser.settling import present
from worker.browser.shown import storable
from worker.browser.visit import Visit
from worker.browser.work import Kind, Product
from worker.handlers import File

_READ_SECONDS = 20.0
_SELECTOR_SECONDS = 10.0
_MOST_CHARACTERS = 20_000_000
_MARKDOWN_SECONDS = 20.0  # on a processor
_NAMES: dict[Part, tuple[str, str]] = {
    # No browser may run it: Storage serves it from the project's own origin.
    "html": ("content.html", "text/plain; charset=utf-8"),
    "text": ("content.txt", "text/plain; charset=utf-8"),
    "markdown": ("content.md", "text/markdown; charset=utf-8"),
    "links": ("links.json", "application/json"),
    "metadata": ("metadata.json", "application/json"),
}


class _Read(Answer):
    too_large: bool = Field(default=False, alias="tooLarge")
    html: str = ""
    text: str = ""
    readable: str = ""  # HTML without what is not read
    links: list[dict[str, str]] = Field(default=[])
    metadata: dict[str, str | None] = Field(default={})


async def _produce(visit: Visit, options: ContentOptions, budget: Budget) -> Product:
    async with budget.stage("capture", _READ_SECONDS, "page_hung", "The page does not let itself be read."):
        most = {"most": _MOST_CHARACTERS, "mostReadable": MOST_MARKDOWN, "parts": options.parts}
        if options.selector is None:
            found = await ask(visit.line, scripts.READ_ALL, _Read, most)
        else:
            seconds = budget.left(_SELECTOR_SECONDS)
            root = await present(visit.page, options.selector, "selector", seconds)
            found = await ask(root, scripts.READ, _Read, most)
        if found.too_large:
            raise Fault("page_too_large", f"The page has more than {_MOST_CHARACTERS} characters.")
    files = [await _file(part, found, options, visit, budget) for part in options.parts]
    facts = {"metadata": _storable(found.metadata), "links": len(found.links)}
    return Product(facts, tuple(files))


async def _file(part: Part, found: _Read, options: ContentOptions, visit: Visit, budget: Budget) -> File:
    content: bytes | None = None
    text = ""
    if part == "html":
        text = found.html
    elif part == "text":
        text = found.text
    elif part == "markdown":
        content = await compute(
            visit.computing, budget, to_markdown, found.readable, seconds=_MARKDOWN_SECONDS
        )
    else:
        said = found.links if part == "links" else found.metadata
        text = json.dumps(said, ensure_ascii=False, indent=1)
    usual, mime = _NAMES[part]
    name = usual if options.name is None else f"{options.name}.{usual.rpartition('.')[2]}"
    if options.name is not None and part in ("links", "metadata"):
        name = f"{options.name}.{usual}"
    return File(name, mime, storable(text).encode() if content is None else content)


def _storable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: storable(value)[:1000] for name, value in values.items() if isinstance(value, str)}


CONTENT = Kind("content", ContentOptions, _produce, lambda options: options.scroll, lambda _: True)
