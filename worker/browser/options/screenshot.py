"""What `browser.screenshot` may ask for."""

from typing import Any, Literal

from pydantic import Field

from worker.browser.options.page import MOST, Clip, PageOptions, Selector, Viewport
from worker.payloads import Model
from worker.uploads import object_names

FILE_NAME = r"^[^/\\\x00-\x1f]+$"
_ENDINGS = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}
_AREAS = ("full_page", "selector", "clip")
# What goes with one kind of area only: a shot that chooses its own area does not inherit it.
_OF_AREA = (*_AREAS, "padding", "max_height")
_OF_FORMAT = ("quality", "optimize_for_speed", "omit_background")


class PictureOptions(Model):
    """One picture of a page."""

    full_page: bool = False
    """The whole page, not the viewport."""
    max_height: int = Field(default=16_000, ge=16, le=60_000)
    """Where a full page is cut, in CSS pixels; the result then says truncated."""
    selector: Selector | None = None
    """Only the first element that matches."""
    padding: int = Field(default=0, ge=0, le=500)
    """Around the selector's element, in CSS pixels."""
    clip: Clip | None = None
    """Only this part: {x, y, width, height}."""
    format: Literal["png", "jpeg", "webp"] = "png"
    """The picture's file format."""
    quality: int = Field(default=80, ge=1, le=100)
    """Of a jpeg or webp: the higher, the larger."""
    optimize_for_speed: bool = True
    """A png is encoded faster and comes out larger."""
    omit_background: bool = False
    """What the page leaves open stays transparent; not in a jpeg."""
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=FILE_NAME)
    """The artifact's name."""

    def contradiction(self) -> tuple[str, str] | None:
        """The field that does not go with the others, and why."""
        given = self.model_fields_set
        if sum(map(bool, (self.full_page, self.selector is not None, self.clip is not None))) > 1:
            return "clip" if self.clip else "selector", "give one of fullPage, selector and clip"
        if "padding" in given and self.selector is None:
            return "padding", "needs selector"
        if "max_height" in given and not self.full_page:
            return "maxHeight", "needs fullPage"
        if "quality" in given and self.format == "png":
            return "quality", "does not go with format png"
        if "optimize_for_speed" in given and self.format != "png":
            return "optimizeForSpeed", "goes with format png only"
        if self.omit_background and self.format == "jpeg":
            return "omitBackground", "does not go with format jpeg"
        return None

    @property
    def whole(self) -> bool:
        """More than the view may be seen."""
        return self.full_page or self.selector is not None or self.clip is not None

    def file_name(self, usual: str = "screenshot") -> str:
        endings, name = _ENDINGS[self.format], self.name or usual
        return name if name.lower().endswith(endings) else name + endings[0]


class ShotOptions(PictureOptions):
    """One of several pictures of one load. What it does not say it takes from the job."""

    viewport: Viewport | None = None
    color_scheme: Literal["light", "dark", "no-preference"] | None = None
    media: Literal["screen", "print"] | None = None


class ScreenshotOptions(PictureOptions, PageOptions):
    """`browser.screenshot`."""

    scroll: bool | None = None
    """Scroll through the page first, for what loads late; a page that scrolls in a box of its own is
    unrolled."""
    mask: list[Selector] = Field(default=[], max_length=MOST)
    """Selectors covered with a plain colour."""
    shots: list[ShotOptions] = Field(default=[], max_length=10)
    """Several pictures of one load."""

    def contradiction(self) -> tuple[str, str] | None:
        for wrong in (PictureOptions.contradiction(self), PageOptions.contradiction(self)):
            if wrong is not None:
                return wrong
        if self.shots and "name" in self.model_fields_set:
            return "name", "goes with the single shots"
        taken: set[str] = set()
        for index, shot in enumerate(self.pictures if self.shots else ()):
            if wrong := shot.contradiction():
                return f"shots.{index}.{wrong[0]}", wrong[1]
            # As Storage will know it: two letters may become the same one there.
            (name,) = object_names([shot.file_name()])
            if name in taken:
                return f"shots.{index}.name", "is the same as that of an earlier shot, as files are named"
            taken.add(name)
        return None

    @property
    def pictures(self) -> tuple[PictureOptions, ...]:
        """All that are to be taken: the shots, or the one that the job describes."""
        return tuple(self._merged(index, shot) for index, shot in enumerate(self.shots, 1)) or (self,)

    @property
    def scrolls(self) -> bool:
        return any(picture.full_page for picture in self.pictures) if self.scroll is None else self.scroll

    def _merged(self, index: int, shot: ShotOptions) -> ShotOptions:
        own = {name: getattr(shot, name) for name in shot.model_fields_set}
        inherited = {
            name: getattr(self, name)
            for name in self.model_fields_set & set(PictureOptions.model_fields)
            if not (name in _OF_AREA and any(area in own for area in _AREAS))
            and not (name in _OF_FORMAT and "format" in own)
        }
        values: dict[str, Any] = {"name": f"screenshot-{index}", **inherited, **own}
        return ShotOptions.model_construct(_fields_set=set(values), **values)
