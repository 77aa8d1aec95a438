"""Requests that a machine makes of the OpenAPI document, and others that no document has: never a 5xx, never an answer
that is not documented, always our envelope."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deploy.stage import ROOT
from sidejob.openapi.operations import COLLAB, FUNCTIONS
from tests.stack import Person

# Not `positive_data_acceptance`: what one field demands of another (`backoffMaxSeconds` of `backoffSeconds`, a key of an
# earlier request's payload) no schema can say.
CHECKS = ",".join(
    (
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method",
        "allow_header_conformance", "ignored_auth",
    )
)  # fmt: skip
ALL_PHASES = "examples,coverage,fuzzing,stateful"
CALLERS = ["member", "worker", "owner", "nobody"]


def schemathesis(person: Person, folder: Path, *, paths: str, phases: str, examples: int, seed: int) -> None:
    """Runs it as anybody would, and fails with what it says."""
    env = person.stack.env
    base = env["SUPABASE_URL"]
    if paths.startswith("^/api/collab"):
        base = env["COLLAB_URL"].removesuffix("/api/collab")
    headers = [word for name, value in person.headers.items() for word in ("--header", f"{name}: {value}")]
    program = Path(sys.executable).with_name("schemathesis")
    command = [
        str(program), "--no-color", "run", str(ROOT / "docs" / "openapi.json"), "--url", base,
        *headers, "--include-path-regex", paths, "--checks", CHECKS, "--phases", phases,
        "--max-examples", str(examples), "--seed", str(seed), "--request-timeout", "20",
        "--suppress-health-check", "all", "--workers", "2",
    ]  # fmt: skip
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_schemathesis_finds_nothing_in_the_functions(member: Person, tmp_path: Path) -> None:
    schemathesis(member, tmp_path, paths="^/functions/", phases="fuzzing", examples=2, seed=8)


def test_schemathesis_finds_nothing_in_the_function_that_streams(member: Person, tmp_path: Path) -> None:
    schemathesis(member, tmp_path, paths="/job-events$", phases="coverage,fuzzing", examples=10, seed=8)


def test_schemathesis_finds_nothing_in_collab(worker: Person, tmp_path: Path) -> None:
    schemathesis(
        worker, tmp_path, paths="^/api/collab/(task.claim|jobs/recent)", phases="coverage", examples=1, seed=8
    )


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("paths", ["^/functions/", "^/api/collab/"])
def test_schemathesis_finds_nothing_in_a_long_run(
    request: pytest.FixtureRequest, tmp_path: Path, who: str, paths: str, seed: int
) -> None:
    schemathesis(
        request.getfixturevalue(who), tmp_path, paths=paths, phases=ALL_PHASES, examples=100, seed=seed
    )


@contextmanager
def connected(url: str) -> Iterator[HTTPConnection]:
    place = urlsplit(url)
    connection = HTTPConnection(str(place.hostname), place.port, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


@cache
def promised() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
    return document


def check_answer(path: str, method: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """Is it what the document promises?"""
    assert status < 500, body
    document = promised()
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(status) in responses, f"{method} {path} {status} is not documented: {body[:300]!r}"
    response = responses[str(status)]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    assert {name.lower() for name in response["headers"]} <= set(headers)
    if content := response.get("content", {}).get("application/json"):
        assert headers["content-type"] == "application/json"
        whole = {**content["schema"], "components": document["components"]}
        faults = [fault.message for fault in Draft202012Validator(whole).iter_errors(json.loads(body))]
        assert not faults


def ask(
    person: Person, path: str, method: str, query: str, body: bytes | None, headers: dict[str, str]
) -> None:
    """One request over the gateway, or at Collab's own port, byte for byte."""
    base = person.stack.env["COLLAB_URL" if path.startswith("/api/collab") else "SUPABASE_URL"]
    with connected(base) as connection:
        target = path.replace("{id}", "x").replace("{jobId}", "x") + (f"?{query}" if query else "")
        connection.request(method, target, body, {**person.headers, **headers})
        answer = connection.getresponse()
        received = {name.lower(): value for name, value in answer.getheaders()}
        check_answer(path, method, answer.status, received, answer.read())


