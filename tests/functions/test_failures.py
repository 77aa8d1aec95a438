"""One classification of failures: a function's own answer has the verdict of what its project answered."""

import gzip

import pytest

from sidejob import config
from sidejob.database import Database
from sidejob.errors import Refused, SidejobError, Unavailable, from_upstream
from sidejob.verdicts import verdict
from tests.functions.conftest import USER, Load, Project, bearer

CLASS_21 = "two rows where one was needed: something is named twice"
DATABASE = Database("request-1", token="token-1")

# A code of each class of Postgres' appendix A, those of PostgREST, ours, and raised statuses.
CLASSES = """
00000 01000 02000 03000 08006 09000 0A000 0B000 0F000 0L000 0P000 0Z000 10608 20000 21000 22003 22P02 22P05
23502 23503 23505 23514 23P01 24000 25006 25P02 26000 27000 28P01 2B000 2D000 2F000 34000 38000 39000 3B000
3D000 3F000 40001 40002 40P01 42501 42P01 42703 44000 53100 53200 53300 54000 54001 55000 55P03 57014 57P01
58030 72000 F0000 HV000 P0001 P0002 XX000 XX001 PGRST000 PGRST003 PGRST100 PGRST102 PGRST116 PGRST202
PGRST205 PGRST300 PGRST301 PGRST303 PGRSTX00 SJ100 SJ101 SJ102 SJ200 SJ201 SJ300 SJ301 SJ302 SJ303 SJ304
SJ305 PT409 PT429 PT503
"""


def check_answer(failure: SidejobError, expected: str) -> None:
    """Does the function's answer say the same to its own caller, who has its code, its status, or both?"""
    assert verdict(failure.code, failure.status) == expected
    assert verdict(None, failure.status) == ("never" if expected == "lost" else expected)
    if expected == "later":
        assert failure.status >= 500
        assert int(failure.headers["Retry-After"]) > 0
    else:
        assert 400 <= failure.status < 500


@pytest.mark.parametrize("status", [400, 409, 500])
@pytest.mark.parametrize("state", CLASSES.split())
def test_a_function_says_of_each_sqlstate_what_the_classification_says(
    project: Project, state: str, status: int
) -> None:
    project.answers = [(status, {"code": state, "message": "told", "details": None, "hint": None})]
    with pytest.raises((Refused, Unavailable)) as raised:
        DATABASE.call("finish_job", {}, repeatable=True)
    check_answer(raised.value, verdict(state, status))
    if raised.value.code == "invalid_argument" and not state.startswith("SJ"):
        assert state in raised.value.message, "a refusal has a name"


@pytest.mark.parametrize("body", [{}, [], "<html>Bad gateway</html>", None, {"code": 7}, {"message": ["x"]}])
def test_a_function_says_of_each_status_what_the_classification_says(body: object) -> None:
    for status in range(100, 600):
        check_answer(from_upstream(status, body), verdict(None, status))


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57014", "57P01", "53300"])
def test_a_result_that_met_a_conflict_is_to_be_sent_again(project: Project, load: Load, state: str) -> None:
    project.answers = [(500, {"code": state, "message": "deadlock detected"})]
    report = {"jobId": USER, "attempt": 1, "leaseToken": "t", "ok": True}
    answer = load("task-result").post("/", json=report, headers=bearer())
    assert answer.status_code >= 500
    assert int(answer.headers["Retry-After"]) > 0
    assert verdict(answer.get_json()["code"], answer.status_code) == "later"


