"""What a job has stored so far, and how that survives an attempt: the job's checkpoint."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from worker.figma.gathering import all_of
from worker.figma.pictures import MIMES
from worker.handlers import Context, Stored

_MOST_BYTES = 240_000  # a checkpoint has 256 KiB at most
_PAUSE_SECONDS = 1.0  # between reports
_COPIES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored picture. `remarks` is what its item says besides: downscaled, fromCache, …"""

    file: Stored
    remarks: tuple[str, ...] = ()


class Shelf:
    """Pictures by key, which begins with the node's id. `report` tells progress, in nodes, and checkpoint,
    one report after the other."""

    def __init__(self, source: str, context: Context, checkpoint: Any, per_node: int = 1) -> None:
        """`per_node`: pictures that make a node done."""
        self.kept: dict[str, Kept] = {}
        self.skipped: set[str] = set()  # keys of what gives no picture
        self.total = 0  # nodes
        self._per_node = per_node
        self._source = source
        self._context = context
        self._lock = asyncio.Lock()
        self._changed = False
        self._left = _read(checkpoint) if source_of(checkpoint) == source else {}
        self.resumed = 0

    async def resume(self) -> None:
        """Takes up what an earlier attempt has stored: of this job, or of the failed one that it repeats."""
        await self.adopt({key: (kept, kept.file.name) for key, kept in self._left.items()})
        self.resumed = len(self.kept)

    async def adopt(self, files: Mapping[str, tuple[Kept, str]], remark: str | None = None) -> None:
        """Keeps files of other attempts and jobs, each under a name of its own; those that are gone are not
        kept."""
        free = asyncio.Semaphore(_COPIES_AT_ONCE)

        async def one(key: str, kept: Kept, name: str) -> None:
            async with free:
                file = await self._context.adopt(kept.file, name)
            if file is not None:
                more = (remark,) if remark else ()
                self.keep(key, Kept(file, tuple(dict.fromkeys((*kept.remarks, *more)))))

        await all_of(one(key, kept, name) for key, (kept, name) in files.items())

    def keep(self, key: str, kept: Kept) -> None:
        self.kept[key] = kept
        self._changed = True

    @asynccontextmanager
    async def reporting(self, phase: str) -> AsyncIterator[None]:
        """What the block keeps is reported as it goes, and once more when the block fails."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(_PAUSE_SECONDS)
                if self._changed:
                    await self.report(phase)

        telling = asyncio.create_task(tell())
        try:
            yield
        except Exception:
            await self.report("waiting")
            raise
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def report(self, phase: str) -> None:
        async with self._lock:
            self._changed = False
            settled = Counter(node_of(key) for key in (*self.kept, *self.skipped))
            done = sum(count >= self._per_node for count in settled.values())
            progress = {"phase": phase, "done": done, "total": self.total}
            await self._context.progress(progress, checkpoint=self._checkpoint())

    def _checkpoint(self) -> dict[str, Any]:
        folders: list[str] = []
        kept: dict[str, Any] = {}
        for key, entry in self.kept.items():
            if entry.file.id:
                continue  # the next attempt finds the earlier job again, or something better
            folder, _, name = entry.file.path.rpartition("/")
            if folder not in folders:
                folders.append(folder)
            file = entry.file
            digest = base64.b85encode(bytes.fromhex(file.sha256)).decode()
            kept[key] = [file.name, folders.index(folder), name, file.size, digest, file.width, file.height,
                         *entry.remarks]  # fmt: skip
        checkpoint = {"source": self._source, "folders": folders, "kept": kept}
        while kept and len(json.dumps(checkpoint)) > _MOST_BYTES:
            for key in list(kept)[len(kept) // 2 :]:  # half is better than none
                del kept[key]
        return checkpoint


def render_key(node_id: str, kind: tuple[str, float]) -> str:
    return f"{node_id}|{kind[0]}|{kind[1]:g}"


def node_of(key: str) -> str:
    return key.partition("|")[0]


def source_of(checkpoint: Any) -> str | None:
    """The source that an earlier attempt has settled on."""
    source = checkpoint.get("source") if isinstance(checkpoint, Mapping) else None
    return source if isinstance(source, str) else None


def _read(checkpoint: Mapping[str, Any]) -> dict[str, Kept]:
    kept = {}
    for key, (name, folder, stored_as, size, digest, width, height, *remarks) in checkpoint["kept"].items():
        path = f"{checkpoint['folders'][folder]}/{stored_as}"
        mime = MIMES[name.rpartition(".")[2]]
        sha256 = base64.b85decode(digest).hex()
        kept[key] = Kept(Stored(name, mime, size, sha256, path, width, height), tuple(remarks))
    return kept
