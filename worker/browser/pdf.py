"""`browser.pdf`: a page on paper."""

import base64

from playwright.async_api import Error as PlaywrightError

from worker.browser import scripts
from worker.browser.asking import Box, ask
from worker.browser.budget import Budget
from worker.browser.computing import compute
from worker.browser.faults import Fault
from worker.browser.measuring import measure_pdf
from worker.browser.options.pdf import Paper, PdfOptions, inches
from worker.browser.visit import Visit
from worker.browser.work import Kind, Product
from worker.handlers import File

_PRINT_SECONDS = 60.0
_MEASURE_SECONDS = 20.0  # on a processor
_HIGHEST_INCHES = 200.0  # of a single page: as options.pdf has it


async def _produce(visit: Visit, options: PdfOptions, budget: Budget) -> Product:
    async with budget.stage(
        "capture", _PRINT_SECONDS, "page_hung", "The page does not let itself be printed."
    ):
        data = await _print(visit, options.pdf)
    pages, width, height = await compute(visit.computing, budget, measure_pdf, data, seconds=_MEASURE_SECONDS)
    facts = {"pages": pages, "pageWidthPt": width, "pageHeightPt": height}
    return Product(facts, (File(options.file_name, "application/pdf", data),))


async def _print(visit: Visit, paper: Paper) -> bytes:
    """Over the protocol: the driver's own `pdf` has the browser write a file, and reads it piece by piece."""
    width, height = await _sheet(visit, paper)
    try:
        answer = await visit.line.send(
            "Page.printToPDF",
            paperWidth=width,
            paperHeight=height,
            landscape=paper.landscape,
            **{f"margin{side.capitalize()}": inches(length) for side, length in paper.margin},
            printBackground=paper.print_background,
            preferCSSPageSize=paper.prefer_css_page_size,
            scale=paper.scale,
            displayHeaderFooter=paper.header_template is not None or paper.footer_template is not None,
            # An empty template would mean the browser's own: date, title, address.
            headerTemplate=paper.header_template or "<span></span>",
            footerTemplate=paper.footer_template or "<span></span>",
            pageRanges=paper.page_ranges or "",
            generateTaggedPDF=paper.tagged or paper.outline,
            generateDocumentOutline=paper.outline,
        )
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
    return base64.b64decode(answer["data"])


async def _sheet(visit: Visit, paper: Paper) -> tuple[float, float]:
    """Inches."""
    if paper.width is not None and paper.height is not None:
        return inches(paper.width), inches(paper.height)
    return await _one_sheet(visit, paper) if paper.single_page else _SIZES[paper.format]


async def _one_sheet(visit: Visit, paper: Paper) -> tuple[float, float]:
    """As high as the page is when it is as wide as the sheet."""
    page, margin = visit.page, paper.margin
    wide = inches(paper.width) if paper.width is not None else _SIZES[paper.format][0]
    inner = (wide - inches(margin.left) - inches(margin.right)) / paper.scale
    await page.emulate_media(media="print")
    await page.set_viewport_size({"width": max(16, round(inner * 96)), "height": 720})
    await visit.settling.rest(everywhere=True)
    size = await ask(visit.line, scripts.DOCUMENT, Box)
    high = (size.height + 1) / 96 * paper.scale + inches(margin.top) + inches(margin.bottom)
    if high > _HIGHEST_INCHES:
        raise Fault("page_too_large", "The page is too high for a single sheet.")
    return wide, high


_SIZES = {  # inches, upright but for the last
    "A0": (33.1, 46.8),
    "A1": (23.4, 33.1),
    "A2": (16.54, 23.4),
    "A3": (11.7, 16.54),
    "A4": (8.27, 11.7),
    "A5": (5.83, 8.27),
    "A6": (4.13, 5.83),
    "Letter": (8.5, 11),
    "Legal": (8.5, 14),
    "Tabloid": (11, 17),
    "Ledger": (17, 11),
}


PDF = Kind("pdf", PdfOptions, _produce, lambda options: options.scroll, lambda _: True)
