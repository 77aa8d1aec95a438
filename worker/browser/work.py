"""What all browser jobs share: from a payload to a page at rest, and from any failure to an outcome."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

from worker.browser import images
from worker.browser.budget import Budget
from worker.browser.faults import Fault, invalid
from worker.browser.options.page import PageOptions
from worker.browser.shown import shown_url
from worker.browser.trace import Trace
from worker.browser.visit import Visit, Visitor
from worker.handlers import Context, Done, File, GiveUp, Job, Outcome, Postpone, RetryLater
from worker.payloads import read

log = logging.getLogger(__name__)

Options = TypeVar("Options", bound=PageOptions)

_CRASHES_BEFORE_ALONE = 2  # of its page; after one of the browser with others in it a job is alone at once
_PAUSE_AFTER_CRASH = timedelta(seconds=1)
_PAUSE_WITHOUT_BROWSER = timedelta(seconds=5)
_FREE_WITHOUT_BROWSER = 3  # so often a job is handed back since its browser did not start or answer


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
        trace, past = Trace(False, context.folder), Past.of(job)
        try:
            options = read(self._kind.model, job.payload, invalid)
            trace = Trace(options.trace, context.folder)
            return await self._perform(options, trace, alone=past.alone)
        except Fault as fault:
            if fault.code in ("browser_crashed", "browser_stalled") and not past.alone:
                return Postpone(_PAUSE_AFTER_CRASH, fault.code, past.after_crash_of_browser())
            if fault.code == "browser_unavailable" and (
                past.unavailable < _FREE_WITHOUT_BROWSER or not self._visitor.ready
            ):
                return Postpone(_PAUSE_WITHOUT_BROWSER, fault.code, past.after_no_browser())
            if fault.code in ("page_crashed", "browser_crashed"):
                if past.is_culprit(fault.code):
                    fault = fault.made_final("The page crashed again, in a browser of its own.")
                else:
                    checkpoint = past.after_own_crash()
                    await context.progress({"crashes": checkpoint["crashes"]}, checkpoint=checkpoint)
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


@dataclass(frozen=True, slots=True)
class Past:
    """What a job's checkpoint says of crashes in earlier attempts."""

    crashes: int  # of its page, or of a browser with its page in it
    crashes_alone: int  # of a browser that no other job used
    was_there: bool  # when a browser that others used too crashed, or did not answer
    unavailable: int  # how often there was no browser for the job

    @classmethod
    def of(cls, job: Job) -> "Past":
        kept = job.checkpoint if isinstance(job.checkpoint, Mapping) else {}

        def count(name: str) -> int:
            value = kept.get(name)
            return value if type(value) is int else 0

        was_there = kept.get("wasThere") is True
        return cls(count("crashes"), count("crashesAlone"), was_there, count("unavailable"))

    @property
    def alone(self) -> bool:
        """Whether the job gets a browser of its own, so that it takes no other with it."""
        return self.was_there or self.crashes >= _CRASHES_BEFORE_ALONE

    def is_culprit(self, code: str) -> bool:
        """Whether this crash, after those, shows that no further attempt would help."""
        return self.crashes_alone > 0 if code == "browser_crashed" else self.crashes >= _CRASHES_BEFORE_ALONE

    def after_crash_of_browser(self) -> dict[str, Any]:
        """The checkpoint of a job that may have had no part in it."""
        return replace(self, crashes=self.crashes + 1, was_there=True).as_json()

    def after_own_crash(self) -> dict[str, Any]:
        """The checkpoint of a job whose own page or browser crashed."""
        alone = self.crashes_alone + self.alone
        return replace(self, crashes=self.crashes + 1, crashes_alone=alone).as_json()

    def after_no_browser(self) -> dict[str, Any]:
        """The checkpoint of a job that found no browser."""
        return replace(self, unavailable=self.unavailable + 1).as_json()

    def as_json(self) -> dict[str, Any]:
        return {
            "crashes": self.crashes,
            "crashesAlone": self.crashes_alone,
            "wasThere": self.was_there,
            "unavailable": self.unavailable,
        }
