"""`browser.pdf`: pages, sizes, headers, ranges; and what is no PDF."""

import io
from collections.abc import Mapping
from typing import Any

import pytest
from pypdf import PdfReader

from tests.worker.conftest import Camera, made
from worker.browser.measuring import measure_pdf
from worker.computing import Rejected
from worker.handlers import Done, GiveUp

MM = 72 / 25.4  # points

THREE = (
    "<title>Three</title><p style='break-after: page'>one</p><p style='break-after: page'>two</p><p>three</p>"
)


async def printed(camera: Camera, payload: Mapping[str, Any]) -> tuple[Mapping[str, Any], PdfReader]:
    outcome = await camera.outcome(payload, kind="browser.pdf")
    assert isinstance(outcome, Done), outcome
    (file,) = made(outcome)
    assert isinstance(file.content, bytes)
    assert file.mime == "application/pdf"
    reader = PdfReader(io.BytesIO(file.content))
    result = outcome.result
    assert result["pages"] == len(reader.pages)
    assert (result["pageWidthPt"], result["pageHeightPt"]) == pytest.approx(size(reader), abs=0.1)
    return result, reader


def size(reader: PdfReader) -> tuple[float, float]:
    box = reader.pages[0].mediabox
    return float(box.width), float(box.height)


async def test_a_page_is_printed_on_a4(camera: Camera) -> None:
    result, reader = await printed(camera, {"html": THREE})
    assert (result["action"], result["pages"], result["title"]) == ("pdf", 3, "Three")
    assert size(reader) == pytest.approx((210 * MM, 297 * MM), abs=1)
    assert [page.extract_text().strip() for page in reader.pages] == ["one", "two", "three"]


SIZES: list[tuple[dict[str, Any], tuple[float, float]]] = [
    ({"format": "Letter"}, (612, 792)),
    ({"format": "A5", "landscape": True}, (210 * MM, 148 * MM)),
    ({"width": "10cm", "height": "5cm"}, (100 * MM, 50 * MM)),
    ({"width": 960, "height": 480}, (720, 360)),
    ({"width": "3in", "height": "200px"}, (216, 150)),
]


@pytest.mark.parametrize(("paper", "expected"), SIZES, ids=[str(paper) for paper, _ in SIZES])
async def test_the_paper_has_the_size_asked_for(
    camera: Camera, paper: dict[str, Any], expected: tuple[float, float]
) -> None:
    _, reader = await printed(camera, {"html": "x", "pdf": paper})
    assert size(reader) == pytest.approx(expected, abs=1.5)


async def test_the_pages_of_a_long_document_are_counted(camera: Camera) -> None:
    result, _ = await printed(camera, {"html": "<p style='break-after: page'>x" * 70})
    assert result["pages"] == 70


async def test_only_the_pages_asked_for_are_printed(camera: Camera) -> None:
    _, reader = await printed(camera, {"html": THREE, "pdf": {"pageRanges": "1, 3"}})
    assert [page.extract_text().strip() for page in reader.pages] == ["one", "three"]
    outcome = await camera.outcome({"html": THREE, "pdf": {"pageRanges": "7-9"}}, kind="browser.pdf")
    assert isinstance(outcome, GiveUp), outcome
    assert outcome.error.code == "invalid_page_ranges"


async def test_header_and_footer_are_on_every_page(camera: Camera) -> None:
    paper = {
        "headerTemplate": "<span style='font-size: 12px'>HEAD</span>",
        "footerTemplate": "<span style='font-size: 12px'>page <span class=pageNumber></span></span>",
        "margin": {"top": "2cm", "bottom": "2cm"},
    }
    _, reader = await printed(camera, {"html": THREE, "pdf": paper})
    texts = [page.extract_text() for page in reader.pages]
    assert all("HEAD" in text for text in texts)
    assert [f"page {number}" in text for number, text in enumerate(texts, 1)] == [True, True, True]


ROOM: list[tuple[dict[str, Any], int]] = [
    ({}, 1), ({"scale": 2}, 2), ({"scale": 0.5}, 1), ({"margin": {"top": "20cm"}}, 2),
    ({"margin": {"bottom": 800}}, 3), ({"format": "A6"}, 2),
]  # fmt: skip


@pytest.mark.parametrize(("paper", "pages"), ROOM, ids=[str(paper) for paper, _ in ROOM])
async def test_scale_margin_and_paper_say_how_much_goes_on_a_page(
    camera: Camera, paper: dict[str, Any], pages: int
) -> None:
    html = "<body style='margin: 0'><div style='height: 700px; background: red'></div>"
    result, _ = await printed(camera, {"html": html, "pdf": paper})
    assert result["pages"] == pages


