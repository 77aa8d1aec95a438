"""A worker with handlers of the tests' own."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from worker.attempt import Workshop
from worker.handlers import Context, Done, File, Handler, Job, Outcome
from worker.metrics import Metrics
from worker.project import Project
from worker.runner import Runner
from worker.settings import Settings

FILE = File("note.txt", "text/plain", b"hello")


@dataclass
class Bench:
    """Handlers by job type, and what they met."""

    started: list[Job] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)  # ids of jobs whose handler was cancelled
    release: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Callable[[Job], Outcome] = lambda job: Done({"attempt": job.attempt}, (FILE,))

    def handlers(self) -> dict[str, Handler]:
        return {
            "test.quick": self.quick,
            "test.held": self.held,
            "test.broken": self.broken,
            "test.full": self.full,
            "figma.quick": self.quick,
        }

    async def quick(self, job: Job, context: Context) -> Outcome:
        self.started.append(job)
        await context.progress({"step": 1}, checkpoint={"seen": job.attempt})
        return self.outcome(job)

    async def held(self, job: Job, context: Context) -> Outcome:
        self.started.append(job)
        (context.folder() / "half-done").write_text("x")
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.stopped.append(job.id)
            raise
        return self.outcome(job)

    async def broken(self, job: Job, context: Context) -> Outcome:  # noqa: ARG002
        raise KeyError("a bug")

    async def full(self, job: Job, context: Context) -> Outcome:  # noqa: ARG002
        raise OSError(errno.ENOSPC, "No space left on device")


def settings_of_worker2(env: Mapping[str, str], url: str, executor: str, **changes: str) -> Settings:
    """For the worker whose user is there and whose process is not: two jobs at once, none on the way out."""
    return Settings.read(
        {
            "SUPABASE_URL": url, "SUPABASE_PUBLISHABLE_KEY": env["SUPABASE_PUBLISHABLE_KEY"],
            "WORKER_EMAIL": env["WORKER2_EMAIL"], "WORKER_PASSWORD": env["WORKER2_PASSWORD"],
            "EXECUTOR_ID": executor, "MAX_JOBS": "2", "DRAIN_SECONDS": "0", **changes,
        }
    )  # fmt: skip


@asynccontextmanager
async def running(
    settings: Settings, bench: Bench, browser: Callable[[], bool] = lambda: True
) -> AsyncIterator[Runner]:
    """A worker at work; it drains at the end of the block. `browser`: whether it has one."""
    metrics = Metrics()
    async with Project.open(settings) as project:
        shop = Workshop(project, bench.handlers(), metrics, settings.lease_seconds, "")
        runner = Runner(settings, project, shop, metrics, browser, browserless="figma.")
        working = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            if not runner.readiness()["draining"]:
                runner.drain()
            await working
