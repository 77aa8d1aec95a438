"""Markdown as the library makes it, in a time that grows with the page and no faster."""

import itertools
from typing import Any

import pytest
from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

from tests.worker.test_content import PAGE
from worker.browser.markdown import MOST_CHARACTERS, to_markdown
from worker.computing import Rejected

ARTICLE = (
    "<article><h1>T <i>x</i></h1><p>Some <b>bold</b>  text\n and <a href='http://x/'>a link</a> 2*3_4.</p> "
    "<ul>\n<li>one\n  two</li> <li><p>x</p><ol start=3><li>a<br>b</li><li> </li><li>c</li></ol></li></ul>"
    "<ol><!-- c --><li>a</li><div>b</div><li>c<ul><li>d</li></ul></li></ol><pre>  \n code  here\n\n  x </pre>"
    "<p>in <code>a`b</code> <kbd>k</kbd> <del>d</del></p><blockquote><p>quote</p><pre>x</pre></blockquote>"
    "<table><caption>c</caption><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td colspan=2>1</td></tr>"
    "<tr><td>1</td><td><ul><li>x</li></ul></td></tr></tbody></table><table><tr><td>1</td></tr><tr><td>2</td></tr></table>"
    "<table><thead><tr><td>1</td></tr><tr><td>2</td></tr></thead></table><table><tbody><tr><td>1</td></tr></tbody>"
    "<tbody><tr><td>2</td></tr></tbody></table><dl><dt>a</dt><dd>b\nc</dd></dl><img src=a alt=b><hr></article>"
)


def by_the_library(html: str) -> str:
    converter = MarkdownConverter(heading_style="ATX", bullets="-")
    lines = [
        line.rstrip()
        for line in converter.convert_soup(BeautifulSoup(html, "html.parser")).strip().splitlines()
    ]
    kept = [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
    return "\n".join(kept) + "\n"


@pytest.mark.parametrize(
    "html", [PAGE, ARTICLE, ARTICLE * 2, "", "x", "<pre>\n\n</pre>", "<tr><td>x</td></tr>"]
)
def test_the_text_is_the_librarys(html: str) -> None:
    assert to_markdown(html).decode() == by_the_library(html)


class Steps:
    """Counts how often a page's elements are looked at by way of their siblings, parents and children."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("next_siblings", "previous_siblings", "parents", "descendants", "children"):
            monkeypatch.setattr(Tag, name, property(self._counting(getattr(Tag, name).fget)))

    def _counting(self, look: Any) -> Any:
        def counted(tag: Tag) -> Any:
            for found in look(tag):
                self.count += 1
                yield found

        return counted


LARGE = {
    "ordered list": ("<ol>", "<li>x</li>", "</ol>"),
    "list": ("<ul>", "<li>x</li>", "</ul>"),
    "head of a table": ("<table><thead>", "<tr><th>x</th></tr>", "</thead></table>"),
    "plain head of a table": ("<table><thead>", "<tr><td>x</td></tr>", "</thead></table>"),
    "bodies of a table": ("<table>", "<tbody><tr><td>x</td></tr></tbody>", "</table>"),
    "rows": ("<table>", "<tr><td>x</td></tr>", "</table>"),
    "deep": ("<div>" * 200, "<b>x</b> ", "</div>" * 200),
    "comments": ("<ul></ul>", "<!-- -->", ""),
}


@pytest.mark.parametrize("name", LARGE)
def test_work_grows_with_the_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the page is four times the work: with the library's own way it is sixteen times."""
    begin, part, end = LARGE[name]
    counts = []
    for number in (250, 1000):
        with monkeypatch.context() as patch:
            steps = Steps(patch)
            to_markdown(begin + part * number + end)
        counts.append(steps.count)
    assert counts[1] < 5 * counts[0] + 2000, counts


@pytest.mark.parametrize(
    "html",
    [
        "<p>x" + " " * 200_000 + "x</p>",
        "<pre>x" + " " * 200_000 + "x</pre>",
        "<p>" + "\n \t" * 60_000 + "x</p>",
        "<ol>" + "<li>x</li>" * 20_000 + "</ol>",
    ],
)
def test_long_pages_come_out(html: str) -> None:
    """Blanks without end took the library's patterns minutes."""
    assert to_markdown(html).count(b"x") == html.count("x")


def test_deep_pages_come_out_and_bottomless_ones_are_refused() -> None:
    assert to_markdown("<div>" * 3000 + "x" + "</div>" * 3000) == b"x\n"
    with pytest.raises(Rejected, match="page_too_large"):
        to_markdown("<div>" * 50_000 + "x")
    with pytest.raises(Rejected, match="page_too_large"):
        to_markdown("x" * (MOST_CHARACTERS + 1))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (f"<ol start={start}><li>x</li></ol>", "1. x\n") for start in ("½", "²", "9" * 5000, "-3", "x")
    ]
    + [(f"<table><tr><th colspan={span}>x</th></tr></table>", "| x |\n| --- |\n") for span in ("²", "9" * 5000, "0")],
)  # fmt: skip
def test_odd_numbers_of_a_page_are_none(html: str, text: str) -> None:
    assert to_markdown(html).decode() == text


def test_numbers_of_lists_go_on_in_and_out_of_lists() -> None:
    inner = "<ol>" + "".join(f"<li>{n}</li>" for n in range(3)) + "</ol>"
    text = to_markdown(f"<ol start=7><li>a{inner}</li><li>b{inner}</li></ol>").decode()
    found = [line.strip() for line in text.splitlines() if line.strip()]
    assert [line.partition(".")[0] for line in found if "." in line] == [
        str(number) for number in itertools.chain([7, 1, 2, 3], [8, 1, 2, 3])
    ]