SHAPES: dict[str, tuple[int, bytes]] = {
    "a proxy's page": (200, b"<html><body>Sign in to the wifi</body></html>"),
    "nothing": (200, b""),
    "no content": (204, b""),
    "half of it": (200, b'[{"id":"0f0e0d0c-0b0a-4908-8706-0504'),
    "another encoding": (200, '[{"id":"é"}]'.encode("latin-1")),
    "UTF-16": (200, "[]".encode("utf-16")),
    "a number": (200, b"7"),
    "a text": (200, b'"ok"'),
    "null": (200, b"null"),
    "a list of lists": (200, b"[[]]"),
    "rows of something else": (200, b'[{"ok":true}]'),
    "an object of something else": (200, b'{"ok":true}'),
    "NaN": (200, b"[NaN]"),
    "100,000 brackets": (200, b"[" * 100_000),
}
ASKED: dict[str, tuple[str, str, dict[str, object] | None]] = {
    "task-assign": ("/", "POST", {"type": "t"}),
    "task-claim": ("/", "POST", {"executorId": "e"}),
    "task-result": ("/", "POST", {"jobId": USER, "attempt": 1, "leaseToken": "t", "ok": True}),
    "job-cancel": ("/", "POST", {"jobId": USER}),
    "worker-heartbeat": ("/", "POST", {"agentId": "a", "executorId": "e", "status": "idle"}),
    "job-status": (f"/?id={USER}", "GET", None),
    "artifacts-list": (f"/?jobId={USER}", "GET", None),
    "sign-artifact": (f"/?artifactId={USER}", "GET", None),
    "dlq-retry": ("/", "POST", {"dlqId": 1}),
    "artifacts-sweep": ("/", "POST", {}),
    "metrics-overview": ("/", "GET", None),
    "jobs-recent": ("/", "GET", None),
    "job-events": (f"/?id={USER}", "GET", None),
}


@pytest.mark.parametrize("function", ASKED)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_of_an_unexpected_shape_may_pass(
    project: Project, load: Load, environment: pytest.MonkeyPatch, function: str, shape: str
) -> None:
    """It is a proxy's, or cut off: to ask again may help, and nothing of it is taken for an answer."""
    environment.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
    config.settings.cache_clear()
    status, body = SHAPES[shape]
    project.encode = lambda _: body
    project.answers = [(status, None)]
    path, method, sent = ASKED[function]
    answer = load(function).open(path, method=method, json=sent, headers=bearer())
    expected = {
        ("metrics-overview", "an object of something else"),  # which columns it has is the database's affair
        ("jobs-recent", "rows of something else"),
        ("artifacts-list", "rows of something else"),
    }
    if (function, shape) in expected:
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.get_json()["code"]) == (502, "database_error"), answer.text
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_that_broke_off_is_no_answer(project: Project, load: Load, packed: bool) -> None:
    """Though what came of it is a list, and a whole one."""
    project.answers = [(200, None)]
    content = gzip.compress(b"[]" + b" " * 1000) if packed else b"[]" + b" " * 1000
    project.encode = lambda _: content
    project.more = {"Content-Encoding": "gzip"} if packed else {}
    assert load("jobs-recent").get("/", headers=bearer()).status_code == 200
    project.cut = len(content) - 8
    answer = load("jobs-recent").get("/", headers=bearer())
    assert (answer.status_code, answer.get_json()["code"]) == (503, "database_unavailable")


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        ("SJ200", "job_id: there is no such job", "`jobId`: there is no such job, or not for you."),
        ("SJ200", "id: there is no such letter", "`dlqId`: there is no such letter, or not for you."),
        ("SJ100", "unique_seconds: must be 1 to 31536000", "`uniqueSeconds`: must be 1 to 31536000."),
        ("SJ100", "jobs[3].run_at: must be a time", "`jobs[3].run_at`: must be a time."),
        ("SJ101", "last_event: written by the queue", "`lastEvent`: written by the queue."),
        ("SJ201", "only a worker may do this", "Only a worker may do this."),
        ("SJ100", "two\nlines: " + "x" * 900, None),
        ("SJ100", "", "The database refused a value of this request."),
        ("SJ200", "", "There is no such thing, or not for you."),
        ("23514", 'value for domain sidejob.priority violates check constraint "priority_is_0_to_9"',
         "The database refused a value: priority is 0 to 9."),
        ("23502", 'null value in column "size" of relation "artifacts" violates not-null constraint',
         "The database refused a value: `size` must not be null."),
        ("21000", "ON CONFLICT DO UPDATE command cannot affect row a second time",
         f"The database refused this request: {CLASS_21} (SQLSTATE 21000)."),
    ],
)  # fmt: skip
def test_a_refusal_of_the_database_names_the_field_in_our_words(
    code: str, message: str, told: str | None
) -> None:
    failure = from_upstream(400, {"code": code, "message": message, "hint": "Do it."}, {"id": "dlqId"})
    if told is not None:
        assert failure.message == told
    assert len(failure.message) < 400
    assert "\n" not in failure.message
