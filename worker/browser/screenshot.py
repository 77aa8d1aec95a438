"""`browser.screenshot`: a picture of a page."""

import logging

from worker.browser import images
from worker.browser.budget import Budget
from worker.browser.capture import Picture, take
from worker.browser.engine import Engine
from worker.browser.faults import Fault
from worker.browser.guard import shown_url
from worker.browser.options import ScreenshotOptions, read
from worker.browser.targets import Targets
from worker.browser.visit import Visitor
from worker.handlers import Context, Done, File, GiveUp, Job, Outcome

log = logging.getLogger(__name__)

_CAPTURE_SECONDS = 15.0
_SELECTOR_SECONDS = 10.0


class Screenshot:
    """The handler. `force_success`: a last failure yields a 1×1 PNG that says so."""

    def __init__(
        self, engine: Engine, targets: Targets, nav_seconds: float, force_success: bool = False
    ) -> None:
        self._visitor = Visitor(engine, targets, nav_seconds)
        self._force_success = force_success

    async def handle(self, job: Job, context: Context) -> Outcome:  # noqa: ARG002  the contract of a handler
        try:
            return await self._shoot(read(ScreenshotOptions, job.payload))
        except Fault as fault:
            outcome = fault.outcome(job)
            final = isinstance(outcome, GiveUp) or job.last_attempt
            if self._force_success and final and not fault.code.startswith(("blocked_", "invalid_")):
                log.warning("failed, and forced to succeed: %s", fault)
                return _fallback(job, fault)
            return outcome

    async def _shoot(self, options: ScreenshotOptions) -> Done:
        budget = Budget(options.timeout_ms / 1000)
        scroll = options.full_page if options.scroll is None else options.scroll
        whole = options.full_page or options.selector is not None or options.clip is not None
        async with self._visitor.visit(options, budget, scroll=scroll, everywhere=whole) as visit:
            async with budget.stage(
                "capture", _CAPTURE_SECONDS, "page_hung", "The page does not let itself be drawn."
            ):
                picture = await take(visit, options, budget.left(_SELECTOR_SECONDS))
                await visit.guard.verify()
                result = await visit.result("screenshot", options.url)
            result |= {"truncated": picture.truncated, "timings": {**budget.timings, **visit.timings}}
        return Done(result, (_file(options, picture),))


def _file(options: ScreenshotOptions, picture: Picture) -> File:
    return File(options.file_name, images.MIMES[options.format], picture.data, picture.width, picture.height)


def _fallback(job: Job, fault: Fault) -> Done:
    url = job.payload.get("url")
    result = {
        "action": "screenshot",
        "url": shown_url(url) if isinstance(url, str) else None,
        "fallback": True,
        "error": {**fault.details, "code": fault.code, "message": fault.message},
    }
    return Done(result, (File("fallback.png", "image/png", images.TINY_PNG, 1, 1),))
