"""How a function speaks to its project when that is slow, broken, away or not to be trusted."""

import datetime
import gzip
import json
import select
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidejob import config, connections, upstream
from sidejob.database import Database
from sidejob.errors import CODES, Refused, Unavailable, from_upstream
from tests.functions.conftest import USER, Answer, Load, Project, bearer

DATABASE = Database("request-1", token="token-1")


@pytest.mark.parametrize("bad", [(503, {}), (502, {}), (429, {}), None])
def test_a_read_is_tried_once_more(project: Project, bad: tuple[int, object] | None) -> None:
    project.answers = [bad, (200, [{"id": 1}])]
    assert DATABASE.rows("jobs", {}) == [{"id": 1}]
    assert len(project.seen) == 2


@pytest.mark.parametrize("bad", [(503, {}), None])
def test_a_claim_is_never_tried_again(project: Project, bad: tuple[int, object] | None) -> None:
    project.answers = [bad]
    with pytest.raises(Unavailable) as unavailable:
        DATABASE.call("claim_one_job", {})
    assert unavailable.value.code == "database_unavailable"
    assert len(project.seen) == 1


@pytest.mark.parametrize("lost", [(503, {}), None])
def test_an_enqueue_whose_answer_was_lost_goes_again_and_makes_one_job(
    project: Project, load: Load, lost: tuple[int, object] | None
) -> None:
    """As when the server closes a kept connection under the request: nobody knows whether it was heard."""

    def found(body: bytes) -> tuple[int, object]:
        return 200, {"job_id": json.loads(body)["job_id"], "queued": False, "status": "queued"}

    project.answers = [lost, found]
    answer = load("task-assign").post("/", json={"type": "t"}, headers=bearer())
    first, second = (json.loads(body) for body in project.bodies)
    assert first == second
    assert answer.json == {"jobId": first["job_id"], "queued": True, "status": "queued"}
    assert str(UUID(first["job_id"])) == first["job_id"]


def test_an_enqueue_that_finds_an_earlier_job_did_not_queue_it(project: Project, load: Load) -> None:
    project.answers = [(200, {"job_id": USER, "queued": False, "status": "running"})]
    answer = load("task-assign").post("/", json={"type": "t", "uniqueSeconds": 60}, headers=bearer())
    assert answer.json == {"jobId": USER, "queued": False, "status": "running"}


def test_a_second_failure_is_final(project: Project) -> None:
    project.answers = [(503, {})]
    with pytest.raises(Unavailable):
        DATABASE.rows("jobs", {})
    assert len(project.seen) == 2


def test_a_lost_race_is_run_again_when_that_is_safe(project: Project) -> None:
    race = (409, {"code": "40001", "message": "could not serialize access"})
    project.answers = [race, (200, {"job_id": "1", "status": "succeeded"})]
    assert DATABASE.call_for_row("finish_job", {}, repeatable=True)["status"] == "succeeded"
    project.answers = [race]
    with pytest.raises(Unavailable) as unavailable:
        DATABASE.call("claim_one_job", {})
    assert (unavailable.value.code, unavailable.value.headers["Retry-After"]) == ("database_busy", "2")
    assert len(project.seen) == 3


def test_a_duplicate_is_no_lost_race(project: Project) -> None:
    project.answers = [(409, {"code": "23505", "message": 'violates unique constraint "jobs_pkey"'})]
    with pytest.raises(Refused) as refused:
        DATABASE.call("enqueue_job", {}, repeatable=True)
    assert refused.value.details == {"constraint": "jobs_pkey"}
    assert len(project.seen) == 1


def test_one_row_may_come_as_an_object_or_as_a_list(project: Project) -> None:
    for body in ({"a": 1}, [{"a": 1}]):
        project.answers = [(200, body)]
        assert DATABASE.call_for_row("start_job", {}) == {"a": 1}


@pytest.mark.parametrize("body", [[], [{"a": 1}, {"a": 2}], "text", None, [3]])
def test_an_answer_of_another_shape_is_502(project: Project, body: object) -> None:
    project.answers = [(200, body)]
    with pytest.raises(Unavailable) as unavailable:
        DATABASE.call_for_row("start_job", {})
    assert (unavailable.value.code, unavailable.value.status) == ("database_error", 502)


def test_what_the_project_sets_for_one_caller_the_next_does_not_send(project: Project) -> None:
    project.more = {"Set-Cookie": "session=of-the-first; Path=/"}
    project.answers = [(200, [])]
    for _ in range(2):
        DATABASE.rows("jobs", {})
    assert not any("cookie" in seen for seen in project.seen)


