"""One attempt at one job: handle, store, report, while its lease is held."""

import asyncio
import contextlib
import errno
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from worker import log as lines
from worker import uploads
from worker.errors import ArtifactGone, LeaseLost, NoFunctions, ProjectError, Refused, Unreachable
from worker.handlers import (
    Context,
    Done,
    Earlier,
    Error,
    File,
    FileTooLarge,
    GiveUp,
    Handler,
    Outcome,
    Postpone,
    RetryLater,
    StorageFailed,
    Stored,
)
from worker.lease import Lease, Loss
from worker.metrics import Metrics
from worker.project import Claim, Project, Report
from worker.retry import delays, persistently

T = TypeVar("T")

log = logging.getLogger(__name__)

_STOP_SECONDS = 10  # a cancelled handler gets so long to clean up
_TRIES_BEFORE_DIRECT = 3
_MOST_SHOWN = 100  # artifacts in a result: it goes through a body of 1 MiB together with their rows


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all attempts of this process share."""

    project: Project
    handlers: Mapping[str, Handler]
    metrics: Metrics
    lease_seconds: float
    folder: str  # where attempts keep their files; empty: the system's temporary folder


class Attempt:
    """`run` goes to the attempt's end and never raises."""

    def __init__(self, claim: Claim, shop: Workshop) -> None:
        self.claim = claim
        self._shop = shop
        self._shelf = uploads.Shelf(shop.project, claim.job)
        self._work: asyncio.Task[str] | None = None
        self._lease = Lease(lambda: shop.project.renew(claim), shop.lease_seconds)
        self._handed_back = False
        self._checkpoint = claim.job.checkpoint
        self._folder = _Folder(shop.folder)

    async def run(self) -> None:
        job, began = self.claim.job, time.monotonic()
        trace = {"traceId": self.claim.trace_id} if self.claim.trace_id else {}
        with lines.bound(jobId=job.id, attempt=job.attempt, **trace):
            log.info("claimed", extra=lines.fields(type=job.type))
            try:
                ending = await self._run_while_held()
            except Exception:
                log.exception("the attempt broke; its lease will expire")
                ending = "broken"
            seconds = time.monotonic() - began
            kind = job.type if job.type in self._shop.handlers else "unknown"
            self._shop.metrics.add("jobs_total", type=kind, outcome=ending)
            self._shop.metrics.add("job_seconds_total", seconds, type=kind)
            log.info("ended", extra=lines.fields(outcome=ending, ms=round(seconds * 1000)))

    def hand_back(self) -> None:
        """Stops the work and gives the job back to the queue. Harmless when it has just ended."""
        self._handed_back = True
        if self._work is not None:
            self._work.cancel()

    def look(self) -> None:
        """Is the job still ours? Somebody says that it was cancelled."""
        self._lease.look()

    async def _run_while_held(self) -> str:
        keeper = asyncio.create_task(self._lease.hold())
        self._work = asyncio.create_task(self._perform())
        if self._handed_back:
            self._work.cancel()
        try:
            await asyncio.wait({self._work, keeper}, return_when=asyncio.FIRST_COMPLETED)
            if not self._work.done():
                await _stop(self._work)
                loss = keeper.result()
                log.warning("stopped: the lease is gone", extra=lines.fields(loss=loss.value))
                return "cancelled" if loss is Loss.CANCELLED else "lease_lost"
            if self._work.cancelled():
                return await self._release("drain")
            return self._work.result()
        finally:
            keeper.cancel()
            self._work.cancel()

    async def _perform(self) -> str:
        try:
            try:
                return await self._conclude(await self._handle())
            except ArtifactGone as gone:
                log.warning("made anew what was to be shared: %s", gone)
                return await self._conclude(await self._handle(alone=True))
        except LeaseLost as lost:
            log.warning("not ours any more; nothing written", extra=lines.fields(status=lost.status))
            return "cancelled" if lost.status == "cancelled" else "lease_lost"
        finally:
            self._folder.remove()

    async def _handle(self, *, alone: bool = False) -> Outcome:
        """`alone`: nothing is taken from earlier jobs. What this one has stored is in its checkpoint."""
        job = replace(self.claim.job, checkpoint=self._checkpoint)
        handler = self._shop.handlers.get(job.type)
        if handler is None:
            return GiveUp(Error("unknown_type", f"This worker knows no jobs of type {job.type[:100]!r}."))
        try:
            return await handler(job, self._context(alone=alone))
        except FileTooLarge as error:
            return GiveUp(Error("output_too_large", str(error)))
        except StorageFailed as error:
            log.error("upload failed: %s", error)
            return RetryLater(Error("upload_failed", "The files could not be stored."))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                log.error("no space left for the job's files")
                return RetryLater(Error("disk_full", "The worker had no space left for the job's files."))
            log.exception("the handler raised: this is a bug")
            return RetryLater(Error("internal_error", "The worker failed; its log says why."))

    def _context(self, *, alone: bool) -> Context:
        job, shelf, project = self.claim.job, self._shelf, self._shop.project

        async def store(file: File) -> Stored:
            stored = await _through_storage(shelf.store(file))
            self._shop.metrics.add("uploaded_bytes_total", stored.size)
            return stored

        async def adopt(file: Stored, name: str) -> Stored | None:
            return await _through_storage(shelf.adopt(file, name))

        async def earlier(source: str) -> AsyncGenerator[Earlier]:
            if alone:
                return
            try:
                async with contextlib.aclosing(project.earlier(job, source)) as jobs:
                    async for one in jobs:
                        yield one
            except ProjectError as error:
                log.warning("earlier jobs could not be read; no more is taken from them: %s", error)

        return Context(self._folder.path, self._progress, store, earlier, adopt)

    async def _progress(self, progress: Any, checkpoint: Any = None) -> None:
        self._checkpoint = self._checkpoint if checkpoint is None else checkpoint
        try:
            await self._shop.project.progress(self.claim, progress, checkpoint)
        except ProjectError as error:
            log.debug("progress not reported: %s", error)

    async def _conclude(self, outcome: Outcome) -> str:
        match outcome:
            case Done():
                return await self._store_and_deliver(outcome)
            case RetryLater(error, after, files):
                await self._keep_evidence(files)
                at = None if after is None else datetime.now(UTC) + after
                log.warning("failed: %s", error.message, extra=lines.fields(code=error.code))
                await self._deliver(Report(ok=False, error=error.as_json(), retry_at=at))
                return "failed"
            case GiveUp(error, files):
                await self._keep_evidence(files)
                log.warning("failed for good: %s", error.message, extra=lines.fields(code=error.code))
                await self._deliver(Report(ok=False, error=error.as_json(), give_up=True))
                return "failed"
            case Postpone(after, reason, checkpoint):
                if checkpoint is not None:
                    await self._keep_checkpoint(checkpoint)
                return await self._release(reason, datetime.now(UTC) + after)

    async def _store_and_deliver(self, done: Done) -> str:
        job, began = self.claim.job, time.monotonic()
        try:
            stored = await self._shelf.store_all(done.files)
        except FileTooLarge as error:
            return await self._conclude(GiveUp(Error("output_too_large", str(error))))
        except (Unreachable, Refused, OSError) as error:
            log.error("upload failed: %s", error)
            return await self._conclude(RetryLater(Error("upload_failed", "The files could not be stored.")))
        uploaded = [
            kept.size for kept, file in zip(stored, done.files, strict=True) if isinstance(file, File)
        ]
        self._shop.metrics.add("uploaded_bytes_total", sum(uploaded))
        now = time.monotonic()
        timings = {
            **done.result.get("timings", {}),
            "queueMs": max(0, round((job.claimed_at - job.due_at).total_seconds() * 1000)),
            "uploadMs": round((now - began) * 1000),
            "totalMs": max(0, round((datetime.now(UTC) - job.claimed_at).total_seconds() * 1000)),
        }
        result = {**done.result, "timings": timings}
        if len(stored) <= _MOST_SHOWN:
            result["artifacts"] = [_shown(file) for file in stored]
        try:
            await self._deliver(Report(ok=True, result=result, artifacts=tuple(map(uploads.row, stored))))
        except ArtifactGone:
            raise
        except Refused as error:
            log.exception("the result was refused: this is a bug")
            failure = Error("result_refused", "The project refused the result.", {"reason": error.code})
            await self._deliver(Report(ok=False, error=failure.as_json()))
            return "failed"
        return "succeeded"

    async def _keep_evidence(self, files: tuple[File, ...]) -> None:
        """What shows why an attempt failed is worth a try, and no more: the failure is told in any case."""
        if not files:
            return
        try:
            rows = tuple(map(uploads.row, await self._shelf.store_all(files)))
            await self._shop.project.record_artifacts(self.claim, rows)
        except LeaseLost:
            raise
        except (FileTooLarge, ProjectError, OSError) as error:
            log.warning("files of a failed attempt are not kept: %s", error)

    async def _deliver(self, report: Report) -> None:
        """Repeats until it is told, or the lease ends and stops the attempt. Raises LeaseLost, Refused."""
        absent = 0
        for pause in delays(0.2, 5):
            try:
                await self._shop.project.post_result(self.claim, report)
                return
            except NoFunctions as error:
                absent += 1
                log.debug("task-result: %s", error)
            except Unreachable as error:
                log.warning("the result is not delivered yet: %s", error)
            if absent >= _TRIES_BEFORE_DIRECT:
                try:
                    await self._shop.project.finish(self.claim, report)
                    log.warning("FUNCTIONS_URL does not serve task-result; finished directly in the database")
                    return
                except Unreachable as error:
                    log.warning("the result is not delivered yet: %s", error)
            await asyncio.sleep(pause)

    async def _keep_checkpoint(self, checkpoint: Any) -> None:
        """Before the job is handed back. Whatever becomes of it, the job is handed back all the same. Raises
        LeaseLost."""
        try:
            await persistently(lambda: self._shop.project.progress(self.claim, None, checkpoint))
        except LeaseLost:
            raise
        except ProjectError as error:
            log.warning("the checkpoint was not kept: %s", error)

    async def _release(self, reason: str, run_at: datetime | None = None) -> str:
        try:
            await persistently(lambda: self._shop.project.release(self.claim, reason, run_at))
            log.info("handed back", extra=lines.fields(reason=reason))
            return "released"
        except LeaseLost as lost:
            log.info("nothing to hand back", extra=lines.fields(status=lost.status))
            return lost.status if lost.status in ("succeeded", "failed", "cancelled") else "lease_lost"
        except ProjectError as error:
            log.warning("not handed back (the lease will expire): %s", error)
            return "lease_lost"


async def _through_storage(request: Awaitable[T]) -> T:
    """LeaseLost goes through: the lease's keeper stops the attempt."""
    try:
        return await request
    except (Unreachable, Refused) as error:
        raise StorageFailed(str(error)) from error


async def _stop(work: asyncio.Task[str]) -> None:
    work.cancel()
    done, _ = await asyncio.wait({work}, timeout=_STOP_SECONDS)
    if not done:
        log.error("the handler does not stop; left behind")
    elif not work.cancelled() and (error := work.exception()):
        log.warning("the handler failed while it was stopped", exc_info=error)


def _shown(file: Stored) -> dict[str, Any]:
    shown = {key: getattr(file, key) for key in ("name", "mime", "size", "width", "height", "path")}
    return {key: value for key, value in shown.items() if value is not None}


@dataclass
class _Folder:
    """Made when a handler asks for it: most never do."""

    parent: str
    made: list[Path] = field(default_factory=list)

    def path(self) -> Path:
        if not self.made:
            self.made.append(Path(tempfile.mkdtemp(prefix="sidejob-", dir=self.parent or None)))
        return self.made[0]

    def remove(self) -> None:
        for path in self.made:
            shutil.rmtree(path, ignore_errors=True)
