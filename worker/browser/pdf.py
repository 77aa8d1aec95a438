"""`browser.pdf`: a page on paper."""

import asyncio
import io
from typing import Any

from playwright.async_api import Error as PlaywrightError
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from worker.browser import scripts
from worker.browser.asking import Box, ask
from worker.browser.budget import Budget
from worker.browser.faults import Fault
from worker.browser.options.pdf import Paper, PdfOptions, inches
from worker.browser.visit import Visit
from worker.browser.work import Kind, Product
from worker.handlers import File

_PRINT_SECONDS = 60.0
_HIGHEST_INCHES = 200.0  # of a single page: as options.pdf has it


async def _produce(visit: Visit, options: PdfOptions, budget: Budget) -> Product:
    async with budget.stage(
        "capture", _PRINT_SECONDS, "page_hung", "The page does not let itself be printed."
    ):
        data = await _print(visit, options.pdf)
        pages, width, height = await asyncio.to_thread(measure, data)
    facts = {"pages": pages, "pageWidthPt": width, "pageHeightPt": height}
    return Product(facts, (File(options.file_name, "application/pdf", data),))


async def _print(visit: Visit, paper: Paper) -> bytes:
    wished: dict[str, Any] = {
        "landscape": paper.landscape,
        "margin": {side: f"{inches(length):.4f}in" for side, length in paper.margin},
        "print_background": paper.print_background,
        "prefer_css_page_size": paper.prefer_css_page_size,
        "scale": paper.scale,
        "display_header_footer": paper.header_template is not None or paper.footer_template is not None,
        # An empty template would mean the browser's own: date, title, address.
        "header_template": paper.header_template or "<span></span>",
        "footer_template": paper.footer_template or "<span></span>",
        "page_ranges": paper.page_ranges or "",
        "tagged": paper.tagged or paper.outline,
        "outline": paper.outline,
    }
    if paper.width is not None and paper.height is not None:
        wished |= {"width": f"{inches(paper.width):.4f}in", "height": f"{inches(paper.height):.4f}in"}
    elif paper.single_page:
        wished |= await _one_sheet(visit, paper)
    else:
        wished["format"] = paper.format
    try:
        return await visit.page.pdf(**wished)
    except PlaywrightError as error:
        if "age range" in error.message:
            raise Fault(
                "invalid_page_ranges", "payload.pdf.pageRanges asks for pages that there are not.",
                field="payload.pdf.pageRanges",
            ) from error  # fmt: skip
        if (
            "content area is empty" in error.message.lower()
            or "invalid print parameters" in error.message.lower()
        ):
            raise Fault(
                "invalid_payload",
                "payload.pdf.margin: leaves no room on the page.",
                field="payload.pdf.margin",
            ) from error
        raise


async def _one_sheet(visit: Visit, paper: Paper) -> dict[str, str]:
    """As high as the page is when it is as wide as the sheet."""
    page, margin = visit.page, paper.margin
    wide = inches(paper.width) if paper.width is not None else _WIDTHS[paper.format]
    inner = (wide - inches(margin.left) - inches(margin.right)) / paper.scale
    await page.emulate_media(media="print")
    await page.set_viewport_size({"width": max(16, round(inner * 96)), "height": 720})
    await visit.settling.rest(everywhere=True)
    size = await ask(visit.line, scripts.DOCUMENT, Box)
    high = (size.height + 1) / 96 * paper.scale + inches(margin.top) + inches(margin.bottom)
    if high > _HIGHEST_INCHES:
        raise Fault("page_too_large", "The page is too high for a single sheet.")
    return {"width": f"{wide:.4f}in", "height": f"{high:.4f}in"}


# Inches, upright.
_WIDTHS = {"A0": 33.1, "A1": 23.4, "A2": 16.54, "A3": 11.7, "A4": 8.27, "A5": 5.83, "A6": 4.13,
           "Letter": 8.5, "Legal": 8.5, "Tabloid": 11, "Ledger": 17}  # fmt: skip


def measure(data: bytes) -> tuple[int, float, float]:
    """Pages, and the first one's size in points. Raises Fault `capture_failed` when it is no PDF."""
    try:
        reader = PdfReader(io.BytesIO(data))
        box = reader.pages[0].mediabox
        return len(reader.pages), round(float(box.width), 1), round(float(box.height), 1)
    except (PyPdfError, ValueError, KeyError, IndexError, RecursionError) as error:
        raise Fault("capture_failed", "The browser's PDF is empty or broken.", bytes=len(data)) from error


PDF = Kind("pdf", PdfOptions, _produce, lambda options: options.scroll, lambda _: True)
