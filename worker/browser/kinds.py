"""The types of browser jobs, and their handlers."""

from typing import Any

from worker.browser.content import CONTENT
from worker.browser.pdf import PDF
from worker.browser.screenshot import SCREENSHOT
from worker.browser.visit import Visitor
from worker.browser.work import BrowserWork, Kind
from worker.handlers import Handler

KINDS: tuple[Kind[Any], ...] = (SCREENSHOT, PDF, CONTENT)


def handlers(visitor: Visitor, force_success: bool = False) -> dict[str, Handler]:
    """By job type."""
    return {f"browser.{kind.action}": BrowserWork(kind, visitor, force_success).handle for kind in KINDS}
