"""A file's JSON: put together from its pages, counted, compressed. Runs in a child: see worker.computing."""

import contextlib
import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.computing import Rejected
from worker.figma.picks import parse, shaping, word

_COUNTED_BYTES = 64 * 1024 * 1024  # a larger file is not read into memory to be counted
_HEAD = ("name", "version", "lastModified", "editorType")
_TABLES = ("components", "componentSets", "styles")


def assemble(head: Path, parts: Sequence[tuple[str, Path]], target: Path) -> None:
    """Writes one file of a head and of its pages, one after the other, and removes those. Raises Rejected."""
    file = parse(head.read_bytes())
    with shaping(), target.open("w", encoding="utf-8", errors="replace") as out:
        document = file["document"]
        pages = {str(page["id"]): page for page in document.pop("children")}
        out.write('{"document":' + json.dumps(document, ensure_ascii=False).removesuffix("}"))
        out.write(', "children":[' if document else '"children":[')
        for number, (page_id, part) in enumerate(parts):
            entry = (parse(part.read_bytes()).get("nodes") or {}).get(page_id)
            page = pages[page_id]
            if isinstance(entry, dict) and isinstance(entry.get("document"), dict):
                page = entry["document"]
                for table in _TABLES:
                    file.setdefault(table, {}).update(entry.get(table) or {})
            out.write(("," if number else "") + json.dumps(page, ensure_ascii=False))
            part.unlink()
        out.write("]}")
        for name, value in file.items():
            if name != "document":
                out.write(f",{json.dumps(name, ensure_ascii=False)}:{json.dumps(value, ensure_ascii=False)}")
        out.write("}")
    head.unlink()


def pack(plain: Path, packed: Path) -> dict[str, Any]:
    """Compresses a file; returns what it is called and how much it holds. Raises Rejected."""
    with plain.open("rb") as source, gzip.GzipFile(packed, "wb", compresslevel=6, mtime=0) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    size = plain.stat().st_size
    if size > _COUNTED_BYTES:
        return {"bytes": size}
    try:
        file = json.loads(plain.read_bytes())
    except (RecursionError, MemoryError):  # too much for us, not for whom it is meant
        return {"bytes": size}
    except ValueError as error:
        raise Rejected("no_json", "answered what is no JSON") from error
    if not isinstance(file, dict):
        raise Rejected("no_json", "answered JSON of another shape")
    counts = {name: len(file.get(name) or ()) for name in _TABLES}
    facts = {name: word(file[name]) for name in _HEAD if name in file}
    return {**facts, "bytes": size, "counts": {"nodes": _nodes(file.get("document")), **counts}}


def _nodes(document: Any) -> int:
    count, waiting = 0, [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            count += 1
            with contextlib.suppress(TypeError):
                waiting.extend(node.get("children") or ())
    return count
