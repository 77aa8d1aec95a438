"""Files to Storage: where an object lies, what it may be called, and the artifact row that says so."""

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from worker.handlers import File, Job
from worker.project import Project
from worker.retry import persistently

MAX_BYTES = 256 * 1024 * 1024
_LONGEST_NAME = 200
# What Storage takes in a key (supabase/storage, src/storage/limits.ts, isValidKey), but for `?`.
_NOT_TAKEN = re.compile(r"[^A-Za-z0-9_!\-.*'() &$@=;:+,]")


class TooLarge(Exception):
    """A file is larger than an artifact may be."""


def object_names(names: Iterable[str]) -> list[str]:
    """The names reduced to what Storage takes, all different. The same names always give the same answer."""
    reduced: list[str] = []
    for name in names:
        letters = [
            letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter)
        ]
        plain = _NOT_TAKEN.sub("_", unicodedata.normalize("NFC", "".join(letters))).strip(" ")
        stem, dot, extension = plain.rpartition(".")
        if not dot or not 0 < len(extension) <= 16:
            stem, dot, extension = plain, "", ""
        stem = stem[: _LONGEST_NAME - len(dot + extension)].strip(".") or "file"
        candidate, number = f"{stem}{dot}{extension}", 2
        while candidate in reduced:
            candidate, number = f"{stem}-{number}{dot}{extension}", number + 1
        reduced.append(candidate)
    return reduced


def object_path(job: Job, name: str) -> str:
    """The same for every try of one attempt: its day is that of the claim, in UTC."""
    return f"{job.workspace_id}/{job.claimed_at:%Y/%m/%d}/{job.id}/{job.attempt}/{name}"


async def store(project: Project, job: Job, files: tuple[File, ...]) -> tuple[dict[str, Any], ...]:
    """Uploads all, each a few times if need be; returns the artifact rows. Raises TooLarge, Unreachable,
    Refused, OSError."""
    rows = []
    for file, name in zip(files, object_names(file.name for file in files), strict=True):
        size, digest = await asyncio.to_thread(_measure, file.content)
        if size > MAX_BYTES:
            raise TooLarge(f"{file.name[:100]!r} has {size} bytes; an artifact has {MAX_BYTES} at most.")
        path = object_path(job, name)
        await persistently(partial(project.upload, path, file.content, file.mime))
        row = {
            "name": file.name,
            "mime": file.mime,
            "size": size,
            "sha256": digest,
            "bucket": "artifacts",
            "path": path,
        }
        rows.append(
            row | {key: value for key in ("width", "height") if (value := getattr(file, key)) is not None}
        )
    return tuple(rows)


def _measure(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return content.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()
