"""What all browser jobs share: from a payload to a page at rest, and from any failure to an outcome."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from worker.browser import images
from worker.browser.budget import Budget
from worker.browser.faults import Fault, invalid
from worker.browser.options.page import PageOptions
from worker.browser.shown import shown_url
from worker.browser.trace import Trace
from worker.browser.visit import Visit, Visitor
from worker.handlers import Context, Done, File, GiveUp, Job, Outcome, RetryLater
from worker.payloads import read

log = logging.getLogger(__name__)

Options = TypeVar("Options", bound=PageOptions)

_CRASHES = ("page_crashed", "browser_crashed")
_CRASHES_BEFORE_ALONE = 2


@dataclass(frozen=True, slots=True)
class Product:
    """What a job made of its page: further facts for the result, and the files."""

    facts: Mapping[str, Any]
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Kind(Generic[Options]):
    """One type of browser job."""

    action: str  # the type without `browser.`
    model: type[Options]
    produce: Callable[[Visit, Options, Budget], Awaitable[Product]]
    scrolls: Callable[[Options], bool]
    sees_all: Callable[[Options], bool]  # the whole page, and not just the view
    drawn: bool = False  # what it makes of the page is what is drawn on the screen


class BrowserWork(Generic[Options]):
    """The handler of one kind. `force_success`: a last failure yields a 1×1 PNG that says so."""

    def __init__(self, kind: Kind[Options], visitor: Visitor, force_success: bool = False) -> None:
        self._kind = kind
        self._visitor = visitor
        self._force_success = force_success

    async def handle(self, job: Job, context: Context) -> Outcome:
        trace = Trace(False, context.folder)
        crashes = _crashes(job)
        try:
            options = read(self._kind.model, job.payload, invalid)
            trace = Trace(options.trace, context.folder)
            return await self._perform(options, trace, alone=crashes >= _CRASHES_BEFORE_ALONE)
        except Fault as fault:
            if fault.code in _CRASHES:
                if crashes >= _CRASHES_BEFORE_ALONE:
                    fault = fault.made_final("The page crashed again, in a browser of its own.")
                else:
                    await context.progress({"crashes": crashes + 1}, checkpoint={"crashes": crashes + 1})
            return self._failed(job, fault, trace)

    async def _perform(self, options: Options, trace: Trace, *, alone: bool) -> Done:
        kind, budget = self._kind, Budget(self._seconds(options))
        visiting = self._visitor.visit(
            options,
            budget,
            trace,
            scroll=kind.scrolls(options),
            everywhere=kind.sees_all(options),
            drawn=kind.drawn,
            alone=alone,
        )
        async with visiting as visit:
            product = await kind.produce(visit, options, budget)
            visit.watch.verify()
            visit.watch.judge()
            result = await visit.result(kind.action, options.url)
            trace.note(visit.watch.report())
            timings = {**budget.timings, **visit.settling.timings}
        return Done({**result, **product.facts, "timings": timings}, (*product.files, *trace.files))

    def _seconds(self, options: Options) -> float:
        """The job's time. A worker that lets pages load longer lets jobs that do not say it run longer."""
        said = options.timeout_ms / 1000
        return said if "timeout_ms" in options.model_fields_set else max(said, self._visitor.nav_seconds)

    def _failed(self, job: Job, fault: Fault, trace: Trace) -> Outcome:
        outcome = fault.outcome(job)
        final = isinstance(outcome, GiveUp) or job.last_attempt
        if self._force_success and final and not fault.code.startswith(("blocked_", "invalid_")):
            log.warning("failed, and forced to succeed: %s", fault)
            return self._fallback(job, fault, trace)
        if isinstance(outcome, GiveUp):
            return GiveUp(outcome.error, trace.files)
        if isinstance(outcome, RetryLater):
            return RetryLater(outcome.error, outcome.after, trace.files)
        return outcome

    def _fallback(self, job: Job, fault: Fault, trace: Trace) -> Done:
        url = job.payload.get("url")
        result = {
            "action": self._kind.action,
            "url": shown_url(url) if isinstance(url, str) else None,
            "fallback": True,
            "error": {**fault.details, "code": fault.code, "message": fault.message},
        }
        return Done(result, (File("fallback.png", "image/png", images.TINY_PNG, 1, 1), *trace.files))


def _crashes(job: Job) -> int:
    """How many earlier attempts ended in a crash."""
    count = job.checkpoint.get("crashes") if isinstance(job.checkpoint, Mapping) else None
    return count if isinstance(count, int) else 0
