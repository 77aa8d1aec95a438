"""Everything that all functions do the same way, around a handler that only knows its subject.

Order: limits of the request, preflight, route and method, credential, rate, content type, handler. Whatever
happens, the answer has our envelope, the CORS headers and an `x-request-id`, and one line goes to the log.
Nothing here knows a web framework: `sidejob.endpoint` speaks Flask, `sidejob.streaming` ASGI.
"""

import gc
import json
import os
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from sidejob import auth, config, jsontext, log
from sidejob.call import Call, Caller, Handler, Reply
from sidejob.database import Database
from sidejob.errors import Refused, SidejobError
from sidejob.limits import Rate
from sidejob.operations.openapi import openapi
from sidejob.query import Query

# The first request loads modules of some 100,000 objects, all of which stay. Python's own threshold, 700, has
# them looked through again and again meanwhile, which is a tenth of a cold start.
gc.set_threshold(50_000, 20, 20)

Method = Literal["GET", "POST"]

BODY_LIMIT = 1024 * 1024  # bytes
URI_LIMIT = 8 * 1024  # bytes

# What Supabase's clients send (@supabase/supabase-js/cors of 2.112.3) and what is ours.
ALLOWED_HEADERS = (
    "authorization, x-client-info, apikey, content-type, x-region, x-retry-count, traceparent, tracestate, "
    "baggage, idempotency-key, if-none-match, last-event-id, x-request-id"
)
EVERYWHERE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "x-request-id, retry-after, etag",
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# In an error they may come from the request: nobody who takes it for HTML shall find a tag in it.
_TAGS = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})

# Of one address, after ten seconds' worth at once: each is a request to Auth, which has limits of its own.
BAD_TOKENS_PER_SECOND = 5.0
ADDRESSES = 10  # so many of them may use all of theirs through one proxy

WORTH_A_LOOK = frozenset({401, 403, 408, 413, 414, 429})

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{8,128}", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, whichever server took it."""

    method: str
    path: str
    query: Sequence[tuple[str, str]] = field(repr=False)  # decoded, in order
    headers: Mapping[str, str] = field(repr=False)  # of `lowered`
    address: str = field(repr=False)  # the client's, as the first trusted proxy saw it
    body: bytes = field(default=b"", repr=False)
    fault: str = ""  # the code of what was wrong before it could be read
    nearest: str = field(default="", repr=False)  # the address that the last proxy saw: it cannot be made up


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one method of one path."""

    method: Method
    handler: Handler
    who: auth.Who = "user"
    path: str = ""  # Collab only: `job/{id}`; the names in braces become query values


# A path -> its routes, and the values of the path's variables. Raises Refused 404.
Routes = Mapping[str, Route]
Find = Callable[[str], tuple[Routes, Mapping[str, str]]]


def on_any_path(routes: Routes) -> Find:
    """These routes wherever the function is mounted, and its OpenAPI document below."""
    document = {"GET": Route("GET", openapi, "anybody")}
    return lambda path: (document if path.endswith("/openapi.json") else routes, {})


def address(headers: Mapping[str, str], peer: str | None) -> str:
    """The client's address, as the first of the trusted proxies saw it. Each of them adds one at the end;
    anybody could have written those before theirs."""
    try:
        return _noted(headers, config.settings().trusted_proxies) or peer or "unknown"
    except (config.MissingSettings, config.WrongSetting):
        return peer or "unknown"  # the request fails anyway


def nearest(headers: Mapping[str, str], peer: str | None) -> str:
    """The address that the last proxy saw. A client may come straight to it, past the trusted ones before it,
    and then all other addresses are the client's own words."""
    try:
        return _noted(headers, min(1, config.settings().trusted_proxies)) or peer or "unknown"
    except (config.MissingSettings, config.WrongSetting):
        return peer or "unknown"


def _noted(headers: Mapping[str, str], proxies: int) -> str:
    """The address that so many proxies before this server had the request from; "" where there is none."""
    noted = [each.strip() for each in headers.get("x-forwarded-for", "").split(",") if each.strip()]
    return noted[-min(proxies, len(noted))][:100] if proxies and noted else ""


def lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in lower case. One that came twice is joined, as RFC 9110 5.3 says."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
    return found


def encoded(reply: Reply) -> bytes:
    """The body of an answer that has one."""
    if reply.status >= 400:
        return json.dumps(reply.body, separators=(",", ":")).translate(_TAGS).encode()
    return jsontext.dumps(reply.body)


