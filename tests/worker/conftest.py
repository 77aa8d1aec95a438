"""One browser and one site for all tests of the worker; both are gone, with all they started, at the end."""

import asyncio
import io
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Page

from tests.stack import Person
from tests.worker import site as sites
from tests.worker.jobs import Jobs
from tests.worker.pools import computing, set_pool
from tests.worker.processes import children, command, started_since
from tests.worker.running import Start, workers
from worker.browser.egress.limits import Limits
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine
from worker.browser.kinds import handlers
from worker.browser.launching import Launch
from worker.browser.targets import Targets
from worker.browser.visit import Visitor
from worker.computing.pool import Pool
from worker.handlers import Context, Done, File, GiveUp, Job, Outcome, RetryLater

Pixel = tuple[int, ...]


@dataclass
class Shot:
    """A job's result and its picture."""

    result: Mapping[str, Any]
    name: str
    mime: str
    data: bytes
    image: Image.Image = field(init=False)

    def __post_init__(self) -> None:
        self.image = Image.open(io.BytesIO(self.data))

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    def at(self, x: int, y: int) -> Pixel:
        pixel = self.image.convert("RGB").getpixel((x, y))
        assert isinstance(pixel, tuple)
        return tuple(int(value) for value in pixel)


def job(
    payload: Mapping[str, Any],
    attempt: int = 1,
    last_attempt: bool = False,
    kind: str = "browser.screenshot",
    checkpoint: Any = None,
) -> Job:
    now = datetime.now(UTC)
    return Job("job", kind, payload, "workspace", attempt, last_attempt, now, now, checkpoint)


class Camera:
    """The handlers of browser jobs on the tests' browser, allowed to see the tests' site."""

    def __init__(
        self,
        engine: Engine,
        site: sites.Site,
        allowed: frozenset[str] = frozenset(),
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        self.site = site
        self.engine = engine
        self.progress: list[Any] = []  # what was reported
        self.counted: Counter[str] = Counter()  # metrics
        self._folder = folder
        self._egress = Egress(Targets(allowed or frozenset({site.origin})), limits, self._count)

    def _count(self, name: str, amount: float) -> None:
        self.counted[name] += round(amount)

    async def _note(self, *values: object, **more: object) -> None:
        self.progress.append((values, more))

    def _make_folder(self) -> Path:
        assert self._folder is not None, "this job needs no folder"
        return self._folder

    async def outcome(
        self,
        payload: Mapping[str, Any],
        *,
        attempt: int = 1,
        last: bool = False,
        force: bool = False,
        nav: float = 10,
        insecure: bool = False,
        kind: str = "browser.screenshot",
        checkpoint: Any = None,
    ) -> Outcome:
        """`url` may be a path of the site."""
        given = dict(payload)
        if str(given.get("url", "")).startswith("/"):
            given["url"] = self.site.url(given["url"])
        visitor = Visitor(self.engine, self._egress, nav, insecure, computing=computing())
        handle = handlers(visitor, force)[kind]
        return await handle(
            job(given, attempt, last, kind, checkpoint), Context(self._make_folder, self._note)
        )

    async def shoot(self, payload: Mapping[str, Any], **options: Any) -> Shot:
        (shot,) = await self.shoot_all(payload, **options)
        return shot

    async def shoot_all(self, payload: Mapping[str, Any], **options: Any) -> list[Shot]:
        outcome = await self.outcome(payload, **options)
        assert isinstance(outcome, Done), outcome
        shots = []
        for file in made(outcome):
            assert isinstance(file.content, bytes)
            shots.append(Shot(outcome.result, file.name, file.mime, file.content))
            assert (file.width, file.height) == shots[-1].size, "the row must say what the file says"
        return shots

    async def page(self, path: str) -> Page:
        """The page of a running job, once it shows `path`."""
        while True:
            for context in self.engine.browser.contexts:
                for page in context.pages:
                    if page.url == self.site.url(path) and await page.title():
                        return page
            await asyncio.sleep(0.01)

    async def fault(self, payload: Mapping[str, Any], **options: Any) -> tuple[str, GiveUp | RetryLater]:
        outcome = await self.outcome(payload, **options)
        assert isinstance(outcome, GiveUp | RetryLater), outcome
        return outcome.error.code, outcome


def made(outcome: Done | GiveUp | RetryLater) -> list[File]:
    """The files of an outcome, of which none was stored before."""
    files = [file for file in outcome.files if isinstance(file, File)]
    assert len(files) == len(outcome.files)
    return files


@pytest.fixture(scope="session")
def site() -> Iterator[sites.Site]:
    with sites.serving() as served, sites.serving() as other:
        served.other = other.origin
        yield served


@pytest.fixture
def jobs(member: Person) -> Jobs:
    return Jobs(member)


@pytest.fixture
def start(member: Person, jobs: Jobs, site: sites.Site, tmp_path: Path) -> Iterator[Start]:
    """Starts workers that may go to the site."""
    with workers(member, jobs, tmp_path, BROWSER_ALLOW_ORIGINS=site.origin) as start:
        yield start


@pytest.fixture(scope="session", autouse=True)
async def _computing() -> AsyncIterator[None]:
    before = children()
    async with Pool.open(2) as pool:
        set_pool(pool)
        await pool.compute(abs, 1, seconds=60)  # its child is there before a test looks at what was started
        yield
    assert not started_since(before), "processes that compute are left"


@pytest.fixture(scope="session")
async def engine() -> AsyncIterator[Engine]:
    before = children()
    async with Engine.running(Launch()) as running:
        yield running
    # Processes that compute come and go, and have a fixture of their own.
    left = {pid for pid in started_since(before) if "worker.computing" not in command(pid)}
    assert not left, "processes of the browser are left"


@pytest.fixture
async def camera(engine: Engine, site: sites.Site) -> AsyncIterator[Camera]:
    yield Camera(engine, site)
    assert engine.contexts == 0, "a context is left"


@pytest.fixture(autouse=True)
def _no_lost_exceptions(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio tells of exceptions that nobody took by logging them."""
    yield
    lost = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    # The driver leaves one such error itself when it dies: on_error_future in playwright's transport.py.
    assert not [line for line in lost if "never retrieved" in line and "from the driver" not in line], lost


logging.getLogger("asyncio").setLevel(logging.WARNING)
