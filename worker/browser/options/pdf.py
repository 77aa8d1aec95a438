"""What `browser.pdf` may ask for."""

from typing import Annotated, Literal

from pydantic import Field

from worker.browser.options.page import PageOptions
from worker.browser.options.screenshot import FILE_NAME
from worker.browser.options.templates import loaded_by
from worker.payloads import Model

# A number is CSS pixels; 96 of them are an inch.
Length = (
    Annotated[str, Field(pattern=r"^\d{1,5}(\.\d{1,4})?(px|in|cm|mm)$")]
    | Annotated[float, Field(ge=0, le=20_000)]
)
_INCHES = {"px": 1 / 96, "in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4}
_LONGEST_INCHES = 200.0  # a side: what PDF readers take without a user unit (ISO 32000-1, annex C.2)
Template = Annotated[str, Field(max_length=20_000)]


def inches(length: str | float) -> float:
    if isinstance(length, str):
        return float(length[:-2]) * _INCHES[length[-2:]]
    return length / 96


class Margin(Model):
    top: Length = 0.0
    right: Length = 0.0
    bottom: Length = 0.0
    left: Length = 0.0


class Paper(Model):
    """The sheets, and what is on each of them."""

    format: Literal["A0", "A1", "A2", "A3", "A4", "A5", "A6", "Letter", "Legal", "Tabloid", "Ledger"] = "A4"
    """The size of the sheets."""
    width: Length | None = None
    """The sheets' width, with height and instead of format: "10cm", "5in", "80mm", "600px" or a number
    of CSS pixels."""
    height: Length | None = None
    """The sheets' height."""
    landscape: bool = False
    """The sheets lie on their side."""
    margin: Margin = Margin()
    """{top, right, bottom, left}, each a length."""
    print_background: bool = True
    """With background colours and pictures."""
    prefer_css_page_size: bool = False
    """The page's own @page size goes first."""
    scale: float = Field(default=1, ge=0.1, le=2)
    """How much larger than usual."""
    header_template: Template | None = None
    """HTML; classes date, title, url, pageNumber, totalPages are filled in. Needs a margin to stand in,
    and a font size. Loads nothing but data: addresses."""
    footer_template: Template | None = None
    """The same at the bottom of each sheet."""
    page_ranges: str | None = Field(
        default=None, max_length=200, pattern=r"^\s*\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*\s*$"
    )
    """Only these pages, such as 1-3, 7."""
    tagged: bool = False
    """With structure for screen readers."""
    outline: bool = False
    """With bookmarks from headings; implies tagged."""
    single_page: bool = False
    """One sheet, as high as the page."""


class PdfOptions(PageOptions):
    """`browser.pdf`."""

    pdf: Paper = Paper()
    """The sheets, see below."""
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=FILE_NAME)
    """The artifact's name."""
    scroll: bool = False
    """The same as for a screenshot."""

    def contradiction(self) -> tuple[str, str] | None:
        paper, given = self.pdf, self.pdf.model_fields_set
        if (paper.width is None) != (paper.height is None) and not paper.single_page:
            return "pdf.width" if paper.width is None else "pdf.height", "goes with its other side"
        if "format" in given and (paper.width is not None or paper.height is not None):
            return "pdf.format", "does not go with width and height"
        if paper.single_page and (
            paper.height is not None or paper.page_ranges is not None or paper.landscape
        ):
            return "pdf.singlePage", "does not go with height, landscape and pageRanges"
        for name, length in (("width", paper.width), ("height", paper.height)):
            if length is not None and not 0.1 <= inches(length) <= _LONGEST_INCHES:
                return f"pdf.{name}", "must be from 0.1 to 200 inches"
        for name, template in (("header", paper.header_template), ("footer", paper.footer_template)):
            if template is not None and (found := loaded_by(template)):
                return f"pdf.{name}Template", f"must load nothing but data: addresses, and has {found}"
        return super().contradiction()

    @property
    def file_name(self) -> str:
        name = self.name or "page"
        return name if name.lower().endswith(".pdf") else f"{name}.pdf"
