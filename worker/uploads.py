"""Files to Storage: where an object lies, what it may be called, and the artifact row that says so."""

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from worker.handlers import File, FileTooLarge, Job, Stored
from worker.project import Project
from worker.retry import persistently
from worker.storable import clean_text

MAX_BYTES = 256 * 1024 * 1024
_LONGEST_NAME = 200
_MAX_OBJECT_NAME = 255  # with a number
_MAX_ROW_NAME = 255  # characters; supabase/migrations/…_create_artifacts.sql
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[ -~]{0,200})?")
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
    stem, extension = _parts(plain)
    stem = stem[: _LONGEST_NAME - len(extension)].strip(".") or "file"
    return _numbered(f"{stem}{extension}", taken, _MAX_OBJECT_NAME)


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
        path, mime = self._place(file.name), media_type(file.mime)
        size, digest = await asyncio.to_thread(_measure, file.content)
        if size > MAX_BYTES:
            raise FileTooLarge(f"{file.name[:100]!r} has {size} bytes; an artifact has {MAX_BYTES} at most.")
        await persistently(partial(self._project.upload, path, file.content, mime))
        return Stored(file.name, mime, size, digest, path, file.width, file.height)

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


def distinct(files: Iterable[Stored]) -> tuple[Stored, ...]:
    """The files with names that artifact rows take, all different: equal ones are numbered, in order, so that
    the same files always give the same answer."""
    taken: set[str] = set()
    return tuple(
        replace(
            file,
            name=_numbered(_row_name(file.name), taken, _MAX_ROW_NAME),
            mime=media_type(file.mime),
            width=_pixels(file.width),
            height=_pixels(file.height),
        )
        for file in files
    )


def media_type(mime: object) -> str:
    """As the artifacts table takes it; what it would refuse is any bytes."""
    return mime if isinstance(mime, str) and _MEDIA_TYPE.fullmatch(mime) else "application/octet-stream"


def _row_name(name: object) -> str:
    plain = re.sub(r"[\x00-\x1f]", " ", clean_text(name))
    if len(plain) > _MAX_ROW_NAME:
        stem, extension = _parts(plain)
        plain = stem[: _MAX_ROW_NAME - len(extension)] + extension
    return plain or "file"


def _pixels(count: object) -> int | None:
    whole = isinstance(count, int) and not isinstance(count, bool)
    return count if whole and 0 < count < 2**31 else None  # type: ignore[operator, return-value]


def _parts(name: str) -> tuple[str, str]:
    """Stem, and extension with its dot; a long one is none."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if dot and 0 < len(extension) <= 16 else (name, "")


def _numbered(name: str, taken: set[str], longest: int) -> str:
    """The name, or the first numbered one that is free; it is taken then."""
    stem, extension = _parts(name)
    candidate, number = name, 2
    while candidate in taken:
        ending = f"-{number}{extension}"
        candidate, number = stem[: longest - len(ending)] + ending, number + 1
    taken.add(candidate)
    return candidate


def _measure(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return content.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()
