"""Takes the picture of a page at rest.

Over the protocol and not with the driver's own `screenshot`: that one knows neither `optimizeForSpeed`, which
saves a third of a picture's time, nor WebP.
"""

import asyncio
import base64
import contextlib
import math
import time
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page

from worker.browser import images, scripts
from worker.browser.asking import Answer, Box, Line, ask
from worker.browser.faults import Fault, invalid
from worker.browser.options.page import Clip
from worker.browser.options.screenshot import PictureOptions, ScreenshotOptions
from worker.browser.settling import present
from worker.browser.visit import Visit

# Device pixels a side: beyond, JPEG and WebP answer with 0 bytes and no error.
_LONGEST_SIDE = {"png": 60_000, "jpeg": 60_000, "webp": 16_383}
_MOST_PIXELS = 16_384 * 16_384
_RETRY_SECONDS = 2.0
_RETRY_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Picture:
    data: bytes
    width: int  # pixels, from the bytes
    height: int
    truncated: bool  # the page was larger than the picture may be


class _Placed(Answer):
    box: Box
    page: Box


@dataclass(frozen=True, slots=True)
class _Area:
    """What to show of the page."""

    clip: Clip | None = None  # CSS pixels; None: the view
    truncated: bool = False  # some of the page had to be left out
    in_view: bool = True  # cheaper: nothing has to be drawn that is not drawn already


async def take(visit: Visit, job: ScreenshotOptions, wished: PictureOptions, patience: float) -> Picture:
    """`patience`: seconds to look for the selector's element. Raises Fault: `capture_failed`,
    `selector_not_found`, `page_too_large`, `invalid_payload`."""
    area = await _area(visit, wished, patience)
    if job.mask:
        wrong = await ask(visit.line, scripts.MASK, int, job.mask)
        if wrong >= 0:
            raise invalid(f"mask.{wrong}", "is no CSS selector")
    data = await _shoot(visit, wished, area)
    width, height = await images.measured(data, wished.format)
    _check_result(visit, area.clip, width, height)
    return Picture(data, width, height, area.truncated)


async def _area(visit: Visit, options: PictureOptions, patience: float) -> _Area:
    page, scale = visit.page, visit.scale
    longest = _LONGEST_SIDE[options.format] / scale
    view = page.viewport_size or {"width": 0, "height": 0}
    if not options.whole:
        _check_size(Clip(x=0, y=0, width=view["width"], height=view["height"]), scale, longest)
        return _Area()
    if options.selector is not None:
        wished, whole = await _around(page, options, patience)
    else:
        whole = await _whole(visit)
        if options.clip is None:
            return _full(options, whole, scale, longest)
        wished = options.clip
        if wished.x >= whole.width or wished.y >= whole.height:
            raise invalid(
                "clip", f"lies outside the page, which has {whole.width:.0f} × {whole.height:.0f} pixels"
            )
    clip = _on_pixels(_inside(wished, whole), scale)
    _check_size(clip, scale, longest)
    across = whole.x <= clip.x and clip.x + clip.width <= whole.x + view["width"]
    down = whole.y <= clip.y and clip.y + clip.height <= whole.y + view["height"]
    return _Area(clip, in_view=across and down)


async def _whole(visit: Visit) -> Box:
    """The document, and where on it the view is."""
    with contextlib.suppress(Fault):
        box = await ask(visit.line, scripts.DOCUMENT, Box)
        if box.width > 0 and box.height > 0:
            return box
    metrics = await visit.line.send("Page.getLayoutMetrics")
    view, content = metrics["cssLayoutViewport"], metrics["cssContentSize"]
    width, height = max(view["clientWidth"], content["width"]), max(view["clientHeight"], content["height"])
    return Box(x=view["pageX"], y=view["pageY"], width=width, height=height)


def _full(options: PictureOptions, whole: Box, scale: float, longest: float) -> _Area:
    width, height = min(whole.width, int(longest)), min(whole.height, options.max_height, int(longest))
    clip = Clip(x=0, y=0, width=width, height=height)
    _check_size(clip, scale, longest)
    return _Area(clip, (width, height) != (whole.width, whole.height), in_view=False)


