"""A Figma of the tests' own, the handlers on it, and a Storage in a folder."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from local.figma.documents import proven_case
from local.figma.server import serving
from local.figma.world import TOKEN, World
from tests.worker.pools import computing
from worker.figma.client import Access
from worker.figma.jobs import Figma
from worker.figma.limiter import Limiter
from worker.handlers import Context, Done, Earlier, File, GiveUp, Job, Outcome, RetryLater, Stored

KEY = "u9VG9NhC6C8hVJYx8o9rpS"
MINUTE = 1.0  # seconds, on both sides


@dataclass
class Storage:
    """What a workspace has stored: bytes by path, jobs that succeeded, and what was reported."""

    objects: dict[str, bytes] = field(default_factory=dict)
    earlier: list[Earlier] = field(default_factory=list)
    progress: list[Mapping[str, Any]] = field(default_factory=list)
    checkpoint: Any = None
    copies: int = 0
    shares: int = 0
    read: int = 0  # earlier jobs
    uploads: int = 0
    fail_after: int | None = None  # uploads, then the process is as good as dead
    attempt: int = 0
    job: int = 1

    def context(self, folder: Path) -> Context:
        self.attempt += 1
        attempt = self.attempt

        async def report(values: Mapping[str, Any], checkpoint: Any = None) -> None:
            self.progress.append(values)
            if checkpoint is not None:
                self.checkpoint = json.loads(json.dumps(checkpoint))  # as the database keeps it

        async def store(file: File) -> Stored:
            await asyncio.sleep(0)
            if self.fail_after is not None and self.uploads >= self.fail_after:
                raise asyncio.CancelledError
            self.uploads += 1
            data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            return self._put(attempt, file.name, data, file.mime, file.width, file.height)

        async def earlier(source: str) -> AsyncGenerator[Earlier]:
            for one in reversed(self.earlier):
                if one.result.get("source") == source:
                    self.read += 1
                    yield one

        async def adopt(file: Stored, name: str) -> Stored | None:
            if file.id:
                self.shares += 1
                return replace(file, name=name)
            if file.path not in self.objects:
                return None
            if file.path.startswith(f"workspace/day/{self.job}/"):
                return replace(file, name=name)
            self.copies += 1
            data = self.objects[file.path]
            return self._put(attempt, name, data, file.mime, file.width, file.height)

        def place() -> Path:
            folder.mkdir(exist_ok=True)
            return folder

        return Context(place, report, store, earlier, adopt)

    def _put(
        self, attempt: int, name: str, data: bytes, mime: str, width: int | None, height: int | None
    ) -> Stored:
        path = f"workspace/day/{self.job}/{attempt}/{name}"
        assert path not in self.objects, "stored twice"
        self.objects[path] = data
        return Stored(name, mime, len(data), hashlib.sha256(data).hexdigest(), path, width, height)

    def remember(self, done: Done) -> None:
        """The job has ended well: later ones find it. Its checkpoint is its own."""
        kept = (file for file in done.files if isinstance(file, Stored))
        files = tuple(replace(file, id=f"artifact-{self.job}-{number}") for number, file in enumerate(kept))
        self.earlier.append(Earlier(json.loads(json.dumps(done.result)), files))
        self.checkpoint = None
        self.job += 1


@dataclass
class Studio:
    """Runs jobs as the worker does, on one Figma."""

    world: World
    figma: Figma
    folder: Path
    storage: Storage = field(default_factory=Storage)

    async def outcome(
        self, payload: Mapping[str, Any], kind: str = "figma.export", *, last_attempt: bool = False
    ) -> Outcome:
        now = datetime.now(UTC)
        attempt = self.storage.attempt + 1
        job = Job("job", kind, payload, "workspace", attempt, last_attempt, now, now, self.storage.checkpoint)
        context = self.storage.context(self.folder / str(attempt))
        outcome = await self.figma.handlers()[kind](job, context)
        assert TOKEN not in repr(outcome), "the token is nobody's business"
        place = self.folder / str(attempt)
        assert kind == "figma.file" or not place.exists() or not list(place.iterdir()), "files are left"
        return outcome

    async def done(self, payload: Mapping[str, Any], kind: str = "figma.export", **more: Any) -> Done:
        outcome = await self.outcome(payload, kind, **more)
        assert isinstance(outcome, Done), outcome
        self.storage.remember(outcome)
        return outcome

    async def fault(
        self, payload: Mapping[str, Any], kind: str = "figma.export", **more: Any
    ) -> GiveUp | RetryLater:
        outcome = await self.outcome(payload, kind, **more)
        assert isinstance(outcome, GiveUp | RetryLater), outcome
        return outcome

    def data(self, done: Done, name: str) -> bytes:
        (file,) = (file for file in done.files if file.name == name)
        if isinstance(file, Stored):
            return self.storage.objects[file.path]
        return file.content if isinstance(file.content, bytes) else file.content.read_bytes()

    def picture(self, done: Done, name: str) -> Image.Image:
        return Image.open(io.BytesIO(self.data(done, name)))

    def renders(self) -> int:
        return len(self.world.requests(part="/v1/images/"))


@pytest.fixture
def world() -> Iterator[World]:
    """The proven case's Figma; its minute lasts a second, and it has room for 60 requests."""
    world = World(proven_case())
    world.limits.minute_seconds = MINUTE
    world.limits.per_minute = {1: 60, 2: 60, 3: 60}
    with serving(world):
        yield world


@pytest.fixture
async def studio(world: World, tmp_path: Path) -> AsyncIterator[Studio]:
    async with open_figma(world) as figma:
        yield Studio(world, figma, tmp_path)


def open_figma(
    world: World,
    *,
    token: str | None = None,
    allowed: frozenset[str] = frozenset({"*"}),
    timeout_seconds: float = 30,
    per_minute: dict[int, int] | None = None,
) -> Any:
    access = Access(world.api_url, TOKEN if token is None else token, timeout_seconds, pause_seconds=0.01)
    limiter = Limiter(per_minute or world.limits.per_minute, world.limits.minute_seconds)
    return Figma.open(access, limiter, allowed, computing())


def again(studio: Studio, figma: Figma) -> Studio:
    return replace(studio, figma=figma)
