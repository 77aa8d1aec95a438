"""`@endpoint`: a handler as the target of a function under Flask. What it does is in `sidejob.serving`."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from flask import Request, Response, current_app, has_app_context

from sidejob import auth, serving
from sidejob.call import Handler
from sidejob.serving import BODY_LIMIT, URI_LIMIT, Asked, Find, Method, Route, Routes

__all__ = ["BODY_LIMIT", "Route", "Target", "answer", "endpoint", "mounted"]

Target = Callable[[Request], Response]

# How much of a body that is too large is still read, so that the client sees the 413.
DRAIN_LIMIT = 32 * BODY_LIMIT
BODY_SECONDS = 20  # a body that takes longer to arrive is given up: it holds one of the few threads


def endpoint(*methods: Method, who: auth.Who = "user") -> Callable[[Handler], Target]:
    """Make a handler the target of a function that answers these methods on any path."""

    def decorate(handler: Handler) -> Target:
        routes: Routes = {method: Route(method, handler, who) for method in methods}
        find = serving.on_any_path(routes)

        # functions-framework takes nothing but a real function.
        @wraps(handler)
        def serve(request: Request) -> Response:
            return answer(request, handler.__name__, find)

        return mounted(serve)

    return decorate


def mounted(target: Target) -> Target:
    """The target, which from now on answers all that comes, in front of Flask's routes: they lead to this one
    function, and would not pass on everything (no path with a line break, no favicon.ico, no offer of a
    WebSocket). To go through them is a good tenth of a request.

    functions-framework runs main.py in the context of its app.
    """
    if has_app_context():

        def front(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            return target(Request(environ))(environ, start_response)

        current_app.wsgi_app = front  # type: ignore[method-assign]
    return target


def answer(request: Request, function: str, find: Find) -> Response:
    """The response to a request. Never raises."""
    headers = serving.lowered(request.headers.items())
    long = len(request.query_string) + len(request.path) > URI_LIMIT
    body, fault = (b"", "uri_too_long") if long else _body(request)
    asked = Asked(
        method=request.method,
        path=request.path,
        query=[] if long else [*request.args.items(multi=True)],
        headers=headers,
        address=serving.address(headers, request.remote_addr),
        body=body,
        fault=fault,
        nearest=serving.nearest(headers, request.remote_addr),
    )
    reply = serving.answer(asked, function, find)
    sent = dict(reply.headers)
    if reply.body is None:
        return Response(status=reply.status, headers=sent)
    content = serving.encoded(reply)
    if fault:
        sent["Connection"] = "close"
    return Response(content, reply.status, sent, content_type="application/json")


def _body(request: Request) -> tuple[bytes, str]:
    """The whole body, whether its length was announced or it came in chunks; else the code of what is wrong.

    werkzeug's own limit cuts a chunked body silently; an announced one functions-framework makes a 500.
    """
    if not request.content_length and "Transfer-Encoding" not in request.headers:
        return b"", ""
    kept = bytearray()
    seen = 0
    try:
        with _patience.with_body_of(request.environ.get("gunicorn.socket")):
            while chunk := request.stream.read(64 * 1024):
                seen += len(chunk)
                if seen <= BODY_LIMIT:
                    kept += chunk
                elif seen > DRAIN_LIMIT:
                    break
    except Exception:  # noqa: BLE001  werkzeug's or gunicorn's word for a body that broke off or is no HTTP
        return b"", "request_timeout"
    return (bytes(kept), "") if seen <= BODY_LIMIT else (b"", "body_too_large")


class Patience:
    """Ends the reading of bodies that take too long; what is answered can still be written.

    One thread watches over all of them: to start one for each would be a tenth of a request. It begins with
    the first body, and need not be told of the others: what comes while it sleeps is due after it wakes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._due: dict[socket.socket, float] = {}  # the oldest first
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def with_body_of(self, connection: socket.socket | None) -> Iterator[None]:
        if connection is None:  # no socket, as in a test
            yield
            return
        with self._lock:
            self._due[connection] = time.monotonic() + self._seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._due.pop(connection, None)

    def _watch(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                for connection in [each for each, due in self._due.items() if due <= now]:
                    del self._due[connection]
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RD)
                pause = next(iter(self._due.values()), now + self._seconds) - now
            time.sleep(pause)


_patience = Patience(BODY_SECONDS)
