"""What counts as a picture, and what an SVG may keep."""

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from local.figma.pictures import chunk, draw, pdf, png
from worker.figma.naming import file_names
from worker.figma.nodes import Node
from worker.figma.pictures import BadPicture, Size, check, kind_of
from worker.figma.sanitize import sanitize


def pillow(name: str, mode: str, **options: object) -> bytes:
    output = io.BytesIO()
    Image.frombytes(mode, (33, 17), os.urandom(33 * 17 * len(mode))).save(output, name, **options)
    return output.getvalue()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("png", png(33, 17, (9, 8, 7), "x")),
        *(("png", pillow("PNG", mode)) for mode in ("RGB", "RGBA", "L")),
        ("jpg", pillow("JPEG", "RGB")),
        ("jpg", pillow("JPEG", "RGB", progressive=True)),
        ("svg", draw("svg", 33, 17, (1, 1, 1), "x")),
        ("gif", pillow("GIF", "L")),
        ("webp", pillow("WEBP", "RGB")),
    ],
)
def test_a_whole_file_passes_and_half_of_it_does_not(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert check(path, kind) == Size(33, 17)
    assert kind == "svg" or kind_of(path) == kind
    for part in (data[: len(data) // 2], data[:-8], b"", b"<!doctype html><h1>no"):
        path.write_bytes(part)
        with pytest.raises(BadPicture):
            check(path, kind)


def test_a_pdf_has_a_beginning_and_an_end(tmp_path: Path) -> None:
    path, data = tmp_path / "file", pdf(33, 17, (1, 1, 1), "x")
    path.write_bytes(data)
    assert check(path, "pdf") == Size(None, None)
    path.write_bytes(data[:-20])
    with pytest.raises(BadPicture):
        check(path, "pdf")


@pytest.mark.parametrize("at", [20, 40, 60, 80])
def test_a_png_with_one_wrong_bit_is_refused(tmp_path: Path, at: int) -> None:
    data = bytearray(png(64, 64, (9, 8, 7), "label"))
    data[at] ^= 1
    (tmp_path / "file").write_bytes(bytes(data))
    with pytest.raises(BadPicture):
        check(tmp_path / "file", "png")


def test_a_png_that_lacks_rows_is_refused_however_good_its_checksums(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 31 * 9)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(BadPicture):
        check(tmp_path / "file", "png")


BOMB = '<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>'
SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def test_an_svg_may_name_the_document_type_that_all_have(tmp_path: Path) -> None:
    doctype = (
        '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'
    )
    (tmp_path / "file").write_text(f'<?xml version="1.0"?>{doctype}<svg {SVG} width="3" height="2"/>')
    assert check(tmp_path / "file", "svg") == Size(3, 2)


def test_a_picture_that_unpacks_to_more_than_memory_is_refused(tmp_path: Path) -> None:
    head = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0"
    (tmp_path / "file").write_bytes(head + b"\x2c" + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\x02\0;")
    with pytest.raises(BadPicture):
        check(tmp_path / "file", "gif")


def test_names_of_nodes_deep_in_instances_stay_short_and_apart() -> None:
    deep = ["I" + ";".join(f"{n}:{n}" for n in range(100, 125)) + f";9:{end}" for end in range(2)]
    found = file_names([(Node(node, "x" * 200, "FRAME"), "png", 1.0) for node in deep], "{name}.{ext}")
    assert len(set(found)) == 2
    assert all(len(name.encode()) <= 124 and name.startswith("xx") for name in found)


def test_an_svg_with_entities_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(BOMB)
    with pytest.raises(BadPicture):
        check(tmp_path / "file", "svg")


@pytest.mark.parametrize(
    "harm",
    [
        "<script>alert(1)</script>",
        '<g><script href="data:text/javascript,alert(1)"/></g>',
        '<rect onclick="alert(1)"/>',
        '<rect ONLOAD="alert(1)"/>',
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'><img/></body></foreignObject>",
        '<image href="https://alert.example/x.png"/>',
        '<image xlink:href="data:image/svg+xml;base64,alert"/>',
        '<use xlink:href="https://alert.example/x.svg#a"/>',
        '<a href="java&#10;script:alert(1)"><rect/></a>',
        "<style>@import url(https://alert.example/x.css);</style>",
        "<style>@\\69mport 'https://alert.example/x.css';</style>",
        "<style>rect { fill: u/**/rl(https://alert.example/x) }</style>",
        '<rect style="fill: url( https://alert.example/x )"/>',
        "<rect fill=\"url('//alert.example/x')\"/>",
        '<g><set attributeName="href" to="javascript:alert(1)"/></g>',
        '<g><animate attributeName="xlink:href" values="javascript:alert(1)"/></g>',
    ],
)
def test_harm_is_taken_out_of_an_svg(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "file"
    path.write_text(f'<svg {SVG}>{harm}<path id="kept" d="M0 0"/></svg>')
    assert sanitize(path)
    assert "alert" not in path.read_text()
    assert 'id="kept"' in path.read_text()
    assert not sanitize(path), "once is enough"


def test_a_harmless_svg_stays_byte_for_byte(tmp_path: Path) -> None:
    text = (
        f'<svg {SVG}  width="1"><defs><linearGradient id="a"/></defs><rect fill="url(#a)"/>'
        '<use xlink:href="#a"/><image href="data:image/png;base64,AAAA"/></svg>'
    )
    (tmp_path / "file").write_text(text)
    assert not sanitize(tmp_path / "file")
    assert (tmp_path / "file").read_text() == text


layer_names = st.lists(st.text(max_size=40) | st.sampled_from(["a", "A", "a-1-0", "..", "con"]), max_size=8)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(layer_names, st.sampled_from(["{name}.{ext}", "{page}/{name}", "x", "{name}{scaleSuffix}.{ext}"]))
def test_no_two_files_have_one_name_and_none_is_too_long(names: list[str], template: str) -> None:
    nodes = [Node(f"1:{number}", name, "FRAME", page="P") for number, name in enumerate(names)]
    renders = [
        (node, kind, scale) for node in nodes for kind, scale in (("png", 1.0), ("png", 2.0), ("svg", 1.0))
    ]
    found = file_names(renders, template)
    assert len({name.casefold() for name in found}) == len(renders)
    assert all(0 < len(name.encode()) <= 255 and "/" not in name for name in found)
    assert all(name.endswith((".png", ".svg")) and not name.startswith(".") for name in found)