def answer(asked: Asked, function: str, find: Find) -> Reply:
    """The reply to a request, with all its headers. Never raises."""
    started = time.perf_counter()
    given_id = asked.headers.get("x-request-id", "")
    request_id = given_id if _REQUEST_ID.fullmatch(given_id) else str(uuid.uuid4())
    trace = _TRACEPARENT.fullmatch(asked.headers.get("traceparent", ""))
    trace_id = trace.group(1) if trace else os.urandom(16).hex()
    notes: dict[str, object] = {}  # for the log
    try:
        reply = _replied(asked, request_id, trace_id, find, notes)
    except SidejobError as error:
        reply = Reply(error.envelope(request_id), error.status, error.headers)
        notes |= {"code": error.code, "cause": error.cause}
    except Exception as error:  # noqa: BLE001  the caller gets a safe sentence, the log the rest
        failure = SidejobError("internal_error")
        reply = Reply(failure.envelope(request_id), failure.status)
        notes |= {"code": failure.code, "cause": repr(error), "traceback": traceback.format_exc()}
    log.line(
        "ERROR" if reply.status >= 500 else "WARNING" if reply.status in WORTH_A_LOOK else "INFO",
        f"{asked.method} {function} {reply.status}",
        requestId=request_id,
        function=function,
        method=asked.method,
        status=reply.status,
        durationMs=round((time.perf_counter() - started) * 1000, 1),
        **notes,
        **_trace_fields(trace_id, trace.group(2) if trace else None),
    )
    return replace(reply, headers={**EVERYWHERE, "x-request-id": request_id, **reply.headers})


def _replied(asked: Asked, request_id: str, trace_id: str, find: Find, notes: dict[str, object]) -> Reply:
    if asked.fault:
        raise Refused(asked.fault)
    if asked.method == "OPTIONS":
        return _preflight(asked, find)
    routes, variables = find(asked.path)
    method = "GET" if asked.method == "HEAD" else asked.method
    route = routes.get(method)
    if route is None:
        allowed = _allowed(routes)
        raise Refused(
            "method_not_allowed",
            f"{asked.method} is not allowed here. Allowed: {allowed}.",
            hint="supabase-js: functions.invoke(name, { method: 'GET' })" if "GET" in routes else None,
            headers={"Allow": allowed},
        )
    caller = _admitted(asked, route.who)
    notes["userId"] = caller.user_id
    if method == "POST" and asked.body:
        _check_content_type(asked.headers)
    call = Call(
        caller=caller,
        query=Query([*variables.items(), *asked.query]),
        body=asked.body,
        headers=asked.headers,
        request_id=request_id,
        trace_id=trace_id,
        database=Database(request_id, token=caller.token, as_project=caller.kind == "secret"),
        notes=notes,
    )
    return route.handler(call)


def _admitted(asked: Asked, who: auth.Who) -> Caller:
    """The caller, if they do not ask too often. One without a good credential counts by their address.

    Where Auth has to be asked about a token, an address that has sent many bad ones has to wait. Good ones
    cost an address nothing, and a user whose token was good a moment ago is not asked about again.
    """
    per_second = config.settings().rate_per_second
    rate, bad = _rate(per_second), _rate(min(per_second, BAD_TOKENS_PER_SECOND), "tokens that Auth refused")
    bad_nearby = _rate(min(per_second, BAD_TOKENS_PER_SECOND * ADDRESSES), "the same through one proxy")
    auth_asked = False

    def before_asking() -> None:
        nonlocal auth_asked
        bad.check(asked.address)
        bad_nearby.check(asked.nearest)
        auth_asked = True

    try:
        caller = auth.authenticated(asked.headers, who, before_asking)
    except Refused as refused:
        if refused.code != "rate_limited":
            if auth_asked:
                bad.take(asked.address)
                bad_nearby.take(asked.nearest)
            rate.take(asked.address)
        raise
    rate.take(caller.user_id or (asked.address if caller.kind == "nobody" else caller.kind))
    return caller


@lru_cache(maxsize=3)
def _rate(per_second: float, of: str = "requests") -> Rate:  # noqa: ARG001  one for each purpose
    return Rate(per_second)


def _check_content_type(headers: Mapping[str, str]) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused("unsupported_media_type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused("unsupported_media_type", "The body must not be compressed.")


def _allowed(routes: Routes) -> str:
    methods = sorted(routes)
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


def _preflight(asked: Asked, find: Find) -> Reply:
    try:
        routes, _ = find(asked.path)
    except Refused:
        routes = {}  # let the browser come and see the 404
    return Reply(
        None,
        204,
        {
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Allow-Methods": _allowed(routes),
            "Access-Control-Max-Age": "7200",
            "Allow": _allowed(routes),
        },
    )


def _trace_fields(trace_id: str, span_id: str | None) -> dict[str, object]:
    try:
        project = config.settings().trace_project
    except (config.MissingSettings, config.WrongSetting):
        project = None
    name = f"projects/{project}/traces/{trace_id}" if project else trace_id
    return {
        "traceId": trace_id,
        "logging.googleapis.com/trace": name,
        "logging.googleapis.com/spanId": span_id,
    }
