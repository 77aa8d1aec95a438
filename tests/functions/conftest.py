"""Functions loaded in this process, the way functions-framework loads them: for what needs no stack."""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import functions_framework
import jwt
import pytest
from flask import Flask
from werkzeug.test import Client

from deploy.stage import functions_in_repository, stage, target
from sidejob import config, upstream

SECRET = "only-for-tests-" + "x" * 32
ISSUER = "https://project.test/auth/v1"
USER = str(uuid.uuid4())

Load = Callable[[str], Client]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A project that cannot be reached, whose tokens the tests sign themselves."""
    for name in [name for name in os.environ if name.startswith("SUPABASE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:9")  # discard: nothing listens there
    monkeypatch.setenv("SUPABASE_PUBLISHABLE_KEY", "sb_publishable_test")
    monkeypatch.setenv("SUPABASE_JWT_SECRET", SECRET)
    monkeypatch.setenv("SUPABASE_JWT_ISSUER", ISSUER)
    monkeypatch.setattr(upstream, "_shared", None)
    config.settings.cache_clear()
    yield monkeypatch
    config.settings.cache_clear()
    if upstream._shared is not None:
        upstream._shared.close()


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each function as it is deployed."""
    into = tmp_path_factory.mktemp("staged")
    return {function: stage(function, into) for function in functions_in_repository()}


@pytest.fixture
def load(environment: pytest.MonkeyPatch, staged: dict[str, Path]) -> Iterator[Load]:  # noqa: ARG001  set first
    """Loads a staged function. What functions-framework leaves in the process is taken away again."""
    path, main, before = list(sys.path), sys.modules.get("main"), dict(os.environ)

    def loaded(function: str) -> Client:
        source = staged[function] / "main.py"
        app = functions_framework.create_app(target(function), str(source), "http")  # type: ignore[no-untyped-call]
        return app.test_client() if isinstance(app, Flask) else Client(as_wsgi(app))

    yield loaded
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(before)
    sys.modules.pop("main", None)
    if main is not None:
        sys.modules["main"] = main


def as_wsgi(app: Any) -> Callable[..., Iterable[bytes]]:
    """An ASGI application for the same client: for requests without a body and answers that end."""

    def serve(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        named = [
            (name[5:].replace("_", "-").lower(), value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        scope = {
            "type": "http",
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
            "query_string": environ["QUERY_STRING"].encode(),
            "headers": [(name.encode(), value.encode()) for name, value in named],
        }
        sent: list[MutableMapping[str, Any]] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(app(scope, None, send))
        start, *bodies = sent
        start_response(f"{start['status']} -", [(n.decode(), v.decode()) for n, v in start["headers"]])
        return [body["body"] for body in bodies]

    return serve


def token(
    key: object = SECRET, algorithm: str = "HS256", key_id: str | None = None, **changes: object
) -> str:
    """An access token as Auth would sign it, with changed claims; a claim changed to None is left out."""
    claims: dict[str, object] = {
        "sub": USER,
        "aud": "authenticated",
        "role": "authenticated",
        "iss": ISSUER,
        "exp": int(time.time()) + 600,
    }
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": key_id} if key_id else None)  # type: ignore[arg-type]


def bearer(**changes: object) -> dict[str, str]:
    """The header of a signed-in user."""
    return {"Authorization": f"Bearer {token(**changes)}"}  # type: ignore[arg-type]


Answer = tuple[int, object] | None  # a status and what goes out as JSON


class Project:
    """Answers with what the test has lined up, or makes of the request's body; the last of it for ever.
    None hangs up without an answer."""

    def __init__(self) -> None:
        self.answers: list[Answer | Callable[[bytes], Answer]] = []
        self.seen: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.ports: list[int] = []  # from which each request came: one a connection
        self.more: dict[str, str] = {}  # headers of every answer
        self.encode: Callable[[bytes], bytes] = bytes  # what every body becomes
        self.closing = False  # hangs up after every answer, without a word
        self.cut: int | None = None  # hangs up after so many bytes of the content
        project = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                project.paths.append(self.path)
                project.ports.append(self.client_address[1])
                project.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                project.seen.append({name.lower(): value for name, value in self.headers.items()})
                answer = project.answers.pop(0) if len(project.answers) > 1 else project.answers[0]
                if callable(answer):
                    answer = answer(project.bodies[-1])
                if answer is None:
                    self.close_connection = True
                    return
                data = project.encode(json.dumps(answer[1]).encode())
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(data)))
                for name, value in project.more.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data[: project.cut])
                self.close_connection |= project.closing or project.cut is not None

            do_POST = do_GET  # noqa: N815  http.server's name

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self.server.server_port
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture
def project(environment: pytest.MonkeyPatch) -> Iterator[Project]:
    project = Project()
    with project.serving() as port:
        environment.setenv("SUPABASE_URL", f"http://127.0.0.1:{port}")
        config.settings.cache_clear()
        yield project
