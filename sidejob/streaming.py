"""`@endpoint` for the function that streams: a handler as the target of a function under ASGI.

Here an open answer costs a coroutine; under Flask it would hold one of the few threads.
"""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, wraps
from types import FrameType
from typing import Any, Literal

from functions_framework import aio
from starlette.applications import Starlette
from starlette.requests import Request

from sidejob import auth, config, log, serving, upstream
from sidejob.call import Call, Handler, Reply, Stream
from sidejob.limits import Places
from sidejob.serving import URI_LIMIT, Asked, Route, Routes

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Target = Callable[[Request], Any]  # of an ASGI application

LAST_WORD_SECONDS = 2  # how long a client that does not read may hold up the end of a stream


def endpoint(method: Literal["GET"], who: auth.Who = "user") -> Callable[[Handler], Target]:
    """Make a handler the target of a function that answers this method on any path.

    The handler is called in a thread; the frames of the `Stream` that it returns run in the event loop.
    """

    def decorate(handler: Handler) -> Target:
        routes: Routes = {method: Route(method, _in_its_place(handler), who)}
        find = serving.on_any_path(routes)

        @wraps(handler)
        async def serve(request: Request) -> Any:
            stopping = _stopping()
            headers = serving.lowered(request.headers.items())
            query, path = request.scope["query_string"], request.scope["path"]
            peer = request.client.host if request.client else None
            long = len(query) + len(path) > URI_LIMIT
            asked = Asked(
                method=request.method,
                path=path,
                query=[] if long else request.query_params.multi_items(),
                headers=headers,
                address=serving.address(headers, peer),
                nearest=serving.nearest(headers, peer),
                fault="uri_too_long" if long else "",  # a body is not looked at: GET has none
            )
            reply = await asyncio.to_thread(serving.answer, asked, handler.__name__, find)
            return _Response(reply, handler.__name__, stopping)

        _mount(serve)
        return aio.http(serve)

    return decorate


def _mount(serve: Target) -> None:
    """The target answers all that comes, in front of Starlette's routes, as under `endpoint.mounted`.

    functions-framework makes its app after it has run main.py.
    """

    def made(**parts: Any) -> Application:
        framework = Starlette(**parts)

        async def front(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                reply = await serve(Request(scope, receive))
                await reply(scope, receive, send)
            else:
                await framework(scope, receive, send)

        return front

    aio.Starlette = made  # type: ignore[assignment, attr-defined]


def _in_its_place(handler: Handler) -> Handler:
    """The handler, whose stream has to find a place before it begins. `_Response` gives the place back."""

    def handle(call: Call) -> Reply:
        reply = handler(call)
        if isinstance(reply, Stream):
            settings = config.settings()
            places = _places(settings.streams_per_caller, settings.streams_per_instance)
            caller = str(call.caller.user_id)
            places.take(caller)
            return replace(reply, leave=lambda: places.give_back(caller))
        return reply

    return handle


@lru_cache(maxsize=1)
def _places(per_caller: int, in_all: int) -> Places:
    return Places(per_caller, in_all)


class _Response:
    """An ASGI application that sends one reply."""

    def __init__(self, reply: Reply, function: str, stopping: asyncio.Event) -> None:
        self._reply = reply
        self._function = function
        self._stopping = stopping

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            if isinstance(self._reply, Stream):
                self._reply.leave()

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        reply = self._reply
        headers = dict(reply.headers)
        body = b"" if reply.body is None else serving.encoded(reply)
        if isinstance(reply, Stream):
            headers |= {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        elif body:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
        if isinstance(reply, Stream) and scope["method"] != "HEAD":
            await self._stream(reply, receive, send)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await send({"type": "http.response.body", "body": body})

    async def _stream(self, reply: Stream, receive: Receive, send: Send) -> None:
        """Frames until there are no more, nobody reads them, their time is over or the process has to end."""
        started = time.perf_counter()
        ends = {
            asyncio.create_task(_written(reply, send)): "complete",
            asyncio.create_task(_gone(receive)): "the client is gone",
            asyncio.create_task(self._stopping.wait()): "the process stops",
        }
        try:
            done, _ = await asyncio.wait(ends, timeout=reply.seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()
            outcomes = await asyncio.gather(*ends, return_exceptions=True)
        bug = outcomes[0] if isinstance(outcomes[0], Exception) else None
        log.line(
            "ERROR" if bug else "INFO",
            f"{self._function} ended: {ends[done.pop()] if done else 'its time is over'}",
            requestId=reply.headers["x-request-id"],
            function=self._function,
            durationMs=round((time.perf_counter() - started) * 1000, 1),
            cause=repr(bug) if bug else None,
        )


async def _written(reply: Stream, send: Send) -> None:
    async with contextlib.aclosing(reply.frames()) as frames:
        async for frame in frames:
            await send({"type": "http.response.body", "body": frame.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_STOPPING: asyncio.Event | None = None


def _stopping() -> asyncio.Event:
    """Set at SIGTERM: uvicorn waits for open answers, and gunicorn kills what is left after 30 seconds.

    Made at the first request: by then uvicorn's own handler, which has to be called too, is in place. The
    loop's threads, in which requests to the project wait, become as many as there are connections.
    """
    global _STOPPING  # noqa: PLW0603  one event loop a process, one event
    if _STOPPING is None:
        stopping = _STOPPING = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(upstream.POOL_SIZE, "upstream"))
        before = signal.getsignal(signal.SIGTERM)
        if callable(before) and threading.current_thread() is threading.main_thread():

            def stop(number: int, frame: FrameType | None) -> None:
                loop.call_soon_threadsafe(stopping.set)
                before(number, frame)

            signal.signal(signal.SIGTERM, stop)
    return _STOPPING
