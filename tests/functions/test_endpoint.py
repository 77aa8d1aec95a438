"""What every function does alike, seen from outside, with no project behind it."""

import io
import json
import re

import pytest
from werkzeug.test import Client, TestResponse

from deploy.stage import functions_in_repository
from sidejob import errors
from sidejob.endpoint import BODY_LIMIT
from tests.functions.conftest import USER, Load, bearer

SUPABASE_CLIENT_HEADERS = {
    "authorization", "x-client-info", "apikey", "content-type", "x-retry-count",
    "traceparent", "tracestate", "baggage",
}  # fmt: skip
JSON_TYPE = {"Content-Type": "application/json"}


def envelope(response: TestResponse, status: int, code: str) -> dict[str, object]:
    body = response.get_json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert set(body) == {"error", "code", "details", "hint", "requestId"}
    assert body["requestId"] == response.headers["x-request-id"]
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    return dict(body)


@pytest.mark.parametrize("function", functions_in_repository())
def test_preflight_is_204_before_anything_else(load: Load, function: str) -> None:
    response = load(function).options("/api/collab/jobs/recent", headers={"Origin": "https://app.test"})
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    allowed = set(re.split(r",\s*", response.headers["Access-Control-Allow-Headers"]))
    assert allowed >= SUPABASE_CLIENT_HEADERS | {"idempotency-key", "last-event-id", "x-request-id"}
    assert "x-request-id" in response.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("function", functions_in_repository())
def test_nobody_is_401_with_our_envelope(load: Load, function: str) -> None:
    client = load(function)
    method = "GET" if "GET" in client.options("/api/collab/jobs/recent").headers["Allow"] else "POST"
    response = client.open("/api/collab/jobs/recent", method=method)
    body = envelope(response, 401, "missing_token")
    assert "access token" in str(body["error"])
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("function", "method", "allow"),
    [
        ("jobs-recent", "POST", "GET, HEAD, OPTIONS"),
        ("jobs-recent", "DELETE", "GET, HEAD, OPTIONS"),
        ("task-assign", "GET", "POST, OPTIONS"),
        ("task-assign", "BREW", "POST, OPTIONS"),
        ("job-events", "BREW", "GET, HEAD, OPTIONS"),
        ("sign-artifact", "PUT", "GET, POST, HEAD, OPTIONS"),
    ],
)
def test_wrong_method_is_405_and_says_which_are_right(
    load: Load, function: str, method: str, allow: str
) -> None:
    response = load(function).open("/", method=method, headers=bearer())
    envelope(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == allow


def test_wrong_method_on_a_collab_route_is_405_and_an_unknown_route_404(load: Load) -> None:
    client = load("collab")
    envelope(client.post("/api/collab/jobs/recent"), 405, "method_not_allowed")
    envelope(client.get("/api/collab/task.assign"), 405, "method_not_allowed")
    unknown = envelope(client.get("/api/collab/jobs/ancient"), 404, "not_found")
    assert "jobs/recent" in str(unknown["hint"])


@pytest.mark.parametrize("path", ["/api/collab/job/a%0Ab", "/a%0Ab", "/favicon.ico", "/robots.txt"])
def test_what_the_framework_would_not_pass_on_is_answered_too(load: Load, path: str) -> None:
    for function in ("jobs-recent", "job-events"):
        envelope(load(function).get(path), 401, "missing_token")
    code = (401, "missing_token") if "job" in path else (404, "not_found")
    envelope(load("collab").get(path), *code)


def test_an_offer_of_a_websocket_is_passed_over(load: Load) -> None:
    headers = {"Connection": "upgrade", "Upgrade": "websocket"}
    envelope(load("jobs-recent").get("/", headers=headers), 401, "missing_token")


@pytest.mark.parametrize("mount", ["", "/functions/v1/collab", "/a/b"])
def test_collab_answers_wherever_it_is_mounted(load: Load, mount: str) -> None:
    response = load("collab").get(f"{mount}/api/collab/health")
    assert response.status_code == 200
    assert response.get_json()["ok"] is True
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", response.get_json()["ts"])


def test_head_is_get_without_a_body(load: Load) -> None:
    response = load("collab").head("/api/collab/health")
    assert (response.status_code, response.data) == (200, b"")


@pytest.mark.parametrize("given", ["call-12345678", "a" * 128])
def test_a_request_id_is_kept(load: Load, given: str) -> None:
    assert (
        load("collab").get("/api/collab/health", headers={"x-request-id": given}).headers["x-request-id"]
        == given
    )


@pytest.mark.parametrize("given", ["short", "a" * 129, "has a space", 'quote"quote'])
def test_a_bad_request_id_is_replaced(load: Load, given: str) -> None:
    response = load("collab").get("/api/collab/health", headers={"x-request-id": given})
    assert response.headers["x-request-id"] != given
    assert len(response.headers["x-request-id"]) == 36


def announced(client: Client, size: int) -> TestResponse:
    return client.post("/", data=b"x" * size, headers={**bearer(), **JSON_TYPE})


def chunked(client: Client, size: int) -> TestResponse:
    stream = {"wsgi.input": io.BytesIO(b"x" * size), "wsgi.input_terminated": True}
    headers = {**bearer(), **JSON_TYPE, "Transfer-Encoding": "chunked"}
    return client.post("/", headers=headers, environ_overrides=stream)


@pytest.mark.parametrize("send", [announced, chunked])
def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_read(load: Load, send: object) -> None:
    assert callable(send)
    client = load("task-assign")
    envelope(send(client, BODY_LIMIT + 1), 413, "body_too_large")
    envelope(send(client, 3 * BODY_LIMIT), 413, "body_too_large")
    envelope(send(client, BODY_LIMIT), 400, "invalid_json")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_that_does_not_say_it_is_json_is_415(load: Load, content_type: str | None) -> None:
    response = load("task-assign").post(
        "/", data=b'{"type":"t"}', content_type=content_type, headers=bearer()
    )
    envelope(response, 415, "unsupported_media_type")


def test_a_compressed_body_is_415(load: Load) -> None:
    headers = {**bearer(), **JSON_TYPE, "Content-Encoding": "gzip"}
    envelope(load("task-assign").post("/", data=b"{}", headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"not json", b"[" * 100_000, b'{"type":' * 100_000,
        b'{"type":"\xff"}', b'{"type":"\\ud800"}', b'{"type":"t"} more', b"{'type':'t'}",
    ],
)  # fmt: skip
def test_what_is_not_json_is_400(load: Load, body: bytes) -> None:
    envelope(load("task-assign").post("/", data=body, headers={**bearer(), **JSON_TYPE}), 400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"3", b'"text"'])