async def _around(page: Page, options: PictureOptions, patience: float) -> tuple[Clip, Box]:
    """The element with its margin, and the page."""
    element = await present(page, options.selector or "", "selector", patience)
    found = await ask(element, scripts.ELEMENT, _Placed)
    box, margin = found.box, options.padding
    if box.width <= 0 or box.height <= 0:
        raise Fault(
            "selector_not_found", "payload.selector finds an element without size.", field="payload.selector"
        )
    left, top = max(0.0, box.x - margin), max(0.0, box.y - margin)
    right, bottom = box.x + box.width + margin, box.y + box.height + margin
    if right <= 0 or bottom <= 0:
        raise Fault(
            "selector_not_found", "payload.selector finds an element off the page.", field="payload.selector"
        )
    return Clip(x=left, y=top, width=right - left, height=bottom - top), found.page


def _inside(area: Clip, whole: Box) -> Clip:
    width, height = min(area.width, whole.width - area.x), min(area.height, whole.height - area.y)
    return Clip(x=area.x, y=area.y, width=max(1, width), height=max(1, height))


def _on_pixels(area: Clip, scale: float) -> Clip:
    """Grown to whole device pixels, so that no edge is a mixture with what lies beside it."""
    left, top = math.floor(area.x * scale + 0.01), math.floor(area.y * scale + 0.01)
    right, bottom = (
        math.ceil((area.x + area.width) * scale - 0.01),
        math.ceil((area.y + area.height) * scale - 0.01),
    )
    return Clip(x=left / scale, y=top / scale, width=(right - left) / scale, height=(bottom - top) / scale)


def _check_size(area: Clip, scale: float, longest: float) -> None:
    if max(area.width, area.height) > longest or area.width * area.height * scale * scale > _MOST_PIXELS:
        raise Fault("page_too_large", "The picture would have too many pixels; ask for less of the page.")


def _check_result(visit: Visit, area: Clip | None, width: int, height: int) -> None:
    """The browser may have drawn another size than it was asked for."""
    view = visit.page.viewport_size or {"width": 0, "height": 0}
    wide, high = (area.width, area.height) if area is not None else (view["width"], view["height"])
    if abs(width - wide * visit.scale) > 1 or abs(height - high * visit.scale) > 1:
        raise Fault(
            "capture_failed", f"The browser drew {width} × {height} pixels, which is not what was asked for."
        )


async def _shoot(visit: Visit, options: PictureOptions, area: _Area) -> bytes:
    line = visit.line
    wished: dict[str, Any] = {"format": options.format}
    if options.format == "png":
        wished["optimizeForSpeed"] = options.optimize_for_speed
    else:
        wished["quality"] = options.quality
    if area.clip is not None:
        wished |= {"clip": {**area.clip.model_dump(), "scale": 1}, "captureBeyondViewport": not area.in_view}
    if area.clip is not None or visit.scale != 1:
        # A session knows no metrics but its own: without these the picture has the screen's scale, 1.
        metrics = {
            **(visit.page.viewport_size or {}),
            "deviceScaleFactor": visit.scale,
            "mobile": visit.mobile,
        }
        await line.send("Emulation.setDeviceMetricsOverride", **metrics)
    if options.omit_background:
        await line.send("Emulation.setDefaultBackgroundColorOverride", color={"r": 0, "g": 0, "b": 0, "a": 0})
    try:
        return await _captured(line, wished)
    finally:
        if options.omit_background:
            await line.send("Emulation.setDefaultBackgroundColorOverride")


async def _captured(line: Line, wished: dict[str, Any]) -> bytes:
    """Straight after the load Chromium sometimes has no frame yet ("Unable to capture screenshot"), and has
    one a moment later."""
    ends = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            answer = await line.send("Page.captureScreenshot", **wished)
            return base64.b64decode(answer["data"])
        except PlaywrightError as error:
            if "Unable to capture" not in error.message:
                raise
            if time.monotonic() >= ends:
                raise Fault("capture_failed", "The browser could not take the picture.") from error
        await asyncio.sleep(_RETRY_PAUSE_SECONDS)
