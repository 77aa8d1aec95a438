"""`figma.file`: the JSON of a file, as Figma answers it, compressed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.computing import Rejected
from worker.figma.client import Api
from worker.figma.computing import compute
from worker.figma.download import Downloads
from worker.figma.faults import Fault, TooLarge
from worker.figma.options import FileOptions
from worker.figma.packing import assemble, pack
from worker.figma.picks import pick_page_ids
from worker.handlers import Context, Done, File, Job


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
    facts = await _computed(api, plain, pack, plain, packed)
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
    head, parts = target.with_name("head.json"), list[tuple[str, Path]]()
    await api.save(1, f"/v1/files/{key}", {**params, "depth": 1}, head)
    found = await _computed(api, target, pick_page_ids, head)
    kept = {name: value for name, value in params.items() if name == "geometry"}
    kept["version"] = params.get("version") or found["version"]
    if params.get("depth"):
        kept["depth"] = params["depth"]
    for number, page_id in enumerate(found["pages"]):
        part = target.with_name(f"page-{number}.json")
        await api.save(1, f"/v1/files/{key}/nodes", {**kept, "ids": page_id}, part)
        parts.append((page_id, part))
    await _computed(api, target, assemble, head, parts, target)


async def _computed(api: Api, target: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return await compute(api.computing, function, *arguments, share=target.parent)
    except Rejected as rejected:
        message = rejected.message if rejected.reason == "shape" else f"Figma {rejected.message}."
        raise Fault("figma_unavailable", message) from rejected
