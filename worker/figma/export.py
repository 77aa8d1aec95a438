"""`figma.export`: pictures of nodes, one artifact each."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from worker.computing import Rejected
from worker.figma.client import Api
from worker.figma.computing import PICTURE_SECONDS, compute
from worker.figma.download import DownloadFailed, Downloads, Expired
from worker.figma.faults import Fault, RateLimited, TooLarge
from worker.figma.gathering import end
from worker.figma.naming import file_names
from worker.figma.nodes import Node
from worker.figma.options import ExportOptions
from worker.figma.pictures import MIMES
from worker.figma.references import is_version
from worker.figma.rendering import Renderer
from worker.figma.results import Kind, counts_of, digest, fitting, item_of, judged, remarks_of
from worker.figma.sanitize import sanitize
from worker.figma.selection import Selection, choose
from worker.figma.shelf import Kept, Shelf, node_of, render_key, source_of
from worker.handlers import Context, Done, Earlier, File, Job

log = logging.getLogger(__name__)

_UPLOADS_AT_ONCE = 8
_LASTING = ("missing", "invisible", "empty")  # reasons that the same version gives again


async def export(options: ExportOptions, job: Job, context: Context, api: Api, downloads: Downloads) -> Done:
    """Raises Fault, RateLimited, and what the context's Storage raises."""
    return await _Export(options, job, context, api, downloads).run()


