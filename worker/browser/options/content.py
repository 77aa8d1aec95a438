"""What `browser.content` may ask for."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from worker.browser.options.page import PageOptions, Selector
from worker.browser.options.screenshot import FILE_NAME

Part = Literal["html", "text", "markdown", "links", "metadata"]
PARTS: tuple[Part, ...] = get_args(Part)


class ContentOptions(PageOptions):
    """`browser.content`."""

    format: Part | Annotated[list[Part], Field(min_length=1, max_length=len(PARTS))] = "html"
    """One, or a list of them: an artifact for each."""
    selector: Selector | None = None
    """Only the first element that matches."""
    scroll: bool = False
    """The same as for a screenshot."""
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=FILE_NAME)
    """The artifacts' name, without its ending."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.format,) if isinstance(self.format, str) else tuple(dict.fromkeys(self.format))