def test_a_redirect_is_not_followed(project: Project) -> None:
    project.more = {"Location": "/elsewhere"}
    project.answers = [(307, {})]
    with pytest.raises(Unavailable):
        DATABASE.rows("jobs", {})
    assert len(project.seen) == 1


def test_callers_on_many_threads_never_get_each_others_token(project: Project) -> None:
    project.answers = [(200, [])]

    def ask(number: int) -> None:
        Database(f"request-{number}", token=f"token-{number}").rows("jobs", {})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(200)))
    assert len(project.seen) == 200
    for seen in project.seen:
        assert seen["authorization"] == f"Bearer token-{seen['x-request-id'].removeprefix('request-')}"
        assert seen["apikey"] == "sb_publishable_test"


@pytest.mark.parametrize(
    ("key", "bearer"), [("sb_secret_x", None), ("eyJ.an.old_one", "Bearer eyJ.an.old_one")]
)
def test_the_secret_key_travels_in_apikey_and_as_a_bearer_only_if_it_is_a_token(
    project: Project, environment: pytest.MonkeyPatch, key: str, bearer: str | None
) -> None:
    project.answers = [(200, 3)]
    environment.setenv("SUPABASE_SECRET_KEY", key)
    config.settings.cache_clear()
    assert Database("request-1", as_project=True).call("release_expired_leases", {}) == 3
    (seen,) = project.seen
    assert (seen["apikey"], seen.get("authorization")) == (key, bearer)


