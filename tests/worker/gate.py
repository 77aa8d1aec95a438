"""A way to the stack that can be closed for some requests."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal

import httpx

How = int | Literal["cut", "lose"] | Callable[[bytes], bytes]


class Gate:
    """Passes requests on to the stack, but for those that it is told to spoil."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.passed: list[str] = []  # paths that reached the stack
        self._rules: list[tuple[str, How, list[int]]] = []

    def close(self, path: str, how: How, times: int = 1_000_000) -> None:
        """The next `times` requests whose path holds `path` get this status, are cut off unasked ("cut"), are
        passed on and lose their answer ("lose"), or get the answer that a function makes of it."""
        self._rules.append((path, how, [times]))

    def open(self) -> None:
        self._rules.clear()

    def rule(self, path: str) -> How | None:
        for part, how, left in self._rules:
            if part in path and left[0] > 0:
                left[0] -= 1
                return how
        return None


@contextmanager
def gate_to(upstream: str) -> Iterator[Gate]:
    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.gate = gate = Gate(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with httpx.Client(base_url=upstream, timeout=60, trust_env=False) as client:
            Handler.client = client
            yield gate
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    gate: ClassVar[Gate]
    client: ClassVar[httpx.Client]

    def log_message(self, *_: object) -> None:
        pass

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        how = self.gate.rule(self.path)
        if isinstance(how, int):
            return self._send(how, b'{"message": "closed", "error": "closed", "statusCode": "%d"}' % how)
        if how == "cut":
            return None
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        answer = self.client.request(self.command, self.path, content=body, headers=kept)
        self.gate.passed.append(self.path)
        if how == "lose":
            return None
        if callable(how):
            return self._send(answer.status_code, how(answer.content), "text/html")
        return self._send(answer.status_code, answer.content, answer.headers.get("content-type", ""))

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the worker did not wait
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = _pass  # noqa: N815  http.server's names


_OWN = ("host", "content-length", "connection", "accept-encoding")
