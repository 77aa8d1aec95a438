"""A web server that breaks HTTP and pages that break browsers, for jobs that mean harm."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PAGE = "<!doctype html><title>Hostile</title>"
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"

PAGES: dict[str, str] = {
    "/honest": f"{_PAGE}<h1>Honest</h1><p>See <a href=/honest>more</a>.</p>",
    "/console": f"{_PAGE}<script>console.log('x'.repeat(120_000_000))</script>",
    "/console-worker": f"{_PAGE}<script>new Worker(URL.createObjectURL(new Blob(["
    "\"console.log('x'.repeat(120_000_000))\"])))</script>",
    "/title": f"{_PAGE}<script>document.title = 'x'.repeat(120_000_000)</script>",
    "/memory": f"{_PAGE}<script>const kept = []; for (let i = 0; i < 80; i++)"
    " kept.push(new Uint8Array(64 << 20).fill(i + 1)); setInterval(() => kept.length)</script>",
    "/items": f"{_PAGE}<ul></ul><script>document.querySelector('ul').innerHTML ="
    " '<li>x'.repeat(190_000)</script>",
    "/deep": f"{_PAGE}<script>let at = document.body; for (let i = 0; i < 20_000; i++)"
    " { const d = document.createElement('div'); at.append(d); at = d }</script>",
    "/nul": f"{_PAGE}<script>console.error('a\\u0000b\\ud800'); throw new Error('a\\u0000b\\ud800')</script>",
    "/addresses": f"{_PAGE}<script>for (let i = 0; i < 20; i++)"
    " fetch('/honest?' + 'a'.repeat(2_000_000) + i).catch(() => {})</script>",
    "/busy": f"{_PAGE}<script>addEventListener('load', () => setTimeout(() => {{ for (;;); }}))</script>",
    "/dialogs": f"{_PAGE}<script>for (;;) alert('again')</script>",
    "/windows": f"{_PAGE}<script>setInterval(() => open('about:blank'))</script>",
}


class _Handler(socketserver.BaseRequestHandler):
    """One connection, one answer. What the other side does with it is what the test is about."""

    server: "_Server"

    def handle(self) -> None:
        self.request.settimeout(60)
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := self.request.recv(65_536)):
                    return
                head += data
            path = head.split(b" ")[1].split(b"?")[0].decode("latin-1")
            path = "/" + path.split("/", 3)[-1] if path.startswith("http") else path
            if path in PAGES:
                body = PAGES[path].encode()
                self.request.sendall(_OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            elif answer := _ANSWERS.get(path):
                answer(self)
            else:
                self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def until_left(self, piece: bytes, pause: float = 0) -> None:
        """Sends the same piece for as long as anybody takes it, and the test goes on."""
        while not self.server.ended.is_set():
            self.request.sendall(piece)
            if pause:
                time.sleep(pause)

    def negative_chunk(self) -> None:
        self.request.sendall(_OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n")
        self.until_left(b"x" * 65_536)

    def endless_interim(self) -> None:
        self.until_left(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)

    def long_extensions(self) -> None:
        self.request.sendall(_OK + b"Transfer-Encoding: chunked\r\n\r\n")
        self.until_left(b"1;" + b"e" * 60_000 + b"\r\nx\r\n")

    def huge_length(self) -> None:
        self.request.sendall(_OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n")
        self.until_left(b"x" * 65_536)

    def slow_head(self) -> None:
        self.request.sendall(b"HTTP/1.1 200 OK\r\n")
        self.until_left(b"X-A: b\r\n", pause=1)

    def silence(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.request.recv(1)

    def later(self) -> None:
        self.request.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n")


_ANSWERS: dict[str, Callable[[_Handler], None]] = {
    "/negative-chunk": _Handler.negative_chunk,
    "/endless-interim": _Handler.endless_interim,
    "/long-extensions": _Handler.long_extensions,
    "/huge-length": _Handler.huge_length,
    "/slow-head": _Handler.slow_head,
    "/silence": _Handler.silence,
    "/later": _Handler.later,
}


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ended = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections break here all the time."""

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


@contextmanager
def serving() -> Iterator[str]:
    """Yields the server's origin."""
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
