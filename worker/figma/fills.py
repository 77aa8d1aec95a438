"""`figma.fills`: the pictures that people placed into a file, as they were uploaded."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from worker.figma.client import Api
from worker.figma.download import DownloadFailed, Downloads, Expired
from worker.figma.faults import Fault
from worker.figma.options import MOST_NODES, FillsOptions
from worker.figma.pictures import MIMES
from worker.handlers import Context, Done, File, Job, Stored

_UPLOADS_AT_ONCE = 8


async def fills(options: FillsOptions, job: Job, context: Context, api: Api, downloads: Downloads) -> Done:
    """Raises Fault, RateLimited, and what the context's Storage raises."""
    key = options.reference.key
    urls = await api.fills(key)
    wanted = await _wanted(options, key, api, urls)
    skipped = [{"imageRef": ref, "reason": "missing"} for ref in wanted if not urls.get(ref)]
    if skipped and options.on_missing == "fail":
        raise Fault("figma_node_missing", "The file has no such picture.", **skipped[0])
    uploading = asyncio.Semaphore(_UPLOADS_AT_ONCE)
    stored: dict[str, Stored] = {}

    async def one(ref: str, url: str) -> None:
        path = context.folder() / f"fill-{len(ref)}-{ref}"
        try:
            kind, size = await downloads.fetch(url, path)
            async with uploading:
                stored[ref] = await context.store(
                    File(f"{ref}.{kind}", MIMES[kind], path, size.width, size.height)
                )
        except (DownloadFailed, Expired) as error:
            if not job.last_attempt:
                raise Fault(
                    "figma_download_failed", "Some pictures could not be fetched.", imageRef=ref
                ) from error
            skipped.append({"imageRef": ref, "reason": "download_failed"})
        finally:
            path.unlink(missing_ok=True)
        await context.progress({"phase": "fills", "done": len(stored), "total": len(wanted)})

    tasks = [asyncio.create_task(one(ref, url)) for ref in wanted if (url := urls.get(ref))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not stored:
        raise Fault("figma_nothing_exported", "There is no picture to fetch.", skipped=skipped[:100])
    files = tuple(stored[ref] for ref in wanted if ref in stored)
    result = {
        "action": "figma.fills",
        "file": key,
        "partial": bool(skipped),
        "items": [{"imageRef": ref, "artifact": stored[ref].name} for ref in wanted if ref in stored],
        "skipped": skipped,
        "counts": {"exported": len(files), "skipped": len(skipped)},
    }
    return Done(result, files)


async def _wanted(options: FillsOptions, key: str, api: Api, urls: dict[str, Any]) -> list[str]:
    wanted = list(options.image_refs)
    if options.in_node_ids:
        params = {"version": options.reference.version} if options.reference.version else {}
        found = await api.nodes(key, list(dict.fromkeys(options.in_node_ids)), params)
        wanted += _references(found)
    elif not wanted:
        wanted = list(urls)
    wanted = list(dict.fromkeys(wanted))
    if len(wanted) > MOST_NODES:
        raise Fault(
            "invalid_payload",
            f"payload.imageRefs: the file has {len(wanted)} pictures; a job takes {MOST_NODES} at most.",
            field="payload.imageRefs",
        )
    return wanted


def _references(value: Any) -> Iterator[str]:
    """Every `imageRef` below, in fills and strokes alike; iterative, since files nest deeply."""
    waiting = [value]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            with contextlib.suppress(KeyError):
                yield str(entry["imageRef"])
            waiting.extend(reversed(list(entry.values())))
        elif isinstance(entry, list):
            waiting.extend(reversed(entry))
