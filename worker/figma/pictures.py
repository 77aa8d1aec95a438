"""Files as they come from Figma: are they what they should be, whole, and how large?

Each check reads the file in pieces, so that memory does not grow with it.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

from PIL import Image

from worker.computing import Rejected

MIMES: Mapping[str, str] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "gif": "image/gif",
    "webp": "image/webp",
}
_PIECE = 65536
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (W3C PNG, 11.2.1)
_MOST_PIXELS = 200_000_000
_BROKEN = (
    struct.error,
    zlib.error,
    expat.ExpatError,
    EOFError,
    SyntaxError,
    ValueError,
    RecursionError,
    OverflowError,
)


# Pillow's own limit is lower than ours.
Image.MAX_IMAGE_PIXELS = None


class BadPicture(Rejected):
    """The bytes are not the file that was asked for."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_picture", message)

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Size:
    """Pixels; None where the format has none."""

    width: int | None
    height: int | None


def look(path: Path, kind: str | None) -> tuple[str, int | None, int | None]:
    """Kind, width and height of a whole file, of that kind or of whichever it is. Raises BadPicture."""
    found = kind_of(path) if kind is None else kind
    size = check(path, found)
    return found, size.width, size.height


def check(path: Path, kind: str) -> Size:
    """Raises BadPicture. Runs in a child: see worker.computing."""
    try:
        with path.open("rb") as file:
            return _CHECKS[kind](file)
    except _BROKEN as error:
        raise BadPicture(f"it is no whole {kind}") from error
    except OSError as error:  # Pillow's word for a broken file
        if error.errno is not None:
            raise
        raise BadPicture(f"it is no whole {kind}") from error


def kind_of(path: Path) -> str:
    """What a file is by its first bytes. Raises BadPicture."""
    with path.open("rb") as file:
        head = file.read(16)
    for kind, begins in (
        ("png", _PNG_SIGNATURE),
        ("jpg", b"\xff\xd8\xff"),
        ("gif", b"GIF8"),
        ("pdf", b"%PDF-"),
    ):
        if head.startswith(begins):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    raise BadPicture("it is no picture")


def _png(file: BinaryIO) -> Size:
    """Every chunk's checksum, and every row of pixels inflated (W3C PNG, 5 and 10)."""
    if file.read(8) != _PNG_SIGNATURE:
        raise BadPicture("it is no png")
    width = height = expected = inflated = 0
    pixels = zlib.decompressobj()
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        checksum, left = zlib.crc32(kind), length
        if kind == b"IHDR":
            head = file.read(length)
            checksum, left = zlib.crc32(head, checksum), 0
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
            if not 0 < width * height <= _MOST_PIXELS or colour not in _PNG_CHANNELS:
                raise BadPicture("its size is none")
            row = (width * depth * _PNG_CHANNELS[colour] + 7) // 8 + 1
            expected = 0 if interlaced else row * height
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise BadPicture("it is cut off")
            checksum, left = zlib.crc32(piece, checksum), left - len(piece)
            while kind == b"IDAT" and piece:
                inflated += len(pixels.decompress(piece, 1 << 20))
                piece = pixels.unconsumed_tail
        if struct.unpack(">I", file.read(4))[0] != checksum:
            raise BadPicture("its bytes are damaged")
        if kind == b"IEND":
            break
    if not inflated or not pixels.eof or (expected and inflated != expected):
        raise BadPicture("it lacks pixels")
    return Size(width, height)


def _pillow(name: str) -> Callable[[BinaryIO], Size]:
    def measure(file: BinaryIO) -> Size:
        with Image.open(file, formats=[name]) as image:
            size = image.size
            if size[0] * size[1] > _MOST_PIXELS:
                raise BadPicture("it has too many pixels")
            image.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8)))  # JPEG: reads all, keeps little
            image.load()
        return Size(*size)

    return measure


def _svg(file: BinaryIO) -> Size:
    """Well-formed, an svg at its root, and without declarations of its own."""
    roots: list[tuple[str, dict[str, str]]] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        if not roots:
            roots.append((name, attributes))

    def doctype(_name: str, _system: str | None, _public: str | None, declares: bool) -> None:
        if declares:  # what stands outside is never fetched
            raise BadPicture("it declares entities")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = doctype
    parser.ParseFile(file)
    name, attributes = roots[0]
    if name.rpartition(" ")[2] != "svg":
        raise BadPicture("it is no svg")
    return Size(_length(attributes.get("width")), _length(attributes.get("height")))


def _length(text: str | None) -> int | None:
    try:
        pixels = round(float((text or "").removesuffix("px")))
    except (ValueError, OverflowError):
        return None
    return pixels if 0 < pixels < 2**31 else None


def _pdf(file: BinaryIO) -> Size:
    """Begins and ends as a PDF does (ISO 32000-1, 7.5)."""
    head = file.read(8)
    end = file.seek(0, 2)
    file.seek(max(0, end - 2048))
    if not head.startswith(b"%PDF-") or b"%%EOF" not in (tail := file.read()) or b"startxref" not in tail:
        raise BadPicture("it is no whole pdf")
    return Size(None, None)


_CHECKS: Mapping[str, Callable[[BinaryIO], Size]] = {
    "png": _png,
    "jpg": _pillow("JPEG"),
    "svg": _svg,
    "pdf": _pdf,
    "gif": _pillow("GIF"),
    "webp": _pillow("WEBP"),
}
