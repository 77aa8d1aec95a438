"""Is a PDF one, and how many pages has it? Runs in a child: see worker.computing."""

import io
from typing import Any

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from worker.computing import Rejected


def measure_pdf(data: bytes) -> tuple[int, float, float]:
    """Pages, and the first one's size in points. Raises Rejected `capture_failed` when it is no PDF."""
    try:
        # `reader.pages` would read each of them first.
        tree: Any = PdfReader(io.BytesIO(data)).root_object["/Pages"]
        left, bottom, right, top = map(float, _first(tree)["/MediaBox"])
        return int(tree["/Count"]), round(right - left, 1), round(top - bottom, 1)
    except (PyPdfError, ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise Rejected("capture_failed", "The browser's PDF is empty or broken.") from error


def _first(tree: Any) -> Any:
    """The first page of a tree of pages."""
    return _first(tree["/Kids"][0].get_object()) if "/Kids" in tree else tree
