"""Pictures of an exact size, coloured by file, node and version: a swapped or stale one shows."""

import hashlib
import io
import struct
import zlib
from functools import lru_cache

from PIL import Image

Colour = tuple[int, int, int]


def colour(key: str, node: str, version: str) -> Colour:
    digest = hashlib.sha256(f"{key} {node} {version}".encode()).digest()
    return digest[0], digest[1], digest[2]


@lru_cache(maxsize=256)
def draw(kind: str, width: int, height: int, fill: Colour, label: str) -> bytes:
    match kind:
        case "png":
            return png(width, height, fill, label)
        case "jpg":
            output = io.BytesIO()
            Image.new("RGB", (width, height), fill).save(output, "JPEG", comment=label.encode())
            return output.getvalue()
        case "svg":
            return svg(width, height, fill, label)
    return pdf(width, height, fill, label)


def png(width: int, height: int, fill: Colour, label: str) -> bytes:
    """Eight bits a channel, the label as text (W3C PNG)."""
    rows = zlib.compress((b"\0" + bytes(fill) * width) * height, 1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"tEXt", b"Comment\0" + label.encode("latin-1", "replace")), (b"IDAT", rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def svg(width: int, height: int, fill: Colour, label: str) -> bytes:
    """With what somebody may have smuggled into a layer."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" onload="alert(1)"><!-- {label} -->'
        f'<rect width="{width}" height="{height}" fill="#{bytes(fill).hex()}"/>'
        '<script>alert(1)</script><a href="https://example.com/"><path d="M0 0h1v1z"/></a></svg>'
    ).encode()


def pdf(width: int, height: int, fill: Colour, label: str) -> bytes:
    """One page of that size in points (ISO 32000-1, 7.5)."""
    red, green, blue = (f"{channel / 255:.4f}" for channel in fill)
    stream = f"{red} {green} {blue} rg 0 0 {width} {height} re f".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {width} {height}]/Contents 4 0 R>>".encode(),
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
    ]
    output, offsets = f"%PDF-1.7\n%{label.encode('ascii', 'replace').decode()}\n".encode(), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(output))
        output += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(output)
    output += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return output + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