def test_json_that_is_no_object_is_422(load: Load, body: bytes) -> None:
    response = load("task-assign").post("/", data=body, headers={**bearer(), **JSON_TYPE})
    assert "object" in str(envelope(response, 422, "invalid_body")["error"])


def test_an_unreachable_project_is_503_with_retry_after(load: Load) -> None:
    response = load("jobs-recent").get("/", headers=bearer())
    envelope(response, 503, "database_unavailable")
    assert int(response.headers["Retry-After"]) > 0


def test_a_bug_is_500_and_only_the_log_knows_it(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the inside story, sb_secret_abc123")

    client = load("jobs-recent")
    monkeypatch.setattr("sidejob.database.Database.call_for_rows", broken)
    body = envelope(client.get("/", headers=bearer()), 500, "internal_error")
    assert "inside story" not in json.dumps(body)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["severity"], line["requestId"]) == ("ERROR", body["requestId"])
    assert "inside story" in line["traceback"]
    assert "sb_secret_abc123" not in json.dumps(line)


def test_missing_settings_are_a_500_whose_log_names_all_of_them(
    load: Load, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = load("jobs-recent")
    environment.delenv("SUPABASE_URL")
    environment.delenv("SUPABASE_PUBLISHABLE_KEY")
    envelope(client.get("/", headers=bearer()), 500, "internal_error")
    assert "SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY" in capsys.readouterr().out


def test_each_request_is_one_line_of_json_without_token_body_or_query(
    load: Load, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {**bearer(), **JSON_TYPE, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    client = load("task-assign")
    capsys.readouterr()
    client.post("/?secretive=query", data=b'{"type":"body-content"}', headers=headers)
    (text,) = capsys.readouterr().out.splitlines()
    line = json.loads(text)
    assert line["function"] == "task_assign"
    assert line["method"] == "POST"
    assert line["status"] == 400
    assert line["severity"] == "INFO"
    assert line["userId"] == USER
    assert line["traceId"] == trace
    assert line["logging.googleapis.com/spanId"] == "00f067aa0ba902b7"
    assert line["durationMs"] >= 0
    assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{trace}"
    assert not re.search("query|body-content|eyJ", text)


@pytest.mark.parametrize(
    "bad", ["", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "00-4bf9-00f0-01", "nonsense"]
)
def test_without_a_good_traceparent_a_trace_begins(
    load: Load, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    client = load("collab")
    capsys.readouterr()
    traces = set()
    for _ in range(2):
        client.get("/api/collab/health", headers={"traceparent": bad} if bad else {})
        line = json.loads(capsys.readouterr().out)
        assert re.fullmatch("(?!0{32})[0-9a-f]{32}", line["traceId"])
        assert line["logging.googleapis.com/trace"] == line["traceId"]
        traces.add(line["traceId"])
    assert len(traces) == 2


def test_every_code_has_a_status_and_a_sentence() -> None:
    for code, meaning in errors.CODES.items():
        assert re.fullmatch(r"[a-z_]+", code)
        assert 400 <= meaning.status < 600
        assert meaning.sentence.endswith(".")
    assert set(errors.UPSTREAM.values()) <= set(errors.CODES)