async def test_a_single_page_is_as_high_as_its_content(camera: Camera) -> None:
    html = "<body style='margin: 0'><div style='height: 3000px; background: red'></div>last"
    result, reader = await printed(camera, {"html": html, "pdf": {"singlePage": True}})
    assert result["pages"] == 1
    assert size(reader)[1] == pytest.approx(3020 * 0.75, abs=20)


async def test_background_tags_outline_and_css_page_size(camera: Camera) -> None:
    html = (
        "<title>t</title><style>@page { size: 300px 400px }</style><h1>One</h1><body style='background: red'>"
    )
    _, with_background = await printed(camera, {"html": html})
    _, without = await printed(camera, {"html": html, "pdf": {"printBackground": False}})
    first, second = (reader.pages[0].get_contents() for reader in (with_background, without))
    assert first is not None
    assert second is not None
    assert len(first.get_data()) > len(second.get_data())
    _, own = await printed(camera, {"html": html, "pdf": {"preferCssPageSize": True, "outline": True}})
    assert size(own) == pytest.approx((225, 300), abs=1.5)
    assert own.outline
    _, tagged = await printed(camera, {"html": html, "pdf": {"tagged": True}})
    assert not tagged.outline
    assert [("/StructTreeRoot" in reader.root_object) for reader in (own, tagged, without)] == [
        True,
        True,
        False,
    ]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": "A9"}, "payload.pdf.format"),
    ({"width": "3in"}, "payload.pdf.height"),
    ({"format": "A4", "width": "3in", "height": "3in"}, "payload.pdf.format"),
    ({"scale": 3}, "payload.pdf.scale"),
    ({"margin": {"top": "2 metres"}}, "payload.pdf.margin.top"),
    ({"margin": {"top": "30cm"}}, "payload.pdf.margin"),
    ({"pageRanges": "one"}, "payload.pdf.pageRanges"),
    ({"headerTemplate": "x" * 20_001}, "payload.pdf.headerTemplate"),
    ({"width": "300in", "height": "3in"}, "payload.pdf.width"),
    ({"singlePage": True, "landscape": True}, "payload.pdf.singlePage"),
    ({"colour": 1}, "payload.pdf.colour"),
    *(
        ({f"{where}Template": template, "margin": {where_at: "2cm"}}, f"payload.pdf.{where}Template")
        for where, where_at in (("header", "top"), ("footer", "bottom"))
        for template in (
            "<link rel=stylesheet href=https://example.com/a.css>",
            "<LINK rel=modulepreload href='//example.com/a.js'>",
            "<style>@import 'https://example.com/a.css';</style>",
            "<style>@/**/im\\70ort 'https://example.com/a.css'; @\\69mport 'a.css'</style>",
            "<svg><style>&#64;import url(https://example.com/a.css)</style></svg>",
            "<style>@font-face { font-family: f; src: url( 'https://example.com/a.woff' ) }</style>",
            "<p style='background: u\\72l(https://example.com/a.png)'>x</p>",
            "<script src=https://example.com/a.js></script>",
            "<img src=https://example.com/a.png>",
            "<img srcset='a.png 1x'>",
            "<svg><image href='https://example.com/a.png'/></svg>",
        )
    ),
]


@pytest.mark.parametrize(("paper", "field"), WRONG, ids=[str(paper)[:40] for paper, _ in WRONG])
async def test_a_wrong_wish_is_refused_by_its_name(camera: Camera, paper: dict[str, Any], field: str) -> None:
    outcome = await camera.outcome({"html": "x", "pdf": paper}, kind="browser.pdf")
    assert isinstance(outcome, GiveUp), outcome
    assert (outcome.error.code, outcome.error.details["field"]) == ("invalid_payload", field)


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"<html>", b"%PDF-1.4\n%%EOF"])
def test_what_is_no_pdf_is_no_artifact(data: bytes) -> None:
    with pytest.raises(Rejected, match="capture_failed"):
        measure_pdf(data)


async def test_a_template_may_bring_along_what_it_shows(camera: Camera) -> None:
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    template = (
        f"<style>p {{ background: url('{pixel}'); font-size: 9px }}</style><p><img src='{pixel}'>see"
        " <a href='https://example.com'>there</a><svg><use href='#a'/></svg></p><script>x()</script>"
    )
    paper = {"headerTemplate": template, "margin": {"top": "2cm"}}
    result, reader = await printed(camera, {"html": "x", "pdf": paper})
    assert result["pages"] == 1
    assert "see there" in reader.pages[0].extract_text()
