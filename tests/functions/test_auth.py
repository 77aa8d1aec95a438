"""Who may come in, with the project's answers spoken by a real HTTP server beside the test."""

import base64
import hmac
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from deploy.stage import ROOT
from sidejob import auth, config
from sidejob.call import Caller
from sidejob.errors import Refused, Unavailable
from sidejob.signing_keys import (
    FRESH_SECONDS,
    RETRY_SECONDS,
    STALE_SECONDS,
    UNKNOWN_FETCHES,
    UNKNOWN_SECONDS,
    SigningKeys,
    fetched,
)
from tests.functions.conftest import ISSUER, SECRET, USER, token

PRIVATE = ec.generate_private_key(ec.SECP256R1())
ANOTHER = ec.generate_private_key(ec.SECP256R1())


def jwk(key: ec.EllipticCurvePrivateKey, key_id: str) -> dict[str, Any]:
    public: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": key_id, "alg": "ES256", "use": "sig"}


def with_header(header: bytes) -> str:
    """A token whose header says this."""
    return f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.e30.eA"


class Project:
    """Supabase Auth as far as a function asks it: its answers, set by the test, and what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {"/auth/v1/.well-known/jwks.json": (200, {"keys": []})}
        self.asked: list[str] = []
        project = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                project.asked.append(self.path)
                status, body = project.answers.get(self.path, (404, {}))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def keys(self, *keys: Mapping[str, Any], status: int = 200) -> None:
        self.answers["/auth/v1/.well-known/jwks.json"] = (status, {"keys": [*keys]})


@pytest.fixture
def project(environment: pytest.MonkeyPatch) -> Iterator[Project]:
    project = Project()
    thread = threading.Thread(target=project.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    environment.setenv("SUPABASE_URL", project.url)
    environment.setattr(auth, "_keys", SigningKeys(fetched))
    config.settings.cache_clear()
    yield project
    project.server.shutdown()
    project.server.server_close()
    thread.join()


def come(bearer: str | None = None, who: auth.Who = "user", **headers: str) -> Caller:
    credential = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
    return auth.authenticated({**credential, **headers}, who)


def refused(status: int, code: str, coming: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as refusal:
        coming()
    assert (refusal.value.status, refusal.value.code) == (status, code)
    return refusal.value


def test_a_good_hs256_token_is_its_user(project: Project) -> None:
    caller = come(token())
    assert (caller.kind, caller.user_id) == ("user", USER)
    assert project.asked == []


@pytest.mark.parametrize("word", ["Bearer", "bearer", "BEARER"])
def test_bearer_may_be_written_in_any_case(project: Project, word: str) -> None:  # noqa: ARG001
    assert auth.authenticated({"authorization": f"{word} {token()}"}, "user").user_id == USER


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(exp=int(time.time()) - 60),
        lambda: token(iss="https://another-project.test/auth/v1"),
        lambda: token(iss=None),
        lambda: token(aud="anon"),
        lambda: token(aud=None),
        lambda: token(sub=None),
        lambda: token(sub="not-a-uuid"),
        lambda: token(exp=None),
        lambda: token("the secret of another project " + "x" * 32),
        lambda: jwt.encode({"sub": USER, "role": "authenticated"}, "", "none"),
        lambda: token()[:-4],
        lambda: "three.word.token",
        lambda: "nonsense",
        lambda: with_header(b"[" * 5000),
        lambda: with_header(b'{"alg":' + b"9" * 5000 + b"}"),
        lambda: with_header(b'{"alg":"HS256","kid":[]}'),
        lambda: with_header(b'{"alg":["HS256"]}'),
        lambda: token(nbf=int(time.time()) + 3600),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_bad_token_is_401(bad: Callable[[], str]) -> None:
    refusal = refused(401, "invalid_token", lambda: come(bad()))
    assert refusal.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.usefixtures("project")
def test_a_clock_half_a_minute_off_is_forgiven() -> None:
    assert come(token(exp=int(time.time()) - 20)).user_id == USER


@pytest.mark.usefixtures("project")
def test_the_legacy_keys_are_tokens_of_nobody() -> None:
    for role in ("anon", "service_role"):
        as_issued = {"role": role, "iss": "supabase", "ref": "project", "sub": None, "aud": None}
        for claims in ({"role": role}, as_issued):
            refusal = refused(401, "missing_token", lambda claims=claims: come(token(**claims)))  # type: ignore[misc]
            assert "project key" in str(refusal.hint)


@pytest.mark.usefixtures("project")
def test_a_project_key_as_bearer_counts_as_absent() -> None:
    refusal = refused(401, "missing_token", lambda: come("sb_publishable_abc"))
    assert "access token" in refusal.message
    assert "sb_" in str(refusal.hint)
    refused(401, "missing_token", lambda: come("sb_secret_abc"))
    refused(401, "missing_token", lambda: come(None, apikey="sb_publishable_abc"))
    refused(401, "missing_token", lambda: auth.authenticated({"authorization": "Basic dTpw"}, "user"))


@pytest.mark.parametrize("who", ["user", "user or secret", "anybody"])
@pytest.mark.usefixtures("project")
def test_a_secret_key_from_a_browser_is_never_accepted(
    environment: pytest.MonkeyPatch, who: auth.Who
) -> None:
    environment.setenv("SUPABASE_SECRET_KEY", "sb_secret_right")
    origin = {"origin": "https://app.test"}
    refused(403, "secret_key_in_browser", lambda: come(None, who, apikey="sb_secret_right", **origin))
    refused(403, "secret_key_in_browser", lambda: come("sb_secret_right", who, **origin))
    refused(403, "secret_key_in_browser", lambda: come(token(), who, apikey="sb_secret_right", **origin))


@pytest.mark.usefixtures("project")
def test_the_secret_key_opens_only_what_says_so(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SUPABASE_SECRET_KEY", "sb_secret_right")
    assert come(None, "user or secret", apikey="sb_secret_right").kind == "secret"
    # supabase-js sends its key in both headers
    assert come("sb_secret_right", "user or secret", apikey="sb_secret_right").kind == "secret"
    assert come(token(), "user or secret", apikey="sb_secret_right").kind == "user"
    refused(401, "invalid_key", lambda: come(None, "user or secret", apikey="sb_secret_wrong"))
    refused(401, "missing_token", lambda: come(None, "user", apikey="sb_secret_right"))


@pytest.mark.usefixtures("project")
def test_an_old_projects_secret_key_opens_the_same_and_stands_for_no_user(
    environment: pytest.MonkeyPatch,
) -> None:
    ours = token(role="service_role", iss="supabase", sub=None, aud=None)
    environment.setenv("SUPABASE_SECRET_KEY", ours)
    for bearer in (None, ours):  # an old supabase-js sends it in both headers
        assert come(bearer, "user or secret", apikey=ours).kind == "secret"
        refused(401, "missing_token", lambda bearer=bearer: come(bearer, "user", apikey=ours))  # type: ignore[misc]
    refused(403, "secret_key_in_browser", lambda: come(ours, apikey=ours, origin="https://app.test"))
    another = token(role="service_role", iss="supabase", sub=None, aud=None, ref="x")
    refused(401, "missing_token", lambda: come(another, "user or secret", apikey=another))


@pytest.mark.usefixtures("project")
def test_without_a_configured_secret_key_none_is_right() -> None:
    refused(401, "invalid_key", lambda: come(None, "user or secret", apikey="sb_secret_"))


def test_es256_tokens_are_checked_with_the_projects_keys_fetched_once(project: Project) -> None:
    project.keys(jwk(PRIVATE, "one"), {"kty": "oct", "kid": "mine", "alg": "HS256", "k": "eHh4"})
    for _ in range(3):
        assert come(token(PRIVATE, "ES256", "one")).user_id == USER
    assert len(project.asked) == 1
    refused(401, "invalid_token", lambda: come(token(ANOTHER, "ES256", "one")))
    refused(401, "invalid_token", lambda: come(token(ANOTHER, "ES256", "unknown")))
    refused(401, "invalid_token", lambda: come(token(PRIVATE, "ES256")))


def test_rs256_tokens_are_checked_too_and_each_key_with_its_own_algorithm(project: Project) -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    project.keys({**public, "kid": "two", "alg": "RS256"}, jwk(PRIVATE, "one"))
    assert come(token(private, "RS256", "two")).user_id == USER
    refused(401, "invalid_token", lambda: come(token(private, "RS512", "two")))
    refused(401, "invalid_token", lambda: come(token(private, "RS256", "one")))


def test_a_rotation_is_followed_at_once(project: Project) -> None:
    project.keys(jwk(PRIVATE, "one"))
    assert come(token(PRIVATE, "ES256", "one")).user_id == USER
    project.keys(jwk(ANOTHER, "two"), jwk(PRIVATE, "one"))
    assert come(token(ANOTHER, "ES256", "two")).user_id == USER
    assert come(token(PRIVATE, "ES256", "one")).user_id == USER
    assert len(project.asked) == 2


COMING = """if True:
    import sys
    from sidejob import auth
    for token in sys.argv[1:]:
        try:
            came = auth.authenticated({"authorization": f"Bearer {token}"}, "user").user_id
        except auth.Refused as refused:
            came = refused.code
        print(came, *{"cryptography"} & set(sys.modules))