class _Export:
    def __init__(
        self, options: ExportOptions, job: Job, context: Context, api: Api, downloads: Downloads
    ) -> None:
        self._options = options
        self._job = job
        self._context = context
        self._api = api
        self._downloads = downloads
        self._key = options.reference.key
        self._prefix = f"{api.name}:{self._key}@"
        self._skipped: dict[str, dict[str, Any]] = {}
        self._uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)
        self._numbers = iter(range(1, 1_000_000))
        self._requests = 0

    async def run(self) -> Done:
        options = self._options
        self._version = await self._settle_version()
        self._source = f"{self._prefix}{self._version}"
        self._shelf = Shelf(self._source, self._context, self._job.checkpoint, len(options.kinds))
        await self._shelf.resume()
        earlier: list[Earlier] = []
        if self._version and not options.force:
            async with contextlib.aclosing(self._context.earlier(self._source)) as jobs:
                async for one in jobs:
                    if done := await self._same_again(one):
                        return done
                    earlier.append(one)
        params = {"version": self._version} if is_version(self._version) else {}
        selection = await self._choose(params)
        renders = [(node, kind) for node in selection.nodes for kind in options.kinds]
        names = file_names([(node, *kind) for node, kind in renders], options.name_template)
        self._names = {
            render_key(node.id, kind): name for (node, kind), name in zip(renders, names, strict=True)
        }
        self._shelf.total = len(selection.nodes) + len(selection.missing)
        self._skip_what_has_no_picture(selection)
        await self._take_over(earlier, renders)
        await self._shelf.report("export")
        async with self._shelf.reporting("export"):
            await self._make([(node, kind) for node, kind in renders if self._is_open(node.id, kind)], params)
        await self._shelf.report("done")
        pinned = bool(params) or not self._version
        moved = not pinned and await self._api.version(self._key) != self._version
        return self._conclude(renders, moved=moved)

    async def _settle_version(self) -> str:
        """One version for all attempts: the payload's, that of an earlier attempt, or the present one."""
        if version := self._options.reference.version:
            return version
        settled = source_of(self._job.checkpoint) or ""
        if settled.startswith(self._prefix) and settled != self._prefix:
            return settled.removeprefix(self._prefix)
        return await self._api.version(self._key)

    async def _choose(self, params: dict[str, Any]) -> Selection:
        try:
            return await choose(self._api, self._key, self._options, params)
        except Fault as fault:
            # Whether Figma takes every version that it names as a parameter is not documented.
            pinned_by_us = self._options.reference.version is None and params
            if not (pinned_by_us and fault.code in ("figma_bad_request", "figma_not_found")):
                raise
            params.clear()
            return await choose(self._api, self._key, self._options, params)

    def _is_open(self, node_id: str, kind: Kind) -> bool:
        key = render_key(node_id, kind)
        return key not in self._shelf.kept and key not in self._skipped

    def _skip_what_has_no_picture(self, selection: Selection) -> None:
        for node_id in selection.missing:
            for kind in self._options.kinds:
                self._skip(node_id, kind, "missing")
        for node in selection.nodes:
            for kind in self._options.kinds if node.hidden else ():
                self._skip(node.id, kind, "invisible")

    def _skip(self, node_id: str, kind: Kind, reason: str) -> None:
        """Raises Fault where the payload wants everything or nothing."""
        skipped = {"nodeId": node_id, "format": kind[0], "scale": kind[1], "reason": reason}
        self._skipped[render_key(node_id, kind)] = skipped
        self._shelf.skipped.add(render_key(node_id, kind))
        if self._options.on_missing == "fail":
            code = {"render_timeout": "figma_render_timeout", "bad_image": "figma_bad_image",
                    "download_failed": "figma_download_failed"}.get(reason, "figma_node_missing")  # fmt: skip
            raise Fault(code, f"Node {node_id} gives no picture: {reason}.", **skipped)

    async def _take_over(self, earlier: Sequence[Earlier], renders: list[tuple[Node, Kind]]) -> None:
        """Shares what earlier jobs made of this version with these options."""
        made: dict[str, Kept] = {}
        for one in reversed(earlier):
            if one.result.get("renderOptions") == self._render_options():
                files = {file.name: file for file in one.files}
                for item in one.result.get("items", ()):
                    if file := files.get(item["artifact"]):
                        made[render_key(item["nodeId"], (item["format"], item["scale"]))] = Kept(
                            file, remarks_of(item)
                        )
        wanted = {render_key(node.id, kind) for node, kind in renders if self._is_open(node.id, kind)}
        found = {key: (kept, self._names[key]) for key, kept in made.items() if key in wanted}
        await self._shelf.adopt(found, "fromCache")

    async def _same_again(self, earlier: Earlier) -> Done | None:
        """The very same job of the same version: its files and its result. None when a file is gone, or when
        something may go better this time."""
        result = earlier.result
        if result.get("plan") != self._plan():
            return None
        if any(entry["reason"] not in _LASTING for entry in result.get("skipped", ())):
            return None
        files, items = {file.name: file for file in earlier.files}, result.get("items", ())
        if not items or any(item["artifact"] not in files for item in items):
            return None
        keys = {
            item["artifact"]: render_key(item["nodeId"], (item["format"], item["scale"])) for item in items
        }
        self._shelf.skipped = {
            render_key(one["nodeId"], (one["format"], one["scale"])) for one in result["skipped"]
        }
        self._shelf.total = len({node_of(key) for key in (*keys.values(), *self._shelf.skipped)})
        missing = [name for name in keys if keys[name] not in self._shelf.kept]
        await self._shelf.adopt({keys[name]: (Kept(files[name]), name) for name in missing}, "fromCache")
        if any(key not in self._shelf.kept for key in keys.values()):
            return None
        await self._shelf.report("done")
        kept = [self._shelf.kept[keys[item["artifact"]]].file for item in items]
        again = {**result, "items": [{**item, "fromCache": True} for item in items]}
        for name in ("timings", "artifacts"):
            again.pop(name, None)
        again["counts"] = counts_of(again["items"], again["skipped"])
        return Done(again, tuple(kept))

    async def _make(self, wanted: list[tuple[Node, Kind]], params: Mapping[str, Any]) -> None:
        """Renders, downloads, checks and stores; twice for what may go better with a new address."""
        renderer = Renderer(self._api, self._key, {**params, **self._query()})
        failed: dict[str, str] = {}
        for last in (False, True):
            nodes = {node.id: node for node, _ in wanted}
            failed = await self._round(renderer, wanted, nodes)
            wanted = [(node, kind) for node, kind in wanted if render_key(node.id, kind) in failed]
            if not wanted or last:
                break
            log.info("%d pictures are asked for again", len(wanted))
        self._requests = renderer.requests
        for node, kind in wanted:
            reason = failed[render_key(node.id, kind)]
            if reason == "download_failed" and not self._job.last_attempt:
                raise Fault("figma_download_failed", "Some pictures could not be fetched.", nodeId=node.id)
            self._skip(node.id, kind, reason)

    async def _round(
        self, renderer: Renderer, wanted: list[tuple[Node, Kind]], nodes: Mapping[str, Node]
    ) -> dict[str, str]:
        """What failed, and why, by render key. What is on its way when Figma stops answering arrives."""
        failed: dict[str, str] = {}
        fetching: list[asyncio.Task[None]] = []

        async def fetch(node: Node, kind: Kind, url: str) -> None:
            if reason := await self._fetch(node, kind, url):
                failed[render_key(node.id, kind)] = reason

        try:
            try:
                async with contextlib.aclosing(renderer.render(wanted)) as batches:
                    async for rendered in batches:
                        kind = rendered.kind
                        for node_id in rendered.timed_out:
                            self._skip(node_id, kind, "render_timeout")
                        for node_id, url in rendered.urls.items():
                            if url is None:
                                failed[render_key(node_id, kind)] = "empty"
                            else:
                                fetching.append(asyncio.create_task(fetch(nodes[node_id], kind, url)))
            except (RateLimited, Fault):
                await asyncio.gather(*fetching)
                raise
            await asyncio.gather(*fetching)
        finally:
            await end(fetching)
        return failed

    async def _fetch(self, node: Node, kind: Kind, url: str) -> str | None:
        """Why there is no picture; None when it is stored."""
        path = self._context.folder() / f"{next(self._numbers)}.{kind[0]}"
        try:
            try:
                _, size = await self._downloads.fetch(url, path, kind[0])
                remarks = judged(node, kind, size)
                if "unexpectedSize" in remarks:  # another picture's bytes? Those that come again are true
                    _, size = await self._downloads.fetch(url, path, kind[0])
                    remarks = judged(node, kind, size)
            except Expired:
                return "download_failed"
            except DownloadFailed as error:
                log.warning("node %s: %s", node.id, error)
                return "bad_image" if error.bad else "download_failed"
            if kind[0] == "svg" and self._options.svg_sanitize:
                try:
                    removed = await compute(
                        self._api.computing, sanitize, path, seconds=PICTURE_SECONDS, share=path.parent
                    )
                except (Rejected, TooLarge) as error:
                    log.warning("node %s: %s", node.id, error)
                    return "bad_image"
                remarks = (*remarks, "sanitized") if removed else remarks
            key = render_key(node.id, kind)
            async with self._uploads:
                file = File(self._names[key], MIMES[kind[0]], path, size.width, size.height)
                stored = await self._context.store(file)
            self._shelf.keep(key, Kept(stored, remarks))
            return None
        finally:
            path.unlink(missing_ok=True)

    def _conclude(self, renders: Iterable[tuple[Node, Kind]], *, moved: bool) -> Done:
        """`moved`: the file was edited meanwhile, and no version was held: nobody may take these over."""
        items, files = [], []
        for node, kind in renders:
            if kept := self._shelf.kept.get(render_key(node.id, kind)):
                items.append(item_of(node, kind, kept))
                files.append(kept.file)
        skipped = list(self._skipped.values())
        if not items:
            raise Fault(
                "figma_nothing_exported",
                "Nothing of what was asked for gives a picture."
                if skipped
                else "The selection matches no node.",
                skipped=skipped[:100],
            )
        result = {
            "action": "figma.export",
            "file": self._key,
            "version": self._version,
            "source": None if moved or not self._version else self._source,
            "plan": self._plan(),
            "renderOptions": self._render_options(),
            "partial": bool(skipped),
            "items": items,
            "skipped": skipped,
            "counts": counts_of(items, skipped) | {"resumed": self._shelf.resumed},
            "renderRequests": self._requests,
        }
        if moved:
            result["editedMeanwhile"] = True
        return Done(fitting(result), tuple(files))

    def _plan(self) -> str:
        """The same for whatever asks for the same, however it names the file and its nodes."""
        options = self._options.model_dump(mode="json", exclude={"force", "file", "node_ids", "version"})
        return digest({**options, "nodes": self._options.wanted})

    def _render_options(self) -> str:
        return digest(self._options.render_options())

    def _query(self) -> dict[str, Any]:
        """What differs from Figma's own defaults."""
        options, query = self._options, dict[str, Any]()
        if not options.contents_only:
            query["contents_only"] = False
        if options.use_absolute_bounds:
            query["use_absolute_bounds"] = True
        if "svg" in options.formats:
            query["svg_outline_text"] = options.svg_outline_text
            query["svg_include_id"] = options.svg_include_id
            query["svg_simplify_stroke"] = options.svg_simplify_stroke
        return query
