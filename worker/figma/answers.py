"""What Figma's answers mean when they are not the ones hoped for.

Its wordings drift, so an answer is judged by its status first and by its text second. A proxy may answer
HTML. Sources: developers.figma.com/docs/rest-api ("Errors", "Rate limits"), and reports of the API's users.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from worker.figma.faults import Fault, RenderTimeout, TooLarge
from worker.retry import http_date, retry_after

_QUOTA_SECONDS = 6 * 3600  # a longer Retry-After is a used-up month, not a busy minute
_LONGEST_SECONDS = 10 * 365 * 86400.0


class Refused(Exception):
    """429. `seconds` until the limit opens again; None where the answer does not say."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__("rate limited")
        self.seconds = seconds


class Passing(Exception):
    """An answer that may be another one soon. `renders`: or one that asked for too much."""

    def __init__(self, message: str, renders: bool = False) -> None:
        super().__init__(message)
        self.renders = renders


def meaning(status: int, said: str, *, renders: bool = False) -> Exception:
    """Of an answer that is neither 200 nor 429. `said`: Figma's own words, or nothing. `renders`:
    pictures were asked for, and fewer of them may do."""
    low = said.lower()
    words = {"figma": said} if said else {}
    if status in (401, 403):
        return _rights(status, low, words)
    if status == 404:
        return Fault(
            "figma_not_found", "Figma knows no such file, or the worker's user may not see it.", **words
        )
    if status in (413, 414) or (status == 400 and "too large" in low and "image" not in low):
        return TooLarge()
    if status == 400 and re.search(r"time[d ]*out|smaller images", low):
        return RenderTimeout()
    if status == 400 and "type not supported" in low:
        return Fault("figma_file_type", "Figma's API does not give out files of this type.", **words)
    if status >= 500 or status in (408, 425) or status < 400:
        return Passing(f"answered {status}", renders=renders and status in (500, 504))
    refused = Fault("figma_bad_request", f"Figma refused the request ({status}).", status=status, **words)
    return RenderTimeout(instead=refused) if renders and status == 400 else refused


def _rights(status: int, low: str, words: Mapping[str, str]) -> Fault:
    if "scope" in low:
        return Fault("figma_scope_missing", "The worker's Figma token lacks a scope.", **words)
    if "token" in low or status == 401:
        return Fault(
            "figma_token_invalid",
            "Figma does not accept the worker's token: an operator must renew FIGMA_API_TOKEN.",
            **words,
        )
    if "plan" in low or "enterprise" in low:
        return Fault("figma_plan_required", "The file's Figma plan does not allow this.", **words)
    return Fault("figma_forbidden", "The worker's Figma user may not do this with the file.", **words)


def meaning_of_429(headers: Mapping[str, str], shown: Callable[[str], str]) -> Exception:
    """Refused, or Fault `figma_quota_exhausted`. `shown` makes a header's text fit to be told."""
    date = headers.get("date")
    seconds = retry_after(headers.get("retry-after"), date)
    if seconds is None or seconds <= _QUOTA_SECONDS:
        return Refused(seconds)
    seconds = min(seconds, _LONGEST_SECONDS)
    until = (http_date(date) or datetime.now(UTC)) + timedelta(seconds=seconds)
    named = {
        "planTier": headers.get("x-figma-plan-tier"),
        "limitType": headers.get("x-figma-rate-limit-type"),
        "upgradeLink": headers.get("x-figma-upgrade-link"),
    }
    known = {name: shown(value) for name, value in named.items() if value}
    return Fault(
        "figma_quota_exhausted",
        f"Figma's quota is used up until {until:%Y-%m-%d %H:%M} UTC (plan {known.get('planTier', 'unknown')},"
        f" limit {known.get('limitType', 'unknown')}): a Dev or Full seat in the file's own plan has a larger"
        " one.",
        until=until.isoformat(timespec="seconds"),
        retryAfterSeconds=round(seconds),
        **known,
    )


def sentence(body: bytes) -> str:
    """Figma's own words: under `err`, or `message`; nothing of a page of HTML."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(answer, dict):
        return ""
    return str(answer.get("err") or answer.get("message") or "")
