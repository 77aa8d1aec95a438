"""How an attempt's end is told: made fit for the database, delivered, and in the end given up.

An answer is an answer. A refusal is never repeated, and "later" is repeated for a minute. Silence alone is
waited out longer, since nobody knows what became of the request. Then a bare error takes the report's place,
and when that is not taken either, the job is left to its lease, which costs an attempt.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from worker import storable
from worker.claims import Claim
from worker.errors import ArtifactGone, Later, LeaseLost, ProjectError, Refused, Unreachable
from worker.handlers import Error, Stored
from worker.project import Project
from worker.retry import delays
from worker.sending import Report, delay_seconds, fits_function

log = logging.getLogger(__name__)

MAX_ARTIFACTS = 1000  # of one report (docs/http.md)
_MAX_SHOWN = 100  # artifacts in a result: it goes through a body of 1 MiB together with their rows
_TRIES_BEFORE_DIRECT = 3

LATER_SECONDS = 60.0  # so long "later" is taken for an answer that will change
SILENT_SECONDS = 300.0  # so long no answer is waited out
BARE_SECONDS = 20.0  # the same for a bare error


class Undelivered(Exception):
    """The project neither takes nor refuses a report."""


def success(result: Mapping[str, Any], stored: Sequence[Stored]) -> Report:
    """`stored`: with distinct names, as `uploads.distinct` gives them. Raises TooLarge."""
    rows = tuple(row(file) for file in stored)
    if len(stored) <= _MAX_SHOWN:
        shown = {**result, "artifacts": [_shown(file) for file in stored]}
        try:
            return Report(ok=True, result=storable.clean(shown, storable.MAX_RESULT_BYTES), artifacts=rows)
        except storable.TooLarge:
            pass  # without them, perhaps
    return Report(ok=True, result=storable.clean(result, storable.MAX_RESULT_BYTES), artifacts=rows)


def failure(error: Error, *, after: timedelta | None = None, give_up: bool = False) -> Report:
    return Report(
        ok=False,
        error=storable.clean_error(error.code, error.message, error.details),
        retry_after_seconds=None if after is None else delay_seconds(after),
        give_up=give_up,
    )


def row(file: Stored) -> dict[str, Any]:
    """The artifact row, as `finish_job` takes it."""
    if file.id:
        return {"name": file.name, "same_as": file.id}
    known = {key: value for key, value in asdict(file).items() if value is not None}
    return {**known, "bucket": "artifacts"}


def _shown(file: Stored) -> dict[str, Any]:
    shown = {key: getattr(file, key) for key in ("name", "mime", "size", "width", "height", "path")}
    return {key: value for key, value in shown.items() if value is not None}


async def tell(project: Project, claim: Claim, report: Report, *, share_again: bool = True) -> str:
    """Delivers the report, or a bare error in its place. Returns how the attempt ended: `succeeded`,
    `failed`, or `untold` when nothing was taken. Raises LeaseLost; ArtifactGone where `share_again`."""
    try:
        await _deliver(project, claim, report, LATER_SECONDS)
        return "succeeded" if report.ok else "failed"
    except LeaseLost:
        raise
    except (ProjectError, Undelivered) as error:
        if share_again and isinstance(error, ArtifactGone):
            raise
        log.error("the report was not taken, a bare error goes in its place: %s", error)
        reason = error.code if isinstance(error, Refused) else "later"
    try:
        await _deliver(project, claim, _bare(report, reason), BARE_SECONDS)
        return "failed"
    except LeaseLost:
        raise
    except (ProjectError, Undelivered) as error:
        log.error("nor was the bare error; the job is left to its lease: %s", error)
        return "untold"


def _bare(report: Report, reason: str) -> Report:
    """The report with nothing in it that anybody chose but the code of a failure."""
    if report.ok:
        message = "The project did not take the result."
        error = storable.clean_error("result_refused", message, {"reason": reason})
    else:
        message = "The project did not take what the worker had to say of this failure."
        error = storable.clean_error((report.error or {}).get("code"), message, {"reason": reason})
    return Report(
        ok=False, error=error, retry_after_seconds=report.retry_after_seconds, give_up=report.give_up
    )


async def _deliver(project: Project, claim: Claim, report: Report, later_seconds: float) -> None:
    """Repeats what may be repeated. Raises Refused, LeaseLost, SignInRefused, Undelivered."""
    began, later_since = time.monotonic(), None
    by_function = fits_function(claim, report)
    for tried, pause in enumerate(delays(0.2, 5), start=1):
        try:
            if by_function:
                try:
                    await project.post_result(claim, report)
                    return
                except (Unreachable, Refused) as error:
                    if isinstance(error, ArtifactGone) or not _goes_direct(error, tried):
                        raise
                    log.debug("task-result: %s", error)
            await project.finish(claim, report)
            log.warning("task-result does not take the report; finished directly in the database")
            return
        except LeaseLost as lost:
            if tried > 1 and report.ok and lost.status == "succeeded":
                return  # a try without an answer had succeeded: nobody else can finish under this lease
            raise
        except Unreachable as error:
            last = error
        now = time.monotonic()
        if isinstance(last, Later):
            later_since = now if later_since is None else later_since
        if (later_since is not None and now - later_since >= later_seconds) or now - began >= SILENT_SECONDS:
            raise Undelivered(str(last))
        log.warning("the result is not delivered yet: %s", last)
        await asyncio.sleep(pause)


def _goes_direct(error: ProjectError, tried: int) -> bool:
    """A refusal of the function's is the database's to judge: an older function may not know a field."""
    return isinstance(error, Refused) or tried >= _TRIES_BEFORE_DIRECT