"""


def test_public_keys_cost_nothing_before_the_first_of_them_and_all_tokens_are_good_after(
    project: Project,
) -> None:
    """The project rotates from a secret to a key pair under a process that runs."""
    project.keys(jwk(PRIVATE, "one"))
    strange = token(PRIVATE, "ES256", "another")
    coming = [token(), token(PRIVATE, "ES256", "one"), token(ANOTHER, "ES256", "one"), strange, token()]
    ran = subprocess.run(
        [sys.executable, "-c", COMING, *coming], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split() for line in ran.stdout.splitlines()] == [
        [USER],
        [USER, "cryptography"],
        ["invalid_token", "cryptography"],
        ["invalid_token", "cryptography"],
        [USER, "cryptography"],
    ]


def test_a_strange_key_id_loads_nothing_for_public_keys_where_there_are_none(project: Project) -> None:  # noqa: ARG001
    coming = [token(), token(PRIVATE, "ES256", "one"), token()]
    ran = subprocess.run(
        [sys.executable, "-c", COMING, *coming], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [USER, "invalid_token", USER]


def test_a_token_that_was_good_is_refused_when_its_time_is_over(
    project: Project, environment: pytest.MonkeyPatch
) -> None:
    project.keys(jwk(PRIVATE, "one"))
    for good in (token(), token(PRIVATE, "ES256", "one")):
        assert come(good).user_id == USER
        with environment.context() as later:
            later.setattr(time, "time", lambda now=time.time: now() + 1200)
            assert "expired" in refused(401, "invalid_token", lambda good=good: come(good)).message  # type: ignore[misc]
        assert come(good).user_id == USER


def test_a_token_that_was_good_is_refused_when_its_key_is_withdrawn(
    project: Project, environment: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    environment.setattr(auth, "_keys", SigningKeys(fetched, lambda: now[0]))
    project.keys(jwk(PRIVATE, "one"))
    good = token(PRIVATE, "ES256", "one")
    assert come(good).user_id == come(good).user_id == USER
    project.keys(jwk(ANOTHER, "one"))
    now[0] += FRESH_SECONDS
    refused(401, "invalid_token", lambda: come(good))
    project.keys()
    now[0] += FRESH_SECONDS
    refused(401, "invalid_token", lambda: come(token(ANOTHER, "ES256", "one")))


def test_the_public_key_is_no_hs256_secret(project: Project) -> None:
    """The old confusion: sign with the public key's text, and say HS256."""
    project.keys(jwk(PRIVATE, "one"))
    secret = json.dumps(jwk(PRIVATE, "one")).encode()
    head, claims, _ = token(key_id="one").split(".")
    signature = hmac.digest(secret, f"{head}.{claims}".encode(), "sha256")
    forged = f"{head}.{claims}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    refused(401, "invalid_token", lambda: come(forged))


