"""One attempt at one job: handle, store, report, while its lease is held."""

import asyncio
import contextlib
import errno
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from worker import log as lines
from worker import reports, uploads
from worker.claims import Claim
from worker.errors import ArtifactGone, LeaseLost, ProjectError, Refused, Unreachable
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
from worker.project import Project
from worker.retry import persistently
from worker.sending import Report
from worker.storable import MAX_RESULT_BYTES, TooLarge

T = TypeVar("T")

log = logging.getLogger(__name__)

_STOP_SECONDS = 10  # a cancelled handler gets so long to clean up
# A type that this worker does not know: others may, as while a new version is rolled out.
_UNKNOWN_TYPE_DELAY = timedelta(seconds=15)
_BUG = Error("internal_error", "The worker failed; its log says why.")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all attempts of this process share."""

    project: Project
    handlers: Mapping[str, Handler]
    metrics: Metrics
    lease_seconds: float
    folder: str  # where attempts keep their files; empty: the system's temporary folder
    job_seconds: float = 3600.0  # what a handler may take; then it is stopped, whatever it does


class Attempt:
    """`run` goes to the attempt's end and never raises."""

    def __init__(self, claim: Claim, shop: Workshop) -> None:
        self.claim = claim
        self._shop = shop
        self._shelf = uploads.Shelf(shop.project, claim.job)
        self._work: asyncio.Task[str] | None = None
        self._lease = Lease(lambda: shop.project.renew(claim), shop.lease_seconds)
        self._claimed = time.monotonic()
        self._handed_back = asyncio.Event()
        self._progress_shown: Any = None
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
        self._handed_back.set()

    def look(self) -> None:
        """Is the job still ours? Somebody says that it was cancelled."""
        self._lease.look()

    async def _run_while_held(self) -> str:
        keeper = asyncio.create_task(self._lease.hold())
        self._work = asyncio.create_task(self._perform())
        stopping = asyncio.create_task(self._handed_back.wait())
        try:
            await asyncio.wait(
                {self._work, keeper, stopping},
                timeout=self._shop.job_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not self._work.done():
                await _stop(self._work)
                if keeper.done():
                    loss = keeper.result()
                    log.warning("stopped: the lease is gone", extra=lines.fields(loss=loss.value))
                    return "cancelled" if loss is Loss.CANCELLED else "lease_lost"
                if not stopping.done():
                    return await self._end_overdue()
            if not self._work.done() or self._work.cancelled():
                return await self._release("drain")
            return self._work.result()
        finally:
            for task in (keeper, stopping, self._work):
                task.cancel()

    async def _end_overdue(self) -> str:
        seconds = self._shop.job_seconds
        log.error("stopped: the handler took too long", extra=lines.fields(seconds=seconds))
        error = Error("job_timeout", f"The job took longer than the worker's {seconds:.0f} s (JOB_SECONDS).")
        with self._losing_the_lease() as ended:
            ended.append(await self._tell(reports.failure(error)))
        return ended[-1]

    async def _perform(self) -> str:
        with self._losing_the_lease() as ended:
            try:
                ended.append(await self._perform_once_or_twice())
            except (LeaseLost, asyncio.CancelledError):
                raise
            except Exception:
                log.exception("the attempt met a bug")
                ended.append(await self._tell(reports.failure(_BUG)))
            finally:
                self._folder.remove()
        return ended[-1]

    async def _perform_once_or_twice(self) -> str:
        try:
            return await self._conclude(await self._handle(), share_again=True)
        except ArtifactGone as gone:
            log.warning("made again what was to be shared: %s", gone)
            return await self._conclude(await self._handle(alone=True), share_again=False)

    @contextlib.contextmanager
    def _losing_the_lease(self) -> Iterator[list[str]]:
        """For what may find the lease gone: how the attempt has ended is the last entry then."""
        ended: list[str] = []
        try:
            yield ended
        except LeaseLost as lost:
            log.warning("not ours any more; nothing written", extra=lines.fields(status=lost.status))
            ended.append("cancelled" if lost.status == "cancelled" else "lease_lost")

    async def _handle(self, *, alone: bool = False) -> Outcome:
        """`alone`: nothing is taken from earlier jobs. What this one has stored is in its checkpoint."""
        if self.claim.fault is not None:
            field_name = self.claim.fault.partition(":")[0]
            return GiveUp(Error("payload_unreadable", f"{self.claim.fault}.", {"field": field_name}))
        job = replace(self.claim.job, checkpoint=self._checkpoint)
        handler = self._shop.handlers.get(job.type)
        if handler is None:
            log.warning("this worker knows no such type", extra=lines.fields(type=job.type))
            return Postpone(_UNKNOWN_TYPE_DELAY, "unknown_type")
        try:
            return await handler(job, self._context(alone=alone))
        except LeaseLost:
            raise
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            log.exception("the handler cancelled itself: this is a bug")
            return RetryLater(_BUG)
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
            return RetryLater(_BUG)

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
        self._progress_shown = progress
        try:
            await self._report_progress(checkpoint)
        except ProjectError as error:
            log.debug("progress not reported: %s", error)
        except Exception:
            log.exception("progress not reported: this is a bug")

    async def _report_progress(self, checkpoint: Any) -> None:
        project, shown = self._shop.project, self._progress_shown
        try:
            await project.progress(self.claim, shown, checkpoint)
        except TooLarge:
            log.error("the checkpoint is larger than the database keeps; it goes without")
            await project.progress(self.claim, shown)

    async def _conclude(self, outcome: Outcome, *, share_again: bool) -> str:
        match outcome:
            case Done():
                return await self._store_and_tell(outcome, share_again=share_again)
            case RetryLater(error, after, files):
                await self._keep_evidence(files)
                return await self._tell_failure("failed: %s", reports.failure(error, after=after))
            case GiveUp(error, files):
                await self._keep_evidence(files)
                return await self._tell_failure("failed for good: %s", reports.failure(error, give_up=True))
            case Postpone(after, reason, checkpoint):
                if checkpoint is not None:
                    await self._keep_checkpoint(checkpoint)
                return await self._release(reason, after)
        raise TypeError(f"a handler returned {type(outcome).__name__}, which is no outcome")

    async def _store_and_tell(self, done: Done, *, share_again: bool) -> str:
        began = time.monotonic()
        if len(done.files) > reports.MAX_ARTIFACTS:
            said = f"The job made {len(done.files)} files; a job may have {reports.MAX_ARTIFACTS}."
            return await self._tell(reports.failure(Error("output_too_large", said), give_up=True))
        try:
            stored = uploads.distinct(await self._shelf.store_all(done.files))
        except FileTooLarge as error:
            return await self._tell(reports.failure(Error("output_too_large", str(error)), give_up=True))
        except (Unreachable, Refused, OSError) as error:
            log.error("upload failed: %s", error)
            return await self._tell(reports.failure(Error("upload_failed", "The files could not be stored.")))
        uploaded = [
            kept.size for kept, file in zip(stored, done.files, strict=True) if isinstance(file, File)
        ]
        self._shop.metrics.add("uploaded_bytes_total", sum(uploaded))
        result = {**done.result, "timings": self._timings(done.result.get("timings"), began)}
        try:
            report = reports.success(result, stored)
        except TooLarge:
            log.error("the result is too large")
            said = f"The result has more than {MAX_RESULT_BYTES // 1024} KiB as JSON."
            return await self._tell(reports.failure(Error("result_too_large", said), give_up=True))
        return await self._tell(report, share_again=share_again)

    def _timings(self, measured: object, upload_began: float) -> dict[str, Any]:
        """Waiting by the database's clock; the rest by this machine's, which may be set but not turned."""
        job, now = self.claim.job, time.monotonic()
        return {
            **(measured if isinstance(measured, Mapping) else {}),
            "queueMs": max(0, round((job.claimed_at - job.due_at).total_seconds() * 1000)),
            "uploadMs": round((now - upload_began) * 1000),
            "totalMs": round((now - self._claimed) * 1000),
        }

    async def _keep_evidence(self, files: tuple[File, ...]) -> None:
        """What shows why an attempt failed is worth a try, and no more: the failure is told in any case."""
        if not files:
            return
        try:
            stored = uploads.distinct(await self._shelf.store_all(files))
            await self._shop.project.record_artifacts(self.claim, tuple(map(reports.row, stored)))
        except LeaseLost:
            raise
        except (FileTooLarge, ProjectError, OSError) as error:
            log.warning("files of a failed attempt are not kept: %s", error)
        except Exception:
            log.exception("files of a failed attempt are not kept: this is a bug")

    async def _tell_failure(self, said: str, report: Report) -> str:
        """The log has what the report says, and not what the handler said: that may be anything."""
        error = report.error or {}
        log.warning(said, error.get("message"), extra=lines.fields(code=error.get("code")))
        return await self._tell(report)

    async def _tell(self, report: Report, *, share_again: bool = False) -> str:
        """How the attempt has ended. Raises LeaseLost; ArtifactGone where `share_again`."""
        return await reports.tell(self._shop.project, self.claim, report, share_again=share_again)

    async def _keep_checkpoint(self, checkpoint: Any) -> None:
        """Before the job is handed back. Whatever becomes of it, the job is handed back all the same. Raises
        LeaseLost."""
        try:
            await persistently(lambda: self._report_progress(checkpoint))
        except LeaseLost:
            raise
        except ProjectError as error:
            log.warning("the checkpoint was not kept: %s", error)

    async def _release(self, reason: str, after: timedelta | None = None) -> str:
        try:
            await persistently(lambda: self._shop.project.release(self.claim, reason, after))
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
