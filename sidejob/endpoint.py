"""`@endpoint`: a handler as the target of a function under Flask. What it does is in `sidejob.serving`."""

from collections.abc import Callable
from functools import wraps

from flask import Request, Response

from sidejob import auth, serving
from sidejob.call import Handler
from sidejob.serving import BODY_LIMIT, Asked, Find, Method, Route, Routes

__all__ = ["BODY_LIMIT", "Route", "Target", "answer", "endpoint"]

Target = Callable[[Request], Response]

DRAIN_LIMIT = (
    32 * BODY_LIMIT
)  # how much of a body that is too large is still read, so that the client sees the 413


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
    asked = Asked(
        method=request.method,
        path=request.path,
        query=[*request.args.items(multi=True)],
        headers=serving.lowered(request.headers.items()),
        body=_body(request),
    )
    reply = serving.answer(asked, function, find)
    headers = dict(reply.headers)
    if reply.body is None:
        return Response(status=reply.status, headers=headers)
    body = serving.encoded(reply)
    if reply.status == 413:
        # Streamed, so that functions-framework does not read what is left of the body into memory.
        headers["Connection"] = "close"
        return Response(iter([body]), reply.status, headers, content_type="application/json")
    return Response(body, reply.status, headers, content_type="application/json")


def _body(request: Request) -> bytes | None:
    """The whole body, whether its length was announced or it came in chunks; None when it is too large.

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
    return bytes(kept) if seen <= BODY_LIMIT else None
