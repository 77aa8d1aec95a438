"""`figma.file`: the JSON of a file, as Figma answers it, compressed."""

import asyncio
import contextlib
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

from worker.figma.client import Api, reading
from worker.figma.download import Downloads
from worker.figma.faults import Fault, TooLarge
from worker.figma.options import FileOptions
from worker.handlers import Context, Done, File, Job
from worker.storable import utf8

_COUNTED_BYTES = 64 * 1024 * 1024  # a larger file is not read into memory to be counted
_HEAD = ("name", "version", "lastModified", "editorType")


async def snapshot(
    options: FileOptions, _job: Job, context: Context, api: Api, _downloads: Downloads
) -> Done:
    """Raises Fault, RateLimited, OSError."""
    key, plain = options.reference.key, context.folder() / "file.json"
    params = _query(options)
    assembled = False
    try:
        await api.save(1, f"/v1/files/{key}", params, plain)
    except TooLarge:
        if options.node_ids:
            raise
        assembled = True
        await _by_pages(api, key, params, plain)
    await context.progress({"phase": "packing"})
    packed = plain.with_suffix(".json.gz")
    facts = await asyncio.to_thread(_pack, plain, packed)
    result = {"action": "figma.file", "file": key, "assembled": assembled, **facts}
    return Done(result, (File("file.json.gz", "application/gzip", packed),))


def _query(options: FileOptions) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "version": options.reference.version,
        "ids": ",".join(dict.fromkeys(options.node_ids)) or None,
        "depth": options.depth,
        "geometry": "paths" if options.geometry else None,
        "branch_data": True if options.branch_data else None,
    }
    return {name: value for name, value in asked.items() if value is not None}


async def _by_pages(api: Api, key: str, params: dict[str, Any], target: Path) -> None:
    """A file too large for one answer: its head, then page by page, put together as one answer would be."""
    file = await api.file(key, {**params, "depth": 1})
    pages = (file.get("document") or {}).get("children") or []
    kept = {name: value for name, value in params.items() if name == "geometry"}
    kept["version"] = params.get("version") or file.get("version") or ""
    if params.get("depth"):
        kept["depth"] = params["depth"]
    with reading():
        ids = [str(page["id"]) for page in pages]
    for index, page_id in enumerate(ids):
        entry = (await api.nodes(key, [page_id], kept)).get(page_id)
        if isinstance(entry, dict) and isinstance(entry.get("document"), dict):
            pages[index] = entry["document"]
            for table in ("components", "componentSets", "styles"):
                file.setdefault(table, {}).update(entry.get(table) or {})
    await asyncio.to_thread(lambda: target.write_bytes(utf8(json.dumps(file, ensure_ascii=False))))


def _pack(plain: Path, packed: Path) -> dict[str, Any]:
    with plain.open("rb") as source, gzip.GzipFile(packed, "wb", compresslevel=6, mtime=0) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    size = plain.stat().st_size
    if size > _COUNTED_BYTES:
        return {"bytes": size}
    try:
        file = json.loads(plain.read_bytes())
    except RecursionError:  # nested too deeply for us, not for whoever asked
        return {"bytes": size}
    except ValueError as error:
        raise Fault("figma_unavailable", "Figma answered what is no JSON.") from error
    if not isinstance(file, dict):
        raise Fault("figma_unavailable", "Figma answered JSON of another shape.")
    counts = {name: len(file.get(name) or ()) for name in ("components", "componentSets", "styles")}
    facts = {name: file[name] for name in _HEAD if name in file}
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
