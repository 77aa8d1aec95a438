"""Takes the picture of a page at rest."""

import asyncio
import base64
import logging
import time
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page

from worker.browser import images, scripts
from worker.browser.faults import Fault
from worker.browser.options import Clip, ScreenshotOptions, invalid
from worker.browser.visit import Visit, present

log = logging.getLogger(__name__)

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


async def take(visit: Visit, options: ScreenshotOptions, patience: float) -> Picture:
    """`patience`: seconds to look for the selector's element. Raises Fault: `capture_failed`,
    `selector_not_found`, `page_too_large`, `invalid_payload`."""
    area, truncated = await _area(visit.page, options, visit.scale, patience)
    if area is None and options.format == "png" and not options.optimize_for_speed:
        data = await _by_driver(visit.page, options, None)
    elif options.format == "webp" or (area is None and options.format == "png"):
        data = await _by_protocol(visit, options, area)
    else:
        data = await _by_driver(visit.page, options, area)
    width, height = await asyncio.to_thread(images.measure, data, options.format)
    return Picture(data, width, height, truncated)


async def _area(
    page: Page, options: ScreenshotOptions, scale: float, patience: float
) -> tuple[Clip | None, bool]:
    """What to show of the page in CSS pixels (None: the view), and whether some of it had to be left out."""
    longest = _LONGEST_SIDE[options.format] / scale
    if not options.full_page and options.selector is None and options.clip is None:
        view = page.viewport_size or {"width": 0, "height": 0}
        _check_size(Clip(x=0, y=0, width=view["width"], height=view["height"]), scale, longest)
        return None, False
    whole = await page.evaluate(scripts.DOCUMENT_SIZE)
    if options.full_page:
        width, height = (
            min(whole["width"], int(longest)),
            min(whole["height"], options.max_height, int(longest)),
        )
        area = Clip(x=0, y=0, width=width, height=height)
        _check_size(area, scale, longest)
        return area, (width, height) != (whole["width"], whole["height"])
    if options.clip is not None:
        if options.clip.x >= whole["width"] or options.clip.y >= whole["height"]:
            raise invalid(
                "clip", f"lies outside the page, which has {whole['width']} × {whole['height']} pixels"
            )
        wished = options.clip
    else:
        wished = await _around(page, options, patience)
    area = _inside(wished, whole)
    _check_size(area, scale, longest)
    return area, False


async def _around(page: Page, options: ScreenshotOptions, patience: float) -> Clip:
    element = await present(page, options.selector or "", "selector", patience)
    await element.scroll_into_view_if_needed()
    box = await element.evaluate(scripts.ELEMENT_BOX)
    margin = options.padding
    if box["width"] <= 0 or box["height"] <= 0:
        raise Fault(
            "selector_not_found", "payload.selector finds an element without size.", field="payload.selector"
        )
    left, top = max(0.0, box["x"] - margin), max(0.0, box["y"] - margin)
    right, bottom = box["x"] + box["width"] + margin, box["y"] + box["height"] + margin
    if right <= 0 or bottom <= 0:
        raise Fault(
            "selector_not_found", "payload.selector finds an element off the page.", field="payload.selector"
        )
    return Clip(x=left, y=top, width=right - left, height=bottom - top)


def _inside(area: Clip, whole: dict[str, Any]) -> Clip:
    width, height = min(area.width, whole["width"] - area.x), min(area.height, whole["height"] - area.y)
    return Clip(x=area.x, y=area.y, width=max(1, width), height=max(1, height))


def _check_size(area: Clip, scale: float, longest: float) -> None:
    if max(area.width, area.height) > longest or area.width * area.height * scale * scale > _MOST_PIXELS:
        raise Fault("page_too_large", "The picture would have too many pixels; ask for less of the page.")


async def _by_driver(page: Page, options: ScreenshotOptions, area: Clip | None) -> bytes:
    wished: dict[str, Any] = {
        "type": "jpeg" if options.format == "jpeg" else "png",
        "quality": options.quality if options.format == "jpeg" else None,
        "omit_background": options.omit_background,
        "animations": options.animations,
        "timeout": 0,  # the stage has a limit
    }
    if area is not None:
        wished |= {"clip": area.model_dump(), "full_page": True}
    return await page.screenshot(**wished)


async def _by_protocol(visit: Visit, options: ScreenshotOptions, area: Clip | None) -> bytes:
    """The driver knows neither `optimizeForSpeed` nor WebP. Straight after load Chromium sometimes has no
    frame yet ("Unable to capture screenshot"), and has one a moment later."""
    session = await visit.context.new_cdp_session(visit.page)
    if options.omit_background:
        await session.send(
            "Emulation.setDefaultBackgroundColorOverride", {"color": {"r": 0, "g": 0, "b": 0, "a": 0}}
        )
    wished: dict[str, Any] = {"format": options.format}
    if options.format == "png":
        wished["optimizeForSpeed"] = True
    else:
        wished["quality"] = options.quality
    if area is not None:
        wished |= {"clip": {**area.model_dump(), "scale": 1}, "captureBeyondViewport": True}
    if area is not None or visit.scale != 1:
        # A session knows no metrics but its own: without these the picture has the screen's scale, 1.
        metrics = {
            **(visit.page.viewport_size or {}),
            "deviceScaleFactor": visit.scale,
            "mobile": visit.mobile,
        }
        await session.send("Emulation.setDeviceMetricsOverride", metrics)
    ends = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            answer = await session.send("Page.captureScreenshot", wished)
            return base64.b64decode(answer["data"])
        except PlaywrightError as error:
            if "Unable to capture" not in error.message:
                raise
            if time.monotonic() >= ends:
                if options.format == "webp":
                    raise Fault("capture_failed", "The browser could not take the picture.") from error
                return await _by_driver(visit.page, options, area)
        await asyncio.sleep(_RETRY_PAUSE_SECONDS)
