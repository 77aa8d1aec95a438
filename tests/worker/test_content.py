"""`browser.content`: what a page says after its scripts have run."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.worker import computations
from tests.worker.conftest import Camera, made
from worker.browser import content
from worker.handlers import Done, GiveUp, RetryLater

PAGE = """<!doctype html><html lang=ko><head><title>A page</title>
<meta name=description content="What it is about"><meta property="og:image" content="/cover.png">
<link rel=canonical href="/canonical"><style>.x { color: red }</style></head>
<body><h1>Heading</h1><p>Some <b>bold</b> text and <a href="/there?a=1&amp;b=2">a link</a>.</p>
<ul><li>first</li><li>second</li></ul><p style="display: none">unseen</p><script>document.body.append('by script')</script>
<a href="/there?a=1&amp;b=2">again</a><a href="mailto:a@b.c">mail</a><img alt=dot src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr></table></body></html>"""


async def read(camera: Camera, payload: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    outcome = await camera.outcome(payload, kind="browser.content")
    assert isinstance(outcome, Done), outcome
    texts = {}
    for file in made(outcome):
        assert isinstance(file.content, bytes)
        texts[file.name] = file.content.decode()
    return outcome.result, texts


async def test_each_format_is_a_file_of_its_own(camera: Camera) -> None:
    formats = ["html", "text", "markdown", "links", "metadata"]
    result, texts = await read(camera, {"html": PAGE, "format": formats})
    assert list(texts) == ["content.html", "content.txt", "content.md", "links.json", "metadata.json"]
    assert texts["content.html"].lower().startswith("<!doctype html>")
    assert "by script" in texts["content.html"]
    assert "Some bold text" in texts["content.txt"]
    assert "unseen" not in texts["content.txt"]
    markdown = texts["content.md"]
    assert "# Heading" in markdown
    assert "Some **bold** text and [a link]" in markdown
    assert "- first\n- second" in markdown
    assert "| k | v |" in markdown
    assert "color: red" not in markdown
    assert "append" not in markdown
    links = json.loads(texts["links.json"])
    assert [link["text"] for link in links] == ["a link", "mail"]
    assert result["links"] == 2
    metadata = json.loads(texts["metadata.json"])
    assert (metadata["title"], metadata["description"]) == ("A page", "What it is about")
    assert metadata["language"] == "ko"
    assert result["metadata"]["description"] == "What it is about"


async def test_addresses_are_absolute(camera: Camera) -> None:
    _, texts = await read(camera, {"url": "/article", "format": ["links", "metadata", "markdown"]})
    links = json.loads(texts["links.json"])
    assert links == [{"url": camera.site.url("/squares"), "text": "squares", "rel": "nofollow"}]
    assert json.loads(texts["metadata.json"])["image"] == camera.site.url("/cover.png")
    assert f"[squares]({camera.site.url('/squares')})" in texts["content.md"]


async def test_one_element_can_be_read(camera: Camera) -> None:
    _, texts = await read(camera, {"html": PAGE, "format": "text", "selector": "ul", "name": "목록"})
    assert texts == {"목록.txt": "first\nsecond"}


@pytest.mark.parametrize("wrong", ["pdf", [], ["html", "xml"], 7])
async def test_an_unknown_format_is_refused(camera: Camera, wrong: Any) -> None:
    outcome = await camera.outcome({"html": PAGE, "format": wrong}, kind="browser.content")
    assert isinstance(outcome, GiveUp), outcome
    assert outcome.error.details["field"].startswith("payload.format")


async def test_a_page_nested_without_end_is_an_error_and_no_crash(camera: Camera) -> None:
    js = "let at = document.body; for (let i = 0; i < 480; i++) { const d = document.createElement('div'); at.append(d); at = d }"
    outcome = await camera.outcome({"html": "x", "js": js, "format": "markdown"}, kind="browser.content")
    assert isinstance(outcome, GiveUp | Done), outcome
    if isinstance(outcome, GiveUp):
        assert outcome.error.code == "page_too_large"
    _, texts = await read(camera, {"html": "x", "js": js, "format": "text"})
    assert texts["content.txt"].strip() == "x"


async def test_a_page_without_anything_is_an_error_at_once(camera: Camera) -> None:
    nothing = {"html": "<script>document.documentElement.remove()</script>"}
    outcome = await camera.outcome(nothing, kind="browser.content")
    assert isinstance(outcome, GiveUp), outcome
    assert outcome.error.code == "page_error"


async def test_what_the_database_cannot_hold_is_left_out(camera: Camera) -> None:
    js = "document.title = 'a\\ud800b'; document.body.append('c\\u0000d')"
    result, texts = await read(camera, {"html": "<p>x</p>", "js": js, "format": "text"})
    assert "\0" not in texts["content.txt"]
    assert "\ud800" not in result["title"]


@pytest.mark.parametrize("kind", ["browser.content", "browser.pdf", "browser.screenshot"])
@pytest.mark.parametrize(
    ("width", "scale", "media"), [(1280, 1, "screen"), (500, 2, "screen"), (900, 1, "print")]
)
async def test_a_page_finds_itself_on_the_same_screen_whatever_is_made_of_it(
    camera: Camera, kind: str, width: int, scale: int, media: str
) -> None:
    size = [width, 700]
    payload = {
        "url": "/seen",
        "viewport": {"width": width, "height": 700},
        "scaleFactor": scale,
        "media": media,
        "waitForFunction": "document.title",
    }
    outcome = await camera.outcome(payload, kind=kind)
    assert isinstance(outcome, Done), outcome
    told = json.loads(outcome.result["title"])
    assert told == {
        "inner": size, "outer": size, "screen": size, "pixel": scale, "seen": ["near"], "print": media == "print"
    }  # fmt: skip


async def test_a_click_hits_on_a_page_that_is_only_read(camera: Camera) -> None:
    button = (
        "<button style='position: absolute; left: 900px; top: 500px' onclick='this.textContent = \"hit\"'>"
    )
    _, texts = await read(camera, {"html": button, "click": ["button"], "format": "text"})
    assert "hit" in texts["content.txt"]


ENDLESS = "Object.defineProperty(Element.prototype, 'outerHTML', {get() { return '<a '.repeat(300000) }})"
"""A page that says of itself what takes a parser hours: the parser looks for an end after each beginning."""


async def test_markdown_of_a_long_list_is_made(camera: Camera) -> None:
    js = "document.body.innerHTML = '<ol>' + '<li>x</li>'.repeat(15000) + '</ol>'"
    payload = {"html": "x", "js": js, "format": "markdown", "timeoutMs": 120_000}
    _, texts = await read(camera, payload)
    assert texts["content.md"].endswith("\n15000. x\n")


async def test_markdown_without_end_is_ended_and_others_go_on(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_MARKDOWN_SECONDS", 2.0)
    hostile = [
        asyncio.create_task(
            camera.outcome(
                {"html": "x", "js": ENDLESS, "format": "markdown", "timeoutMs": 120_000},
                kind="browser.content",
            )
        )
        for _ in range(4)
    ]
    result, _ = await read(camera, {"url": "/article", "format": "markdown", "timeoutMs": 120_000})
    assert "computeMs" in result["timings"]
    assert await asyncio.to_thread(lambda: 7) == 7, "no thread is taken"
    for outcome in await asyncio.gather(*hostile):
        assert isinstance(outcome, GiveUp), outcome
        assert outcome.error.code == "page_too_large"


async def test_a_child_that_dies_costs_its_job_an_attempt(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "to_markdown", computations.die_of)
    outcome = await camera.outcome({"html": "x", "format": "markdown"}, kind="browser.content")
    assert isinstance(outcome, RetryLater), outcome
    assert outcome.error.code == "computation_failed"
    assert outcome.error.message.endswith(".")


async def test_markdown_that_takes_all_memory_is_final(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "to_markdown", computations.take_all_memory)
    outcome = await camera.outcome({"html": "x", "format": "markdown"}, kind="browser.content")
    assert isinstance(outcome, GiveUp), outcome
    assert outcome.error.code == "page_too_large"