def test_an_outage_of_auth_is_503_and_never_401(project: Project) -> None:
    project.keys(status=500)
    with pytest.raises(Unavailable) as unavailable:
        come(token(PRIVATE, "ES256", "one"))
    assert unavailable.value.code == "auth_unavailable"
    assert int(unavailable.value.headers["Retry-After"]) > 0


def test_without_a_secret_auth_itself_is_asked(project: Project, environment: pytest.MonkeyPatch) -> None:
    environment.delenv("SUPABASE_JWT_SECRET")
    config.settings.cache_clear()
    project.answers["/auth/v1/user"] = (200, {"id": USER, "role": "authenticated"})
    assert come(token("a secret that only Auth knows " + "x" * 32)).user_id == USER
    project.answers["/auth/v1/user"] = (403, {"code": "bad_jwt"})
    refused(401, "invalid_token", lambda: come(token(SECRET)))
    for status in (429, 500, 503):
        project.answers["/auth/v1/user"] = (status, {})
        with pytest.raises(Unavailable):
            come(token(SECRET, jti=str(status)))


@pytest.fixture
def asking(project: Project, environment: pytest.MonkeyPatch) -> tuple[Project, list[float]]:
    """A project whose tokens only Auth can check, and the time, which the test moves."""
    now = [1000.0]
    environment.delenv("SUPABASE_JWT_SECRET")
    environment.setattr(auth, "_answers", auth._Answers(lambda: now[0]))
    config.settings.cache_clear()
    project.answers["/auth/v1/user"] = (200, {"id": USER, "role": "authenticated"})
    return project, now


