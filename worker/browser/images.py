"""Pictures as they come from the browser: whole, and how large?"""

import asyncio
import io

from PIL import Image

from worker.browser.faults import Fault

# Pillow refuses large pictures from strangers. These were limited before, and are no stranger's: a page, even
# one that took over its own process, chooses pixels and no bytes, which the browser's main process encodes.
# So they are looked at here and not in a child, to which they would have to be sent. Pillow reads the head,
# adds up checksums, and decodes nothing. Nothing here grows but with the file's length.
Image.MAX_IMAGE_PIXELS = None

MIMES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

# A pipeline that must go on gets this: 1×1, transparent.
TINY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d4944415478da63606060600000000500017aa857500000000049454e44ae426082"
)


_IN_PLACE_BYTES = 1024 * 1024  # larger ones are looked at in a thread, for some hundredths of a second


async def measured(data: bytes, image_format: str) -> tuple[int, int]:
    """As `measure`, without holding up other jobs."""
    if len(data) <= _IN_PLACE_BYTES:
        return measure(data, image_format)
    return await asyncio.to_thread(measure, data, image_format)


def measure(data: bytes, image_format: str) -> tuple[int, int]:
    """Width and height in pixels, read from the bytes. Raises Fault `capture_failed` if they are no such
    picture: Chromium answers one that it cannot encode with 0 bytes and no error."""
    try:
        with Image.open(io.BytesIO(data), formats=[image_format.upper()]) as image:
            size = image.size
            image.verify()
    except Exception as error:
        raise Fault("capture_failed", "The browser's picture is empty or broken.", bytes=len(data)) from error
    if image_format == "jpeg" and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise Fault("capture_failed", "The browser's picture is cut off.", bytes=len(data))
    return size
