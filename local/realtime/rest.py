"""Broadcasts by HTTP: a batch, or one event of one topic."""

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.realtime.authorization import UNREACHABLE, PolicyFailed, Unavailable
from local.realtime.frames import JSON, RAW, Malformed, dumps, loads
from local.realtime.tokens import Identity, TokenError
from local.realtime.topics import Broadcast

if TYPE_CHECKING:
    from local.realtime.server import Server

_BATCH_BYTES = 32_000_000
_MEDIA = {"application/json": JSON, "application/octet-stream": RAW}
_UNAUTHORIZED = {"message": "Unauthorized"}


class _Answer(Exception):
    def __init__(self, status: int, body: object) -> None:
        super().__init__(status)
        self.response = JSONResponse(body, status)


def application(server: "Server") -> Starlette:
    rest = _Rest(server)
    routes = [
        Route(f"{prefix}{path}", endpoint, methods=methods)
        for prefix in ("/realtime/v1", "")
        for path, endpoint, methods in (
            ("/api/broadcast", rest.batch, ["POST"]),
            ("/api/broadcast/{topic:path}/events/{event:path}", rest.single, ["POST"]),
            ("/api/ping", rest.ping, ["GET"]),
        )
    ]
    cors = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    return Starlette(
        routes=routes,
        middleware=[cors],
        lifespan=lambda _: server.running(),
        exception_handlers={_Answer: _answer},
    )


def _answer(_: Request, error: Exception) -> Response:
    assert isinstance(error, _Answer)  # noqa: S101  # the one kind it is registered for
    return error.response


class _Rest:
    def __init__(self, server: "Server") -> None:
        self._server = server

    async def ping(self, _: Request) -> Response:
        """200 once changes flow."""
        live = self._server.stream.live.is_set()
        return JSONResponse({"message": "Success" if live else UNREACHABLE}, 200 if live else 503)

    async def batch(self, request: Request) -> Response:
        """202 also for a message without the right to be sent: that one is passed over."""
        identity = self._identity(request)
        try:
            messages = loads(await _body(request, _BATCH_BYTES)).get("messages")
        except (Malformed, AttributeError):
            raise _Answer(422, {"errors": {"messages": ["is invalid"]}}) from None
        if not isinstance(messages, list) or not messages:
            raise _Answer(422, {"errors": {"messages": ["can't be blank"]}})
        errors = [self._errors(message) for message in messages]
        if any(errors):
            raise _Answer(422, {"errors": {"messages": errors}})
        allowed: dict[str, bool] = {}
        for message in messages:
            name, private = message["topic"], bool(message.get("private"))
            if private and name not in allowed:
                allowed[name] = await self._may_write(identity, name, request)
            if private and not allowed[name]:
                continue
            whole = {"type": "broadcast", "event": message["event"], "payload": message["payload"]}
            if message.get("id"):
                whole["meta"] = {"id": message["id"]}
            self._server.topics.broadcast(name, private, Broadcast(whole=dumps(whole), id=message.get("id")))
        return Response(status_code=202)

    async def single(self, request: Request) -> Response:
        identity = self._identity(request)
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media not in _MEDIA:
            accepted = "Use application/json or application/octet-stream"
            raise _Answer(415, {"error": f"Unsupported Media Type. {accepted}"})
        body = await _body(request, self._server.settings.max_payload_bytes + 500)
        if _MEDIA[media] == JSON:
            try:
                loads(body)
            except Malformed:
                raise _Answer(422, {"errors": {"payload": ["is invalid"]}}) from None
        name, event = request.path_params["topic"], request.path_params["event"]
        private = request.query_params.get("private") == "true"
        if private and not await self._may_write(identity, name, request):
            raise _Answer(403, _UNAUTHORIZED)
        self._server.topics.broadcast(
            name, private, Broadcast(event=event, body=body, encoding=_MEDIA[media])
        )
        return Response(status_code=202)

    def _identity(self, request: Request) -> Identity:
        """The bearer token; an API key there, or none, means the API key of the request."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = request.headers.get("apikey") or request.query_params.get("apikey") or ""
        word = key if scheme.lower() != "bearer" or (token.strip().startswith("sb_") and key) else token
        try:
            return self._server.tokens.identify(word)
        except TokenError:
            raise _Answer(401, _UNAUTHORIZED) from None

    async def _may_write(self, identity: Identity, name: str, request: Request) -> bool:
        headers = dumps(
            {key: value for key, value in request.headers.items() if key not in ("authorization", "apikey")}
        )
        try:
            return await self._server.authorization.writable(identity, name, "broadcast", headers)
        except PolicyFailed:
            return False
        except Unavailable:
            raise _Answer(500, {"message": UNREACHABLE}) from None

    def _errors(self, message: Any) -> dict[str, list[str]]:
        """By field; none for a message that can be sent."""
        if not isinstance(message, dict):
            return {"message": ["is invalid"]}
        errors: dict[str, list[str]] = {}
        for field, kind in (("topic", str), ("event", str), ("payload", dict)):
            if not message.get(field) and message.get(field) != {}:
                errors[field] = ["can't be blank"]
            elif not isinstance(message[field], kind):
                errors[field] = ["is invalid"]
        if not isinstance(message.get("private", False), bool):
            errors["private"] = ["is invalid"]
        if (
            "payload" not in errors
            and len(dumps(message["payload"])) > self._server.settings.max_payload_bytes
        ):
            errors["payload"] = ["Payload size exceeds tenant limit"]
        return errors


async def _body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _Answer(422, {"errors": {"payload": ["Payload size exceeds tenant limit"]}})
        parts.append(part)
    return b"".join(parts)
