"""Two origins, as with Figma: the API, and the images that it links to."""

import contextlib
import gzip
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from local.figma import pictures
from local.figma.documents import Document, Layer
from local.figma.world import Asked, World

_RENDER_TIMEOUT = "Render timeout, try requesting fewer or smaller images"
_MOST_NODES = 900  # ids that /nodes takes
_LARGEST_PIXELS = 32_000_000
_PIECE = 65536


class Refusal(Exception):
    """An answer that is an error; `other_shape` is that of variables and libraries."""

    def __init__(self, status: int, text: str, other_shape: bool = False, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        body: dict[str, Any] = {"status": status, "err": text}
        if other_shape:
            body = {"error": True, "status": status, "message": text}
        self.body = json.dumps(body).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(world: World, api_port: int = 0, images_port: int = 0) -> Iterator[World]:
    """Fills in `world.api_url` and `world.images_url`; both are gone at the end."""
    with contextlib.ExitStack() as stack:
        for name, handler, port in (("api_url", _Api, api_port), ("images_url", _Images, images_port)):
            bound = type(handler.__name__, (handler,), {"world": world})
            server = _Server(("127.0.0.1", port), bound)
            setattr(world, name, f"http://127.0.0.1:{server.server_address[1]}")
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        stack.callback(world.stopped.set)
        yield world


class _Handler(BaseHTTPRequestHandler):
    world: World
    origin = ""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def note(self, status: int) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(parts.path)
        self.world.note(Asked(time.monotonic(), self.origin, path, query, headers, status))

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(body)


class _Api(_Handler):
    origin = "api"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        path, world = unquote(parts.path), self.world
        if told := world.answer_for(path):
            self.note(told.status)
            world.stopped.wait(told.hang_seconds)
            return self.send(told.status, told.body, {"Content-Type": "application/json", **told.headers})
        try:
            body = json.dumps(self._answer(path, query)).encode()
        except Refusal as refusal:
            self.note(refusal.status)
            headers = {"Content-Type": "application/json", **refusal.headers}
            return self.send(refusal.status, refusal.body, headers)
        self.note(200)
        headers = {"Content-Type": "application/json; charset=utf-8", "Vary": "Accept-Encoding"}
        if "gzip" in self.headers.get("Accept-Encoding", "") and len(body) > 1000:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        return self.send(200, body, headers)

    def _answer(self, path: str, query: dict[str, str]) -> Any:
        for pattern, tier, answer in _ROUTES:
            if match := re.fullmatch(pattern, path):
                if self.headers.get("X-Figma-Token") != self.world.token:
                    raise Refusal(403, "Invalid token")
                self._spend(tier)
                document = self.world.documents.get(match[1])
                if document is None:
                    raise Refusal(404, "Not found", other_shape=tier == 3 and "/meta" not in path)
                if document.editor not in ("figma", "figjam"):
                    raise Refusal(400, "File type not supported by this endpoint")
                asked = query.get("version")
                if asked and not (
                    self.world.pins_versions and (asked == document.version or asked in document.earlier)
                ):
                    raise Refusal(404, "Not found")
                return answer(self.world, document, query)
        raise Refusal(404, "Not found")

    def _spend(self, tier: int) -> None:
        limits = self.world.limits
        if seconds := limits.spend(tier):
            raise Refusal(
                429,
                "Rate limit exceeded",
                Retry_After=f"{seconds:.3f}" if limits.minute_seconds != 60 else str(int(seconds) + 1),
                X_Figma_Plan_Tier=limits.plan,
                X_Figma_Rate_Limit_Type=limits.kind,
                X_Figma_Upgrade_Link="https://www.figma.com/files?api_paywall=true",
            )


def _meta(world: World, document: Document, _: dict[str, str]) -> Any:
    facts = {"name": document.name, "editorType": document.editor, "version": document.version,
             "last_touched_at": "2026-11-01T10:00:00Z"}  # fmt: skip
    return facts if world.bare_meta else {"file": facts}


def _file(_: World, document: Document, query: dict[str, str]) -> Any:
    return document.as_json(_depth(query))


def _nodes(_: World, document: Document, query: dict[str, str]) -> Any:
    ids = _ids(query, document)
    if len(ids) > _MOST_NODES:
        raise Refusal(413, "Request too large")
    layers = {node: document.layers.get(node) for node in ids}
    entries = {
        node: layer and {"document": layer.as_json(_depth(query)), "components": {}, "styles": {}}
        for node, layer in layers.items()
    }
    return {**document.head(), "nodes": entries}


def _renders(world: World, document: Document, query: dict[str, str]) -> Any:
    ids, kind = _ids(query, document), query.get("format", "png")
    try:
        scale = float(query.get("scale", "1"))
    except ValueError:
        scale = 0
    if not 0.01 <= scale <= 4 or kind not in ("png", "jpg", "svg", "pdf"):
        raise Refusal(400, "Invalid scale or format")
    world.stopped.wait(world.render_seconds)
    layers = [document.layers[node] for node in ids if node in document.layers]
    megapixels = sum(layer.width * layer.height * scale**2 for layer in layers) / 1e6
    if (
        (world.most_ids is not None and len(ids) > world.most_ids)
        or (world.most_megapixels is not None and megapixels > world.most_megapixels)
        or world.poison & set(ids)
    ):
        raise Refusal(
            world.timeout_status, _RENDER_TIMEOUT if world.timeout_status == 400 else "Internal error"
        )
    version = query.get("version", document.version)
    images: dict[str, str | None] = {}
    for node in ids:
        layer = document.layers.get(node)
        images[node] = None
        if layer and _draws(layer) and not world.first_time(node):
            path = f"/render/{document.key}/{version}/{quote(node, safe='')}/{scale:g}.{kind}"
            images[node] = f"{world.images_url}{path}?X-Amz-Signature=0"
    return {"err": None, "images": images}


def _fills(world: World, document: Document, _: dict[str, str]) -> Any:
    urls = {ref: f"{world.images_url}/fill/{document.key}/{ref}" for ref in document.fills}
    return {"error": False, "status": 200, "meta": {"images": urls}}


def _comments(_: World, document: Document, __: dict[str, str]) -> Any:
    return {"comments": document.comments}


def _variables(_: World, document: Document, __: dict[str, str]) -> Any:
    if document.variables is None:
        raise Refusal(403, "Limited by Figma plan", other_shape=True)
    return {"status": 200, "error": False, "meta": document.variables}


def _library(kind: str) -> Any:
    def answer(_: World, document: Document, __: dict[str, str]) -> Any:
        return {"status": 200, "error": False, "meta": {kind: document.published.get(kind, [])}}

    return answer


_KEY = r"([A-Za-z0-9]+)"
_ROUTES: tuple[tuple[str, int, Any], ...] = (
    (rf"/v1/files/{_KEY}", 1, _file),
    (rf"/v1/files/{_KEY}/nodes", 1, _nodes),
    (rf"/v1/images/{_KEY}", 1, _renders),
    (rf"/v1/files/{_KEY}/images", 2, _fills),
    (rf"/v1/files/{_KEY}/comments", 2, _comments),
    (rf"/v1/files/{_KEY}/variables/local", 2, _variables),
    (rf"/v1/files/{_KEY}/meta", 3, _meta),
    *(
        (rf"/v1/files/{_KEY}/{kind}", 3, _library(kind))
        for kind in ("components", "component_sets", "styles")
    ),
)


def _ids(query: dict[str, str], document: Document) -> list[str]:
    ids = list(filter(None, query.get("ids", "").split(",")))
    if not ids:
        raise Refusal(
            400, json.dumps({"params": ["file_key"], "query": ["ids"]}) + f" {document.key} are required."
        )
    return ids


def _depth(query: dict[str, str]) -> int | None:
    return int(query["depth"]) if "depth" in query else None


def _draws(layer: Layer) -> bool:
    return layer.draws and layer.visible and layer.opacity > 0


class _Images(_Handler):
    origin = "images"

    def do_GET(self) -> None:
        self.world.enter(+1)
        try:
            self._serve()
        finally:
            self.world.enter(-1)

    def _serve(self) -> None:
        world, parts = self.world, [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        if "Authorization" in self.headers:
            self.note(400)
            return self.send(
                400, b"<Error><Code>InvalidArgument</Code></Error>", {"Content-Type": "application/xml"}
            )
        body, kind = self._body(parts)
        world.stopped.wait(world.image_seconds)
        how = world.spoil(parts[3] if parts[0] == "render" else parts[-1])
        match how:
            case "expired":
                self.note(403)
                return self.send(
                    403, b"<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"}
                )
            case "500":
                self.note(500)
                return self.send(500, b"", {})
            case "html":
                body, kind = b"<!doctype html><h1>502 Bad Gateway</h1>", "text/html"
            case "empty":
                body = b""
            case "damaged":
                body = (
                    body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 0xFF]) + body[len(body) // 2 + 1 :]
                )
            case "other":
                body = pictures.draw("png", 7, 7, (1, 2, 3), "somebody else's")
            case "stall":
                self.note(200)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                world.stopped.wait(60)
                return None
        self.note(200)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            if how == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how in ("truncated", "reset"):
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return None
            for at in range(0, len(body), _PIECE):
                piece = body[at : at + _PIECE]
                if pause := world.link_pause(len(piece)):
                    world.stopped.wait(pause)
                self.wfile.write(piece)
        return None

    def _body(self, parts: list[str]) -> tuple[bytes, str]:
        world = self.world
        if parts[0] == "fill":
            return world.documents[parts[1]].fills[parts[2]], "application/octet-stream"
        _, key, version, node, name = parts
        scale_text, _, kind = name.rpartition(".")
        scale, layer = float(scale_text), world.documents[key].layers[node]
        width, height = max(1, round(layer.width * scale)), max(1, round(layer.height * scale))
        if width * height > _LARGEST_PIXELS:
            factor = (_LARGEST_PIXELS / (width * height)) ** 0.5
            width, height = int(width * factor), int(height * factor)
        if layer.picture_size:
            width, height = layer.picture_size
        fill = pictures.colour(key, node, version)
        body = pictures.draw(kind, width, height, fill, f"{key} {node} {version}")
        if kind == "pdf" and world.large_bytes > len(body):
            body = body[:9] + b"%" + b"x" * (world.large_bytes - len(body)) + b"\n" + body[9:]
        mime = {"png": "image/png", "jpg": "image/jpeg", "svg": "image/svg+xml"}.get(kind, "application/pdf")
        return body, mime
