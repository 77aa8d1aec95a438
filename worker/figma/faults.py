"""Everything that can go wrong with Figma: its code, and whether another attempt may help."""

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from worker.handlers import Error, GiveUp, Outcome, Postpone, RetryLater, Verdict

VERDICTS: Mapping[str, Verdict] = {
    "invalid_payload": Verdict.GIVE_UP,
    "figma_file_not_allowed": Verdict.GIVE_UP,
    "figma_token_missing": Verdict.GIVE_UP,
    "figma_token_invalid": Verdict.GIVE_UP,
    "figma_scope_missing": Verdict.GIVE_UP,
    "figma_plan_required": Verdict.GIVE_UP,
    "figma_forbidden": Verdict.GIVE_UP,
    "figma_not_found": Verdict.GIVE_UP,
    "figma_file_type": Verdict.GIVE_UP,
    "figma_bad_request": Verdict.GIVE_UP,
    "figma_too_large": Verdict.GIVE_UP,
    "figma_nothing_exported": Verdict.GIVE_UP,
    "figma_node_missing": Verdict.GIVE_UP,
    "figma_render_timeout": Verdict.GIVE_UP,
    "figma_bad_image": Verdict.GIVE_UP,
    "figma_download_failed": Verdict.RETRY,
    "figma_quota_exhausted": Verdict.GIVE_UP,
    "figma_unavailable": Verdict.RETRY,
    "computation_failed": Verdict.RETRY,
}


class Fault(Exception):
    """A failure with a code of `VERDICTS` and a sentence that is safe to show."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details

    def outcome(self) -> Outcome:
        error = Error(self.code, self.message, self.details)
        return GiveUp(error) if VERDICTS[self.code] is Verdict.GIVE_UP else RetryLater(error)


class RenderTimeout(Fault):
    """Figma did not finish the pictures of one request in its time: fewer of them may do. `instead`: what it
    is when no picture ever comes, since Figma has not said that it was the time."""

    def __init__(self, instead: Fault | None = None) -> None:
        super().__init__("figma_render_timeout", "Figma did not finish a picture in time.")
        self.instead = instead


class TooLarge(Fault):
    """Figma refuses to answer so much at once: asking for parts may do."""

    def __init__(self, message: str = "Figma refuses to answer so much at once.") -> None:
        super().__init__("figma_too_large", message)


class RateLimited(Exception):
    """The rate limit opens again after `seconds`: too long to wait for under a lease."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Figma's rate limit opens in {seconds:.0f} s")
        self.seconds = seconds

    def outcome(self) -> Postpone:
        # Jobs that were sent away together must not come back together.
        pause = timedelta(seconds=self.seconds + random.uniform(0, min(60.0, self.seconds / 10)))
        return Postpone(pause, f"figma_rate_limited: {self}")


def invalid(path: str, reason: str) -> Fault:
    field = f"payload.{path}"
    return Fault("invalid_payload", f"{field}: {reason}.", field=field)
