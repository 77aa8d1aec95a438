"""Files to Storage: where an object lies, what it may be called, and the artifact row that says so."""

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from worker.handlers import File, FileTooLarge, Job, Stored
from worker.project import Project
from worker.retry import persistently

MAX_BYTES = 256 * 1024 * 1024
_LONGEST_NAME = 200
# What Storage takes in a key (supabase/storage, src/storage/limits.ts, isValidKey), but for `?`.
_NOT_TAKEN = re.compile(r"[^A-Za-z0-9_!\-.*'() &$@=;:+,]")


def object_names(names: Iterable[str]) -> list[str]:
    """The names reduced to what Storage takes, all different. The same names always give the same answer."""
    taken: set[str] = set()
    return [_reduced(name, taken) for name in names]


def _reduced(name: str, taken: set[str]) -> str:
    letters = [letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter)]
    plain = _NOT_TAKEN.sub("_", unicodedata.normalize("NFC", "".join(letters))).strip(" ")
    plain = re.sub(r"\.{2,}", ".", plain)  # two dots are refused wherever they stand
    stem, dot, extension = plain.rpartition(".")
    if not dot or not 0 < len(extension) <= 16:
        stem, dot, extension = plain, "", ""
    stem = stem[: _LONGEST_NAME - len(dot + extension)].strip(".") or "file"
    candidate, number = f"{stem}{dot}{extension}", 2
    while candidate in taken:
        candidate, number = f"{stem}-{number}{dot}{extension}", number + 1
    taken.add(candidate)
    return candidate


def object_path(job: Job, name: str) -> str:
    """The same for every try of one attempt: its day is that of the claim, in UTC."""
    return f"{job.workspace_id}/{job.claimed_at:%Y/%m/%d}/{job.id}/{job.attempt}/{name}"


class Shelf:
    """One attempt's folder in Storage. Every name that it gives out is taken from then on."""

    def __init__(self, project: Project, job: Job) -> None:
        self._project = project
        self._job = job
        self._taken: set[str] = set()

    async def store(self, file: File) -> Stored:
        """Uploads a file, a few times if need be. Raises FileTooLarge, Unreachable, Refused, OSError."""
        path = self._place(file.name)
        size, digest = await asyncio.to_thread(_measure, file.content)
        if size > MAX_BYTES:
            raise FileTooLarge(f"{file.name[:100]!r} has {size} bytes; an artifact has {MAX_BYTES} at most.")
        await persistently(partial(self._project.upload, path, file.content, file.mime))
        return Stored(file.name, file.mime, size, digest, path, file.width, file.height)

    async def adopt(self, file: Stored, name: str) -> Stored | None:
        """The file under another name; None when it is gone. An artifact's is shared, what an earlier attempt
        has stored is the job's own already, and anything else is copied within Storage. Raises Unreachable,
        Refused."""
        if file.id or f"/{self._job.id}/" in file.path:
            return replace(file, name=name)
        path = self._place(name)
        found: list[bool] = []

        async def copy() -> None:
            found.append(await self._project.copy(file.path, path))

        await persistently(copy)
        return replace(file, name=name, path=path) if found[-1] else None

    async def store_all(self, files: Iterable[File | Stored]) -> tuple[Stored, ...]:
        """Uploads what is not stored yet. Raises as `store`."""
        return tuple([file if isinstance(file, Stored) else await self.store(file) for file in files])

    def _place(self, name: str) -> str:
        return object_path(self._job, _reduced(name, self._taken))


def row(file: Stored) -> dict[str, Any]:
    """The artifact row, as `finish_job` takes it."""
    if file.id:
        return {"name": file.name, "same_as": file.id}
    known = {key: value for key, value in asdict(file).items() if value is not None}
    return {**known, "bucket": "artifacts"}


def _measure(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return content.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()
