"""The forwarders under functions/v1 of a hosted project: run by Deno, with this stack's functions behind them."""

import json
import os
import shutil
import socket
import subprocess
import threading
import tomllib
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.stage import ROOT, functions_in_repository
from local import setup
from tests.stack import Stack

HERE = Path(__file__).parent
FORWARDERS = ROOT / "supabase" / "functions"
NAMES = functions_in_repository()
# One call of each function that needs nothing to be there, and the status that it then has.
CALLS: dict[str, tuple[dict[str, Any], int]] = {
    "artifacts-list": ({"method": "GET"}, 400),
    "artifacts-sweep": ({"body": {}}, 403),
    "collab": ({"method": "GET"}, 404),
    "collab/api/collab/jobs/recent?limit=1": ({"method": "GET"}, 200),
    "dlq-discard": ({"body": {"dlqId": 987654321}}, 404),
    "dlq-list": ({"method": "GET"}, 200),
    "dlq-retry": ({"body": {"dlqId": 987654321}}, 404),
    "job-cancel": ({"body": {"jobId": str(uuid.uuid4())}}, 404),
    "job-events": ({"method": "GET"}, 400),
    "job-status": ({"method": "GET"}, 400),
    "jobs-recent?limit=2": ({"method": "GET"}, 200),
    "leases-release": ({"body": {}}, 403),
    "metrics-overview": ({"method": "GET"}, 200),
    "sign-artifact": ({"body": {"artifactId": str(uuid.uuid4())}}, 404),
    "task-assign": ({"body": {"type": "edge.test", "executorId": "edge", "colour": 1}}, 422),
    "task-claim": ({"body": {"executorId": "edge"}}, 403),
    "task-result": ({"body": {"jobId": str(uuid.uuid4()), "attempt": 1, "leaseToken": "x" * 20, "ok": True}}, 404),
    "worker-heartbeat": ({"body": {"agentId": "edge", "executorId": "edge", "status": "idle"}}, 403),
    "workers-active": ({"method": "GET"}, 200),
}  # fmt: skip


@pytest.fixture(scope="session")
def deno() -> str:
    """The binary that the npm package brings, installed once into .local/."""
    folder = setup.TOOLS / "edge"
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder, env=os.environ | {"NODE_USE_SYSTEM_CA": "1"}, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
    (found,) = folder.glob("node_modules/@deno/*/deno")
    return str(found)


