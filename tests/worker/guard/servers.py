"""The place inside that nobody may reach, and the page's own server."""

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote

from tests.worker.guard.vectors import WAYS, Way

LEFT_RUNNING = 0.02


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A browser goes away when it likes."""


class Inside:
    """Counts whoever comes: by path over HTTP, and by port for the rest."""

    def __init__(self) -> None:
        self.hits: defaultdict[str, int] = defaultdict(int)  # by way
        self.connections = 0
        self.ports: dict[str, int] = {}  # of ways with a server of their own
        self.port = 0

    def address(self, name: str) -> dict[str, str]:
        port = self.ports.get(name, self.port)
        return {
            "hit": f"http://127.0.0.1:{port}/hit/{quote(name)}",
            "host": "127.0.0.1",
            "port": str(port),
            "name": quote(name),
        }


@contextmanager
def inside() -> Iterator[Inside]:
    place = Inside()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.split("?")[0].removeprefix("/hit/")
            place.hits[name] += 1
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_HEAD = do_OPTIONS = do_GET

    class Server(_Quiet):
        def get_request(self) -> tuple[socket.socket, object]:
            place.connections += 1
            return super().get_request()

    server = Server(("0.0.0.0", 0), Handler)  # noqa: S104  some spellings of loopback are not 127.0.0.1
    place.port = server.server_address[1]
    stop = threading.Event()
    own = [_own_server(place, name, way.server, stop) for name, way in WAYS.items() if way.server != "http"]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": LEFT_RUNNING})
    thread.start()
    try:
        yield place
    finally:
        stop.set()
        server.shutdown()
        for each in (thread, *own):
            each.join()
        server.server_close()


def _own_server(place: Inside, name: str, kind: str, stop: threading.Event) -> threading.Thread:
    """Listens, counts, answers nothing."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    listener.settimeout(0.1)
    if kind == "tcp":
        listener.listen()
    place.ports[name] = listener.getsockname()[1]

    def serve() -> None:
        with listener:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    if kind == "tcp":
                        listener.accept()[0].close()
                    else:
                        listener.recv(4096)
                    place.hits[quote(name)] += 1
                    place.connections += 1

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


class Site:
    """Serves each way's page under /way/<name>, and knows which pages have run."""

    def __init__(self) -> None:
        self.origin = ""
        self.seen: set[str] = set()  # pages that asked for their own picture


@contextmanager
def site(place: Inside) -> Iterator[Site]:
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        ways: ClassVar[dict[str, Way]] = {quote(name): way for name, way in WAYS.items()}
        names: ClassVar[dict[str, str]] = {quote(name): name for name in WAYS}

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path.startswith("/way/"):
                name = path.removeprefix("/way/")
                way, words = self.ways[name], {**place.address(self.names[name]), "site": served.origin}
                html = f"<!doctype html><img src='{served.origin}/seen/{name}'>{way.html.format(**words)}"
                if "<frameset" in way.html:
                    html = way.html.format(**words)
                    served.seen.add(name)
                self.answer(200, html, {key: value.format(**words) for key, value in way.headers.items()})
            elif path.startswith("/seen/"):
                served.seen.add(path.removeprefix("/seen/"))
                self.answer(
                    200, "<svg xmlns='http://www.w3.org/2000/svg'/>", {"Content-Type": "image/svg+xml"}
                )
            elif path.startswith("/redirect/"):
                _, _, status, name = path.split("/")
                where = place.address(self.names[name])["hit"]
                if query == "again":
                    where = f"{served.origin}/redirect/307/{name}"
                self.answer(int(status), "", {"Location": where})
            elif path == "/worker.js":
                where = place.address(self.names[query])["hit"]
                self.answer(
                    200, f"fetch('{where}', {{mode: 'no-cors'}})", {"Content-Type": "text/javascript"}
                )
            else:
                self.answer(404, "")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
            data = text.encode()
            self.send_response(status)
            for key, value in {"Content-Type": "text/html; charset=utf-8", **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

    server = _Quiet(("127.0.0.1", 0), Handler)
    served.origin = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": LEFT_RUNNING})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
