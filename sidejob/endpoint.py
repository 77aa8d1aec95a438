"""`@endpoint`: everything that all functions do the same way, around a handler that only knows its subject.

Order: body limit, preflight, route and method, credential, content type, handler. Whatever happens, the
answer has our envelope, the CORS headers and an `x-request-id`, and one line goes to the log.
"""

import json
import re
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Literal

from flask import Request, Response

from sidejob import auth, config, log
from sidejob.call import Call, Caller, Handler, Reply
from sidejob.database import Database
from sidejob.errors import Refused, SidejobError
from sidejob.query import Query

Method = Literal["GET", "POST"]
Target = Callable[[Request], Response]

BODY_LIMIT = 1024 * 1024  # bytes
DRAIN_LIMIT = (
    32 * BODY_LIMIT
)  # how much of a body that is too large is still read, so that the client sees the 413

# What Supabase's clients send (@supabase/supabase-js/cors of 2.112.3) and what is ours.
ALLOWED_HEADERS = (
    "authorization, x-client-info, apikey, content-type, x-retry-count, traceparent, tracestate, baggage, "
    "idempotency-key, last-event-id, x-request-id"
)
EVERYWHERE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "x-request-id, retry-after, etag",
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{8,128}", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-[0-9a-f]{2}")


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


def endpoint(*methods: Method, who: auth.Who = "user") -> Callable[[Handler], Target]:
    """Make a handler the target of a function that answers these methods on any path."""

    def decorate(handler: Handler) -> Target:
        routes: Routes = {method: Route(method, handler, who) for method in methods}

        # functions-framework takes nothing but a real function.
        @wraps(handler)
        def serve(request: Request) -> Response:
            return answer(request, handler.__name__, lambda _: (routes, {}))

        return serve

    return decorate


def answer(request: Request, function: str, find: Find) -> Response:
    """The response to a request. Never raises."""
    started = time.perf_counter()
    given_id = request.headers.get("x-request-id", "")
    request_id = given_id if _REQUEST_ID.fullmatch(given_id) else str(uuid.uuid4())
    trace = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    notes: dict[str, object] = {}  # for the log
    try:
        reply = _replied(request, request_id, trace.group(1) if trace else None, find, notes)
    except SidejobError as error:
        reply = Reply(error.envelope(request_id), error.status, error.headers)
        notes |= {"code": error.code, "cause": error.cause}
    except Exception as error:  # noqa: BLE001  the caller gets a safe sentence, the log the rest
        failure = SidejobError("internal_error")
        reply = Reply(failure.envelope(request_id), failure.status)
        notes |= {"code": failure.code, "cause": repr(error), "traceback": traceback.format_exc()}
    response = _response(reply, request_id)
    log.line(
        "ERROR" if reply.status >= 500 else "WARNING" if reply.status in (401, 403, 413) else "INFO",
        f"{request.method} {function} {reply.status}",
        requestId=request_id,
        function=function,
        status=reply.status,
        durationMs=round((time.perf_counter() - started) * 1000, 1),
        **notes,
        **_trace_fields(trace),
    )
    return response


def _replied(
    request: Request, request_id: str, trace_id: str | None, find: Find, notes: dict[str, object]
) -> Reply:
    body = _body(request)
    if request.method == "OPTIONS":
        return _preflight(request, find)
    routes, variables = find(request.path)
    method = "GET" if request.method == "HEAD" else request.method
    route = routes.get(method)
    if route is None:
        allowed = _allowed(routes)
        raise Refused(
            "method_not_allowed",
            f"{request.method} is not allowed here. Allowed: {allowed}.",
            hint="supabase-js: functions.invoke(name, { method: 'GET' })" if "GET" in routes else None,
            headers={"Allow": allowed},
        )
    headers = {name.lower(): value for name, value in request.headers.items()}
    caller = auth.authenticated(headers, route.who)
    notes["userId"] = caller.user_id
    if method == "POST" and body:
        _check_content_type(request)
    call = Call(
        caller=caller,
        query=Query([*variables.items(), *request.args.items(multi=True)]),
        body=body,
        headers=headers,
        request_id=request_id,
        trace_id=trace_id,
        database=_database(caller, request_id),
    )
    return route.handler(call)


def _database(caller: Caller, request_id: str) -> Database:
    key = config.settings().secret_key if caller.kind == "secret" else None
    return Database(request_id, token=caller.token, key=key)


def _body(request: Request) -> bytes:
    """The whole body, whether its length was announced or it came in chunks. Raises Refused 413.

    werkzeug's own limit cuts a chunked body silently; an announced one functions-framework makes a 500.
    """
    kept = bytearray()
    seen = 0
    while chunk := request.stream.read(64 * 1024):
        seen += len(chunk)
        if seen <= BODY_LIMIT:
            kept += chunk
        elif seen > DRAIN_LIMIT:
            break
    if seen > BODY_LIMIT:
        raise Refused("body_too_large", f"The body may have {BODY_LIMIT} bytes at most.")
    return bytes(kept)


def _check_content_type(request: Request) -> None:
    if request.mimetype != "application/json":
        raise Refused("unsupported_media_type")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("unsupported_media_type", "The body must not be compressed.")


def _allowed(routes: Routes) -> str:
    methods = sorted(routes)
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


def _preflight(request: Request, find: Find) -> Reply:
    try:
        routes, _ = find(request.path)
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


def _response(reply: Reply, request_id: str) -> Response:
    headers = {**EVERYWHERE, "x-request-id": request_id, **reply.headers}
    if reply.body is None:
        return Response(status=reply.status, headers=headers)
    text = json.dumps(reply.body, ensure_ascii=False, separators=(",", ":"))
    if reply.status == 413:
        # Streamed, so that functions-framework does not read what is left of the body into memory.
        headers["Connection"] = "close"
        return Response(iter([text]), reply.status, headers, content_type="application/json")
    return Response(text, reply.status, headers, content_type="application/json")


def _trace_fields(trace: re.Match[str] | None) -> dict[str, object]:
    if trace is None:
        return {}
    try:
        project = config.settings().trace_project
    except config.MissingSettings:
        project = None
    name = f"projects/{project}/traces/{trace.group(1)}" if project else trace.group(1)
    return {"logging.googleapis.com/trace": name, "logging.googleapis.com/spanId": trace.group(2)}