class Edge:
    """Deno with all forwarders, in front of functions at an address with `{name}` in it."""

    def __init__(self, deno: str, address: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [deno, "run", "--no-remote", "--no-prompt", "--allow-net", "--allow-env", "--allow-read"]
        self.process = subprocess.Popen(
            [*command, str(HERE / "serve.ts"), str(port), *NAMES],
            env={"PATH": os.environ["PATH"], "NO_COLOR": "1", "DENO_DIR": str(setup.TOOLS / "deno")}
            | ({"SIDEJOB_FUNCTIONS": address} if address else {}),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=f"{self.url}/functions/v1", trust_env=False, timeout=60)

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture(scope="session")
def edge(deno: str, stack: Stack) -> Iterator[Edge]:
    running = Edge(deno, f"{stack.env['FUNCTIONS_URL']}/{{name}}")
    yield running
    running.close()


def test_every_function_has_a_forwarder_that_names_it_and_no_gate_before_it() -> None:
    assert {path.name for path in FORWARDERS.iterdir()} == {*NAMES, "_shared"}
    config = tomllib.loads((ROOT / "supabase" / "config.toml").read_text())["functions"]
    assert config == {name: {"verify_jwt": False} for name in NAMES}
    for name in NAMES:
        lines = (FORWARDERS / name / "index.ts").read_text().splitlines()
        assert lines[-1] == f'Deno.serve(forward("{name}"));'
        assert len(lines) < 6


def test_no_forwarder_asks_for_a_key() -> None:
    shared = (FORWARDERS / "_shared" / "forward.ts").read_text()
    assert shared.count("Deno.env.get(") == 1
    assert "SERVICE_ROLE" not in shared


def test_every_function_is_invoked_by_the_official_client(edge: Edge, stack: Stack) -> None:
    assert {name.partition("?")[0].partition("/")[0] for name in CALLS} == set(NAMES)
    member = stack.sign_in("DEMO")
    asked = {
        "url": edge.url,
        "key": stack.env["SUPABASE_PUBLISHABLE_KEY"],
        "token": member.token,
        "calls": [[name, options] for name, (options, _) in CALLS.items()],
    }
    node, modules = str(setup.node_program()), setup.NODE_FOLDER / "node_modules"
    script = setup.TOOLS / "node" / "invoke.mjs"  # beside the packages that it imports
    shutil.copy(HERE / "invoke.mjs", script)
    assert modules.is_dir()
    ran = subprocess.run(
        [node, str(script)], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {one["name"]: one["status"] for one in answers} == {
        name: status for name, (_, status) in CALLS.items()
    }, ran.stdout
    for one in answers:
        if one["status"] == 200:
            assert one["error"] is None
        else:
            assert one["error"] == "FunctionsHttpError"
            assert set(one["body"]) == {"error", "code", "details", "hint", "requestId"}


@pytest.mark.parametrize("name", NAMES)
def test_preflights_and_refusals_are_those_of_the_function_itself(
    edge: Edge, stack: Stack, name: str
) -> None:
    direct = f"{stack.env['FUNCTIONS_URL']}/{name}"
    page = {"Origin": "https://app.test", "x-request-id": "edge-forwarder-1"}
    for method, headers in (
        ("OPTIONS", {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}),
        ("GET", {}), ("POST", {"Content-Type": "application/json"}), ("PUT", {}), ("GET", {"Authorization": "Bearer x.y.z"}),
    ):  # fmt: skip
        through = edge.http.request(method, f"/{name}", headers=page | headers)
        straight = stack.http.request(method, direct, headers=page | headers)
        assert through.status_code == straight.status_code
        assert through.content == straight.content
        assert _said(through) == _said(straight)
    assert edge.http.request("OPTIONS", f"/{name}").status_code == 204


def _said(answer: httpx.Response) -> dict[str, str]:
    """What an answer says of itself, beside its connection."""
    connection = {"connection", "keep-alive", "date", "server", "transfer-encoding", "content-length", "vary"}
    return {name: value for name, value in answer.headers.items() if name not in connection}


def test_a_job_goes_in_and_is_followed_to_its_end_through_the_forwarders(edge: Edge, stack: Stack) -> None:
    member, worker = stack.sign_in("DEMO"), stack.sign_in("WORKER2")
    executor = f"edge-{uuid.uuid4().hex[:8]}"
    key = f"key-{executor}"
    job = {"type": "edge.test", "executorId": executor, "payload": {"word": "슬롯 ✓"}}
    first = edge.http.post("/task-assign", json=job, headers={**member.headers, "Idempotency-Key": key})
    assert first.json()["queued"] is True
    again = edge.http.post("/task-assign", json=job, headers={**member.headers, "Idempotency-Key": key})
    assert (again.json()["jobId"], again.json()["queued"]) == (first.json()["jobId"], False)

    claimed = edge.http.post("/task-claim", json={"executorId": executor}, headers=worker.headers).json()[
        "job"
    ]
    assert claimed["payload"] == job["payload"]
    seen: list[str] = []
    with edge.http.stream("GET", f"/job-events?id={claimed['id']}", headers=member.headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
            if seen == ["job.queued", "job.claimed"]:  # it streams: the end comes only now
                seen.append("…")
                result = {
                    "jobId": claimed["id"],
                    "attempt": claimed["attempts"],
                    "leaseToken": claimed["lease_token"],
                }
                done = edge.http.post("/task-result", json={**result, "ok": True}, headers=worker.headers)
                assert done.status_code == 200, done.text
    assert seen[-1] == "job.succeeded"
    status = edge.http.get(f"/job-status?id={claimed['id']}", headers=member.headers)
    etag = {"If-None-Match": status.headers["etag"]}
    assert (
        edge.http.get(f"/job-status?id={claimed['id']}", headers={**member.headers, **etag}).status_code
        == 304
    )


def test_a_body_that_is_too_large_is_refused_in_the_functions_words(edge: Edge, stack: Stack) -> None:
    headers = {**stack.sign_in("DEMO").headers, "Content-Type": "application/json"}
    answer = edge.http.post("/task-assign", content=b"x" * 3 * 1024 * 1024, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_what_the_caller_sends_arrives_unchanged(deno: str) -> None:
    heard: list[tuple[str, str, dict[str, str], bytes]] = []

    class Listening(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
            headers = {name.lower(): value for name, value in self.headers.items()}
            heard.append((self.command, self.path, headers, body))
            self.send_response(307)
            self.send_header("Location", "https://elsewhere.test/")
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    edge = Edge(deno, f"http://127.0.0.1:{server.server_port}/{{name}}")
    try:
        sent = {
            "Authorization": "Bearer a.b.c", "apikey": "sb_publishable_x", "Idempotency-Key": '"k"', "Last-Event-ID": "7",
            "traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "x-client-info": "supabase-js-web/2.109.0",
        }  # fmt: skip
        answer = edge.http.request(
            "PATCH", "/collab/api/collab/a%2Fb?q=%2B+x&q=2", headers=sent, content=b"{\x00\xff}"
        )
    finally:
        edge.close()
        server.shutdown()
        server.server_close()
    assert (answer.status_code, answer.headers["location"], answer.headers["retry-after"], answer.text) == (
        307, "https://elsewhere.test/", "7", "no",
    )  # fmt: skip
    ((method, path, headers, body),) = heard
    assert (method, path, body) == ("PATCH", "/collab/api/collab/a%2Fb?q=%2B+x&q=2", b"{\x00\xff}")
    assert {name.lower(): value for name, value in sent.items()}.items() <= headers.items()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"x-forwarded-for": "198.51.100.1, 192.0.2.1"}, "192.0.2.1"),
        ({"x-forwarded-for": "198.51.100.1", "cf-connecting-ip": "2001:db8::1"}, "2001:db8::1"),
        ({"x-forwarded-for": "198.51.100.1, nonsense"}, None),
        ({}, None),
    ],
)
def test_of_the_addresses_that_a_caller_came_through_one_arrives(
    deno: str, sent: dict[str, str], told: str | None
) -> None:
    heard: list[str | None] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("x-forwarded-for"))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    edge = Edge(deno, f"http://127.0.0.1:{server.server_port}/{{name}}")
    try:
        assert edge.http.get("/jobs-recent", headers=sent).status_code == 200
    finally:
        edge.close()
        server.shutdown()
        server.server_close()
    assert heard == [told]


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:2/{name}"])
def test_a_function_that_cannot_be_reached_is_503_in_the_envelope(deno: str, address: str) -> None:
    edge = Edge(deno, address)
    try:
        answer = edge.http.get("/jobs-recent", headers={"x-request-id": "edge-503-test"})
        preflight = edge.http.options("/jobs-recent", headers={"Access-Control-Request-Headers": "x-own"})
    finally:
        edge.close()
    assert answer.status_code == 503
    assert answer.headers["access-control-allow-origin"] == "*"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json().items() >= {"code": "function_unavailable", "requestId": "edge-503-test"}.items()
    assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (204, "x-own")


def test_a_reader_who_goes_away_is_noticed_by_the_function(deno: str) -> None:
    gone = threading.Event()

    class Streaming(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                while not gone.wait(0.01):
                    self.wfile.write(b": ping\n\n")
            except OSError:
                gone.set()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Streaming)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    edge = Edge(deno, f"http://127.0.0.1:{server.server_port}/{{name}}")
    try:
        with edge.http.stream("GET", "/job-events") as stream:
            assert next(stream.iter_lines()) == ": ping"
        assert gone.wait(60)
    finally:
        gone.set()
        edge.close()
        server.shutdown()
        server.server_close()