@pytest.mark.usefixtures("environment")
def test_an_unreachable_project_is_asked_twice_whatever_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing was sent, so nothing can be done twice."""
    with pytest.raises(Unavailable) as unavailable:
        DATABASE.call("claim_one_job", {})
    assert (unavailable.value.code, unavailable.value.cause) == (
        "database_unavailable",
        "ConnectionRefusedError",
    )
    assert capsys.readouterr().out.count("trying once more") == 1


def test_a_connection_is_kept_for_the_next_request(project: Project) -> None:
    project.answers = [(200, [])]
    for _ in range(3):
        DATABASE.rows("jobs", {})
    assert len(set(project.ports)) == 1


@pytest.mark.parametrize("kept_seconds", [60, 0])
def test_a_kept_connection_that_was_closed_or_is_old_takes_no_request(kept_seconds: int) -> None:
    project = Project()
    project.answers = [(200, [])]
    with project.serving() as port:
        project.closing = kept_seconds > 0
        url = f"http://127.0.0.1:{port}"
        mine = connections.Connections(url, size=1, connect_seconds=2, kept_seconds=kept_seconds)
        assert mine.send("GET", "/", {}, None, 10).ok
        if project.closing:
            ((idle, _),) = mine._idle
            assert select.select([idle.sock], [], [], 10)[0], "the server closes it"
        assert mine.send("GET", "/", {}, None, 10).ok
        mine.close()
    assert len(set(project.ports)) == 2


def test_while_all_connections_are_taken_nothing_is_sent() -> None:
    project, asked, go_on = Project(), threading.Event(), threading.Event()

    def late(_: bytes) -> Answer:
        asked.set()
        go_on.wait(10)
        return 200, []

    project.answers = [late]
    with project.serving() as port, ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{port}"
        mine = connections.Connections(url, size=1, connect_seconds=0.05, kept_seconds=60)
        first = pool.submit(mine.send, "GET", "/", {}, None, 10)
        assert asked.wait(10)
        with pytest.raises(connections.Unsent, match="taken"):
            mine.send("GET", "/", {}, None, 10)
        go_on.set()
        assert first.result().ok
        assert mine.send("GET", "/", {}, None, 10).ok
        mine.close()
    assert len(project.seen) == 2


def test_no_proxy_of_the_environment_is_asked(project: Project, environment: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        environment.setenv(name, "http://127.0.0.1:9")
    project.answers = [(200, [])]
    assert DATABASE.rows("jobs", {}) == []


def test_a_path_in_the_projects_address_stands_before_all_others(
    project: Project, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SUPABASE_URL", f"{config.settings().supabase_url}/below/")
    config.settings.cache_clear()
    project.answers = [(200, [])]
    DATABASE.rows("jobs", {"or": "(a.eq.1,b.eq.+ &)", "limit": "1"})
    assert project.paths == ["/below/rest/v1/jobs?or=%28a.eq.1%2Cb.eq.%2B+%26%29&limit=1"]


@pytest.mark.parametrize("address", ["abcdef.supabase.co", "ftp://a.test", "https://", "http://a b"])
def test_an_address_that_is_none_is_named_by_its_variable(
    environment: pytest.MonkeyPatch, address: str
) -> None:
    environment.setenv("SUPABASE_URL", address)
    config.settings.cache_clear()
    with pytest.raises(config.WrongSetting, match="SUPABASE_URL"):
        config.settings()


def test_an_answer_may_come_compressed(project: Project) -> None:
    project.more = {"Content-Encoding": "gzip"}
    project.encode = gzip.compress
    project.answers = [(200, [{"id": 1}])]
    assert DATABASE.rows("jobs", {}) == [{"id": 1}]
    assert project.seen[0]["accept-encoding"] == "gzip"
    project.encode = bytes
    with pytest.raises(Unavailable) as unavailable:
        DATABASE.rows("jobs", {})
    assert unavailable.value.code == "database_unavailable"


def test_no_answer_in_time_is_504_and_not_tried_again(
    project: Project, environment: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ended.wait(10)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        environment.setenv("SUPABASE_URL", f"http://127.0.0.1:{server.server_port}")
        config.settings.cache_clear()
        with pytest.raises(Unavailable) as unavailable:
            upstream.send("database", "GET", "/", headers={}, repeatable=True, timeout_seconds=0.2)
        assert (unavailable.value.code, unavailable.value.status) == ("database_timeout", 504)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
    assert project.seen == []


def test_a_project_is_spoken_to_over_tls_when_its_certificate_is_trusted(
    project: Project, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    project.server.socket = server.wrap_socket(project.server.socket, server_side=True)
    project.answers = [(200, [])]
    environment.setenv("SUPABASE_URL", f"https://localhost:{project.server.server_port}")
    config.settings.cache_clear()
    with pytest.raises(Unavailable) as unavailable:
        DATABASE.rows("jobs", {})
    assert unavailable.value.cause == "SSLCertVerificationError"
    assert project.seen == []
    context = connections.trust()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)

    environment.setenv("SSL_CERT_FILE", str(pem))
    environment.setattr(upstream, "_shared", None)
    for _ in range(2):
        assert DATABASE.rows("jobs", {}) == []
    assert len(project.seen) == 2
    assert len(set(project.ports)) == 1, "over one connection"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"code": "PGRST301"}, "invalid_token"),
        (401, None, "invalid_token"),
        (403, {"code": "42501"}, "forbidden"),
        (400, {"code": "SJ100"}, "invalid_argument"),
        (400, {"code": "22P02"}, "invalid_argument"),
        (404, {"code": "PGRST202"}, "schema_outdated"),
        (503, {"code": "PGRST002"}, "database_unavailable"),
        (503, {"code": "53300"}, "database_unavailable"),
        (500, {"code": "08006"}, "database_unavailable"),
        (504, "a gateway's page", "database_unavailable"),
        (500, {"code": "57014"}, "database_timeout"),
        (500, {"code": "XX000", "message": "secret row"}, "database_error"),
        (400, {"code": "P0001"}, "invalid_argument"),
        (500, {"code": "40P01"}, "database_busy"),
        (409, {"code": "40001"}, "database_busy"),
        (500, {"code": "55P03"}, "database_busy"),
        (409, {"code": "40002"}, "invalid_argument"),
        (400, {"code": "21000"}, "invalid_argument"),
        (200, "a proxy's page", "database_error"),
    ],
)
def test_upstreams_failures_are_matched_by_code(status: int, body: object, code: str) -> None:
    failure = from_upstream(status, body)
    assert failure.code == code
    assert failure.status == CODES[code].status
    assert ("Retry-After" in failure.headers) == (failure.status > 500)


def test_what_the_database_says_stays_inside_but_for_what_the_migrations_wrote() -> None:
    message = 'row (secret) violates check constraint "type_is_short"'
    theirs = {"code": "23514", "message": message, "details": "secret", "hint": "secret"}
    envelope = from_upstream(400, theirs).envelope("r")
    assert "secret" not in json.dumps(envelope)
    assert envelope["error"] == "The database refused a value: type is short."
    ours = {"code": "SJ300", "message": "secret", "details": "cancelled", "hint": "Stop."}
    envelope = from_upstream(400, ours).envelope("r")
    assert (envelope["details"], envelope["hint"]) == ({"status": "cancelled"}, "Stop.")
    assert "secret" not in json.dumps(envelope)
