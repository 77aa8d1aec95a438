"""`figma.fills`: the pictures that people placed into a file, as they were uploaded."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from worker.figma.client import Api
from worker.figma.download import DownloadFailed, Downloads, Expired
from worker.figma.faults import Fault
from worker.figma.gathering import all_of
from worker.figma.options import MOST_NODES, FillsOptions
from worker.figma.picks import pick_references
from worker.figma.pictures import MIMES
from worker.figma.results import counts_of
from worker.figma.shelf import Kept, Shelf
from worker.handlers import Context, Done, File, Job

log = logging.getLogger(__name__)

_UPLOADS_AT_ONCE = 8


async def fills(options: FillsOptions, job: Job, context: Context, api: Api, downloads: Downloads) -> Done:
    """Raises Fault, RateLimited, and what the context's Storage raises."""
    key = options.reference.key
    # A reference is a digest of the picture's bytes: it never becomes another picture.
    source = f"{api.name}:{key}"
    shelf = Shelf(source, context, job.checkpoint)
    await shelf.resume()
    urls = await api.fills(key)
    wanted = await _wanted(options, key, api, urls)
    shelf.total = len(wanted)
    skipped = {ref: "missing" for ref in wanted if not urls.get(ref)}
    _refuse(options, skipped)
    shelf.skipped = set(skipped)
    await _take_over(source, [ref for ref in wanted if ref not in skipped], context, shelf)
    await shelf.report("fills")
    async with shelf.reporting("fills"):
        open_refs = [ref for ref in wanted if ref not in skipped and ref not in shelf.kept]
        failed = await _fetch_all(open_refs, urls, context, downloads, shelf)
        if failed:  # addresses that have ended, or bytes that were cut off: once more
            failed = await _fetch_all(list(failed), await api.fills(key), context, downloads, shelf)
        late = [ref for ref, reason in failed.items() if reason == "download_failed"]
        if late and not job.last_attempt:
            raise Fault("figma_download_failed", "Some pictures could not be fetched.", imageRef=late[0])
        skipped |= failed
        shelf.skipped |= failed.keys()
        _refuse(options, failed)
    await shelf.report("done")
    return _conclude(key, source, wanted, shelf, skipped)


async def _take_over(source: str, refs: Sequence[str], context: Context, shelf: Shelf) -> None:
    """Shares what earlier jobs have fetched."""
    async with contextlib.aclosing(context.earlier(source)) as jobs:
        async for one in jobs:
            files = {file.name: file for file in one.files}
            have = {item["imageRef"]: files.get(item["artifact"]) for item in one.result["items"]}
            wanted = {ref: have.get(ref) for ref in refs if ref not in shelf.kept}
            await shelf.adopt(
                {ref: (Kept(file), file.name) for ref, file in wanted.items() if file}, "fromCache"
            )
            if all(ref in shelf.kept for ref in refs):
                break


async def _fetch_all(
    refs: Sequence[str], urls: dict[str, Any], context: Context, downloads: Downloads, shelf: Shelf
) -> dict[str, str]:
    """What failed, and why."""
    failed: dict[str, str] = {}
    uploading = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    async def one(ref: str) -> None:
        path, url = context.folder() / f"fill-{ref}", urls.get(ref)
        if not isinstance(url, str):
            failed[ref] = "missing"
            return
        try:
            kind, size = await downloads.fetch(url, path)
            async with uploading:
                file = File(f"{ref}.{kind}", MIMES[kind], path, size.width, size.height)
                shelf.keep(ref, Kept(await context.store(file)))
        except Expired:
            failed[ref] = "download_failed"
        except DownloadFailed as error:
            log.warning("picture %s: %s", ref, error)
            failed[ref] = "bad_image" if error.bad else "download_failed"
        finally:
            path.unlink(missing_ok=True)

    await all_of(one(ref) for ref in refs)
    return failed


def _refuse(options: FillsOptions, skipped: dict[str, str]) -> None:
    """Raises Fault where the payload wants everything or nothing."""
    if skipped and options.on_missing == "fail":
        ref, reason = next(iter(skipped.items()))
        code = {"bad_image": "figma_bad_image", "download_failed": "figma_download_failed"}.get(
            reason, "figma_node_missing"
        )
        raise Fault(code, f"There is no picture {ref}: {reason}.", imageRef=ref, reason=reason)


def _conclude(key: str, source: str, wanted: Sequence[str], shelf: Shelf, skipped: dict[str, str]) -> Done:
    found = {ref: shelf.kept[ref] for ref in wanted if ref in shelf.kept}
    told = [{"imageRef": ref, "reason": reason} for ref, reason in skipped.items()]
    if not found:
        raise Fault("figma_nothing_exported", "There is no picture to fetch.", skipped=told[:100])
    items = [
        {"imageRef": ref, "artifact": kept.file.name} | dict.fromkeys(kept.remarks, True)
        for ref, kept in found.items()
    ]
    result = {
        "action": "figma.fills",
        "file": key,
        "source": source,
        "partial": bool(told),
        "items": items,
        "skipped": told,
        "counts": counts_of(items, told) | {"resumed": shelf.resumed},
    }
    return Done(result, tuple(kept.file for kept in found.values()))


async def _wanted(options: FillsOptions, key: str, api: Api, urls: dict[str, Any]) -> list[str]:
    wanted = list(options.image_refs)
    if options.in_node_ids:
        params = {"version": options.reference.version} if options.reference.version else {}
        ids = list(dict.fromkeys(options.in_node_ids))
        found = await api.nodes(key, ids, params, pick_references)
        wanted += [ref for refs in found.values() for ref in refs or ()]
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
