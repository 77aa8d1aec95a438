"""Everything that can go wrong with a page: its code, and whether another attempt may help."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from playwright.async_api import Error as PlaywrightError

from worker.browser.relay import TOO_LARGE
from worker.handlers import Error, GiveUp, Job, Outcome, RetryLater, Verdict
from worker.retry import retry_after

VERDICTS: Mapping[str, Verdict] = {
    "invalid_payload": Verdict.GIVE_UP,
    "invalid_url": Verdict.GIVE_UP,
    "blocked_scheme": Verdict.GIVE_UP,
    "blocked_address": Verdict.GIVE_UP,
    "dns_not_found": Verdict.RETRY,
    "dns_failed": Verdict.RETRY,
    "connection_refused": Verdict.RETRY,
    "connection_timeout": Verdict.RETRY,
    "connection_reset": Verdict.RETRY,
    "empty_response": Verdict.RETRY,
    "tls_error": Verdict.GIVE_UP,
    "too_many_redirects": Verdict.GIVE_UP,
    "unsafe_port": Verdict.GIVE_UP,
    "not_a_page": Verdict.GIVE_UP,
    "navigation_timeout": Verdict.RETRY,
    "wait_timeout": Verdict.RETRY,
    "page_hung": Verdict.RETRY,
    "http_status": Verdict.GIVE_UP,  # but for those of `_PASSING`
    "selector_not_found": Verdict.GIVE_UP,
    "script_error": Verdict.GIVE_UP,
    "page_error": Verdict.GIVE_UP,
    "invalid_page_ranges": Verdict.GIVE_UP,
    "page_too_large": Verdict.GIVE_UP,
    "traffic_limit": Verdict.GIVE_UP,
    "capture_failed": Verdict.RETRY_ONCE,
    "computation_failed": Verdict.RETRY,
    "memory_limit": Verdict.GIVE_UP,
    "page_crashed": Verdict.RETRY,
    "page_closed": Verdict.RETRY,
    "browser_crashed": Verdict.RETRY,  # of a job that was alone in it; others are handed back
    "browser_stalled": Verdict.RETRY,
    "browser_unavailable": Verdict.RETRY,
}

_PASSING = (408, 425, 429)  # statuses that say "later", as all of 500 and above do
_LONGEST_RETRY_AFTER = timedelta(hours=1)

# Chromium's names: net/base/net_error_list.h. The first match counts.
_NET_ERRORS = (
    (r"NAME_NOT_RESOLVED", "dns_not_found", "The host name does not resolve."),
    (r"DNS_|NAME_RESOLUTION_FAILED", "dns_failed", "The host name could not be resolved just now."),
    (r"EMPTY_RESPONSE", "empty_response", "The server closed the connection without an answer."),
    (r"CONNECTION_TIMED_OUT|TIMED_OUT", "navigation_timeout", "The server did not answer in time."),
    (
        r"CONNECTION_REFUSED|ADDRESS_UNREACHABLE|INTERNET_DISCONNECTED",
        "connection_refused",
        "The server refused.",
    ),
    (r"CERT_|SSL_|BAD_SSL", "tls_error", "The server's TLS certificate or handshake is not acceptable."),
    (r"TOO_MANY_REDIRECTS", "too_many_redirects", "The page redirects without end."),
    (r"UNSAFE_PORT", "unsafe_port", "Browsers do not open this port."),
    (
        r"UNSAFE_REDIRECT|UNKNOWN_URL_SCHEME|DISALLOWED_URL_SCHEME",
        "blocked_scheme",
        "The page led to no web address.",
    ),
    (r"ABORTED", "not_a_page", "The address is a download or has no content: there is no page to show."),
    (r"INVALID_URL", "invalid_url", "payload.url is not an address."),
    (r"BLOCKED_BY_", "blocked_address", "The page led to an address that is not public."),
)


class Fault(Exception):
    """A failure with a code of `VERDICTS` and a sentence that is safe to show."""

    def __init__(
        self, code: str, message: str, *, retry_after: timedelta | None = None, **details: Any
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.details = details
        self._made_final = False

    def made_final(self, message: str) -> "Fault":
        """The same, though its code alone would allow another attempt."""
        fault = Fault(self.code, message, **self.details)
        fault._made_final = True
        return fault

    @property
    def final(self) -> bool:
        """Whether no further attempt could help."""
        if self._made_final:
            return True
        status = self.details.get("status", 0)
        if self.code == "http_status" and (status >= 500 or status in _PASSING):
            return False
        return VERDICTS[self.code] is Verdict.GIVE_UP

    def outcome(self, job: Job) -> Outcome:
        error = Error(self.code, self.message, self.details)
        if self.final or (VERDICTS[self.code] is Verdict.RETRY_ONCE and job.attempt > 1):
            return GiveUp(error)
        return RetryLater(error, after=self.retry_after)


def invalid(path: str, reason: str) -> Fault:
    """A field of the payload that is wrong."""
    field = f"payload.{path}"
    return Fault("invalid_payload", f"{field}: {reason}.", field=field)


def of_driver(error: Exception) -> Fault | None:
    """Says what an error of the driver means for the page; None for one that is not the driver's. Whether the
    whole browser has ended is for the engine to say. The error's own text may hold anything of the page: it
    goes to the log only."""
    if type(error) is Exception and "Connection closed" in str(error):
        return Fault("page_closed", "The page was closed.")  # raised bare: playwright's transport.py
    if not isinstance(error, PlaywrightError):
        return None
    text = error.message
    if TOO_LARGE in text:
        return Fault("page_too_large", "The page has more to say than can be read.")
    if "Page crashed" in text or "Target crashed" in text:
        return Fault("page_crashed", "The page's process crashed.")
    if net := re.search(r"net::ERR_([A-Z0-9_]+)", text):
        for pattern, code, message in _NET_ERRORS:
            if re.match(pattern, net[1]):
                return Fault(code, message, netError=net[0])
        return Fault("connection_reset", "The connection to the server failed.", netError=net[0])
    if "Download is starting" in text:
        return Fault("not_a_page", "The address is a download: there is no page to show.")
    if "is interrupted by another navigation" in text:
        return Fault("not_a_page", "The page went elsewhere before it was there.")
    if "invalid URL" in text:
        return Fault("invalid_url", "payload.url is not an address.")
    if "Execution context was destroyed" in text or "Inspected target navigated" in text:
        return Fault("page_hung", "The page kept navigating and never came to rest.")
    if "closed" in text.lower() or "disconnected" in text.lower():
        return Fault("page_closed", "The page was closed.")
    return Fault("capture_failed", "The browser could not do it.")


def of_status(status: int, headers: Mapping[str, str]) -> Fault:
    """An HTTP status that the job does not accept. `headers`: of the answer, names in lower case."""
    seconds = retry_after(headers.get("retry-after"), headers.get("date"))
    pause = None if seconds is None else timedelta(seconds=min(seconds, _LONGEST_RETRY_AFTER.total_seconds()))
    return Fault("http_status", f"The server answered {status}.", retry_after=pause, status=status)