def test_what_auth_says_of_a_token_is_remembered_for_a_short_while(
    asking: tuple[Project, list[float]],
) -> None:
    project, now = asking
    good, bad = token(jti="good"), token(jti="bad")
    for _ in range(3):
        assert come(good).user_id == USER
    assert len(project.asked) == 1
    now[0] += auth.GOOD_SECONDS
    project.answers["/auth/v1/user"] = (403, {"code": "session_not_found"})
    refused(401, "invalid_token", lambda: come(good))
    for _ in range(3):
        refused(401, "invalid_token", lambda: come(bad))
    assert len(project.asked) == 3
    now[0] += auth.BAD_SECONDS
    project.answers["/auth/v1/user"] = (200, {"id": USER, "role": "authenticated"})
    assert come(bad).user_id == USER


def test_a_flood_of_bad_tokens_forgets_no_good_one_and_takes_no_more_memory(
    asking: tuple[Project, list[float]], environment: pytest.MonkeyPatch
) -> None:
    project, _ = asking
    environment.setattr(auth, "KEPT_TOKENS", 3)
    good = token(jti="good")
    assert come(good).user_id == USER
    project.answers["/auth/v1/user"] = (403, {"code": "bad_jwt"})
    for number in range(10):
        refused(401, "invalid_token", lambda number=number: come(token(jti=f"bad {number}")))  # type: ignore[misc]
    assert come(good).user_id == USER
    assert (len(auth._answers._good), len(auth._answers._bad)) == (1, 3)


@pytest.mark.parametrize(
    "bad", [{"exp": 1}, {"aud": "anon"}, {"iss": "https://elsewhere.test"}, {"sub": None}, {"nbf": 2**33}]
)
def test_auth_is_not_asked_about_what_it_would_refuse_whoever_signed_it(
    asking: tuple[Project, list[float]], bad: dict[str, object]
) -> None:
    project, _ = asking
    refused(401, "invalid_token", lambda: come(token(**bad)))  # type: ignore[arg-type]
    assert project.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        (200, "a proxy's page"), (200, None), (200, []), (200, {}), (200, {"id": 7, "role": "authenticated"}),
        (200, {"id": "x", "role": "authenticated"}), (403, "a proxy's page"), (404, "a page"), (307, {}),
    ],
)  # fmt: skip
def test_an_answer_of_auth_of_an_unexpected_shape_is_503_and_never_401(
    asking: tuple[Project, list[float]], answer: tuple[int, object]
) -> None:
    project, _ = asking
    project.answers["/auth/v1/user"] = answer
    with pytest.raises(Unavailable) as unavailable:
        come(token())
    assert unavailable.value.code == "auth_unavailable"