READING = [f"/functions/v1/{name}" for name, methods in FUNCTIONS.items() if "get" in methods]
READING += [f"/api/collab/{path}" for path, methods in COLLAB.items() if "get" in methods and "{" not in path]
WRITING = [f"/functions/v1/{name}" for name, methods in FUNCTIONS.items() if "post" in methods]
WRITING += [f"/api/collab/{path}" for path, methods in COLLAB.items() if "post" in methods]
NAMES = st.sampled_from(
    [
        "limit",
        "cursor",
        "id",
        "jobId",
        "status",
        "executorId",
        "type",
        "artifactId",
        "expires",
        "path",
        "after",
    ]
)
RAW = st.text(st.characters(codec="utf-8"), max_size=20).map(quote) | st.binary(max_size=12).map(quote)
BROKEN = st.sampled_from(
    ["%", "%zz", "%00", "%ED%A0%80", "%F0%9F%98%80", "%0d%0aX:%20y", "+", "null", "", "&&", "=", "%26"]
)
QUERIES = st.lists(st.tuples(NAMES | RAW, RAW | BROKEN), max_size=5).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
DEEP = st.sampled_from(
    [b"[" * 50_000, b'{"payload":' * 50_000, b'{"type":"t","payload":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"]
)
NUMBERS = st.sampled_from([b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-0.0", b"1E400", b"0x10", b"01"])
STRINGS = st.sampled_from(
    [b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\xff"', b'"\xed\xa0\x80"', b'"\n"', b'"\\x"']
)
VALUES = NUMBERS | STRINGS | st.sampled_from([b"null", b"true", b"[]", b"{}"])
FIELDS = st.sampled_from(
    [b"type", b"payload", b"jobId", b"priority", b"runAt", b"attempt", b"ok", b"leaseSeconds", b"executorId", b"metrics",
     b"agentId", b"result", b"artifacts", b"dlqId", b"after", b"expires", b"idempotencyKey", b"constructor", b"__proto__"]
)  # fmt: skip
OBJECTS = st.lists(st.tuples(FIELDS, VALUES), max_size=6).map(
    lambda pairs: b"{" + b",".join(b'"%s":%s' % pair for pair in pairs) + b"}"
)
BODIES = OBJECTS | DEEP | VALUES | st.binary(max_size=200) | st.just(b'\xef\xbb\xbf{"type":"t"}')
ODD_HEADERS = st.dictionaries(
    st.sampled_from(
        ["Idempotency-Key", "x-request-id", "traceparent", "Origin", "apikey", "If-None-Match", "Last-Event-ID", "Accept",
         "X-Forwarded-For", "Range", "Expect-CT", "X-HTTP-Method-Override", "Forwarded"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
    max_size=4,
)  # fmt: skip
TYPES = st.sampled_from(
    [
        "application/json",
        "application/json; charset=utf-16",
        "APPLICATION/JSON",
        "text/plain",
        "multipart/form-data",
        "",
        "a/b;;",
    ]
)
ENCODINGS = st.sampled_from([{}, {}, {}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "identity, br"}])
FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=3000)


def reading(person: Person) -> Any:
    @given(st.sampled_from(READING), QUERIES, ODD_HEADERS)
    def run(path: str, query: str, headers: dict[str, str]) -> None:
        ask(person, path, "GET", query, None, headers)

    return run


def writing(person: Person) -> Any:
    @given(st.sampled_from(WRITING), BODIES, TYPES, ENCODINGS, ODD_HEADERS)
    def run(path: str, body: bytes, kind: str, encoding: dict[str, str], headers: dict[str, str]) -> None:
        ask(person, path, "POST", "", body, {"Content-Type": kind, **encoding, **headers})

    return run


@pytest.mark.parametrize("of", [reading, writing])
def test_no_query_body_or_header_gets_an_answer_that_is_not_documented(member: Person, of: Any) -> None:
    FEW(of(member))()


@pytest.mark.soak
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("of", [reading, writing])
def test_nor_do_thousands(request: pytest.FixtureRequest, who: str, of: Any) -> None:
    MANY(of(request.getfixturevalue(who)))()