DAMAGED: list[object] = [
    "no key", 7, None, [], {}, {"kid": "x"}, {"kid": 7, "alg": "ES256"}, {"kid": "x", "alg": ["ES256"]},
    {"kid": "x", "alg": "ES256"}, {"kid": "x", "alg": "RS256", "kty": "RSA"},
    {"kid": "x", "alg": "ES256", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
    {"kid": "x", "alg": "ES256", "kty": "EC", "crv": "P-256", "x": 1, "y": None},
    {"kid": "x", "alg": "RS256", "kty": "RSA", "n": "", "e": ""},
]  # fmt: skip


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_key_does_not_make_the_others_unknown(
    project: Project, damaged: object, place: int
) -> None:
    keys: list[Any] = [jwk(PRIVATE, "one")]
    keys.insert(place, damaged)
    project.keys(*keys)
    assert come(token(PRIVATE, "ES256", "one")).user_id == USER


def test_damaged_keys_are_one_line_of_the_log_however_many_there_are(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.keys(*({"kid": f"{number} " + "x" * 9000, "alg": "ES256"} for number in range(90)))
    refused(401, "invalid_token", lambda: come(token(PRIVATE, "ES256", "one")))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "signing keys" in line]
    assert '"damaged": 90' in line
    assert len(line) < 2000


@pytest.mark.parametrize("keys", [None, "x", {}, 7])
def test_a_key_set_of_an_unexpected_shape_is_503_and_never_401(project: Project, keys: object) -> None:
    project.answers["/auth/v1/.well-known/jwks.json"] = (200, {"keys": keys})
    with pytest.raises(Unavailable):
        come(token(PRIVATE, "ES256", "one"))


def test_the_issuer_can_be_left_unchecked(project: Project, environment: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    environment.setenv("SUPABASE_JWT_ISSUER", "none")
    config.settings.cache_clear()
    assert come(token(iss=None)).user_id == USER


def test_the_issuer_is_the_projects_own_by_default(project: Project, environment: pytest.MonkeyPatch) -> None:
    environment.delenv("SUPABASE_JWT_ISSUER")
    config.settings.cache_clear()
    assert come(token(iss=f"{project.url}/auth/v1")).user_id == USER
    refused(401, "invalid_token", lambda: come(token(iss=ISSUER)))


class Fetch:
    """Stands for the network, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.count = 0
        self.away = False
        self.keys = {"one": jwt.PyJWK(jwk(PRIVATE, "one"))}

    def __call__(self) -> dict[str, jwt.PyJWK]:
        self.count += 1
        if self.away:
            raise Unavailable("auth_unavailable")
        return dict(self.keys)


def test_keys_are_kept_while_fresh_and_fetched_again_after() -> None:
    fetch = Fetch()
    keys = SigningKeys(fetch, lambda: fetch.now)
    assert keys.find("one") is keys.find("one")
    assert fetch.count == 1
    fetch.now += FRESH_SECONDS
    assert keys.find("one")
    assert fetch.count == 2


def test_unknown_ids_cannot_make_it_fetch_all_the_time() -> None:
    fetch = Fetch()
    keys = SigningKeys(fetch, lambda: fetch.now)
    for _ in range(10):
        assert keys.find("two") is None
    assert fetch.count == UNKNOWN_FETCHES
    fetch.keys["two"] = fetch.keys["one"]
    assert keys.find("two") is None
    fetch.now += UNKNOWN_SECONDS
    assert keys.find("two")
    assert fetch.count == UNKNOWN_FETCHES + 1


def test_a_new_key_during_an_outage_is_no_bad_token() -> None:
    fetch = Fetch()
    keys = SigningKeys(fetch, lambda: fetch.now)
    assert keys.find("one")
    fetch.away = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            keys.find("two")
        assert keys.find("one"), "those that are known go on"
    assert fetch.count == 2, "and Auth is not asked all the time"
    fetch.away = False
    fetch.keys["two"] = fetch.keys["one"]
    fetch.now += RETRY_SECONDS
    assert keys.find("two")


def test_old_keys_serve_through_an_outage_for_an_hour() -> None:
    fetch = Fetch()
    keys = SigningKeys(fetch, lambda: fetch.now)
    assert keys.find("one")
    fetch.away = True
    fetch.now += STALE_SECONDS - 1
    assert keys.find("one")
    fetch.now += 3
    with pytest.raises(Unavailable):
        keys.find("one")
    with pytest.raises(Unavailable):
        keys.find("one")
    fetch.away = False
    fetch.now += 3
    assert keys.find("one")


def test_while_one_fetches_the_others_go_on_with_the_old_set() -> None:
    fetch = Fetch()
    keys = SigningKeys(fetch, lambda: fetch.now)
    assert keys.find("one")
    fetch.now += FRESH_SECONDS
    with keys._lock:
        assert keys.find("one")
    assert fetch.count == 1
