"""How much one caller may ask: what is over it gets a code of its own, and takes no memory."""

import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejob import auth, config, endpoint, serving
from sidejob.call import Caller
from sidejob.errors import Refused, Unavailable
from sidejob.limits import BURST_SECONDS, MOST_CALLERS, Places, Rate
from tests.functions.conftest import USER, Load, bearer, token
from tests.functions.test_endpoint import envelope


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def served(rate: Rate, caller: str, most: int = 1000) -> int:
    """How many requests in a row are taken."""
    for count in range(most):
        try:
            rate.take(caller)
        except Refused:
            return count
    return most


def test_a_burst_is_taken_and_then_the_rate() -> None:
    clock = Clock()
    rate = Rate(4, clock)
    assert served(rate, "a") == 4 * BURST_SECONDS
    clock.now += 1
    assert served(rate, "a") == 4
    clock.now += 3600
    assert served(rate, "a") == 4 * BURST_SECONDS


def test_who_waits_as_long_as_he_is_told_is_served() -> None:
    clock = Clock()
    rate = Rate(0.25, clock)
    served(rate, "a")
    with pytest.raises(Refused) as refused:
        rate.take("a")
    clock.now += int(refused.value.headers["Retry-After"])
    rate.take("a")


def test_what_one_caller_asks_is_not_taken_from_another() -> None:
    rate = Rate(1, Clock())
    served(rate, "a")
    assert served(rate, "b") == BURST_SECONDS


@settings(max_examples=300, deadline=None)
@given(
    st.floats(min_value=0, max_value=1e12),
    st.floats(min_value=0.001, max_value=10_000) | st.sampled_from([0.1, 0.3, 1 / 3, 7, 200, 999.999]),
)
def test_a_first_request_is_taken_at_every_time_of_the_clock(now: float, per_second: float) -> None:
    clock = Clock()
    clock.now = now
    rate = Rate(per_second, clock)
    burst = max(1, int(per_second * BURST_SECONDS + 1e-9))
    for number in range(min(burst, 50)):
        rate.check(str(number))
        rate.take("the same")
        rate.take(str(number))


def test_to_check_a_rate_takes_nothing_of_it() -> None:
    rate = Rate(1, Clock())
    for _ in range(100):
        rate.check("a")
    assert served(rate, "a") == BURST_SECONDS
    with pytest.raises(Refused):
        rate.check("a")


def test_zero_is_no_limit() -> None:
    assert served(Rate(0, Clock()), "a") == 1000


def test_a_hundred_thousand_callers_take_no_more_memory_than_ten_thousand() -> None:
    rate = Rate(1, Clock())
    served(rate, "busy")
    for number in range(10 * MOST_CALLERS):
        rate.take(str(number))
        if number % 1000 == 0:
            assert served(rate, "busy") == 0, "who goes on is not forgotten"
    assert len(rate._empty_at) == MOST_CALLERS


def test_streams_have_places_of_a_caller_and_of_the_instance() -> None:
    places = Places(per_caller=2, in_all=3)
    places.take("a")
    places.take("a")
    with pytest.raises(Refused) as refused:
        places.take("a")
    assert (refused.value.status, refused.value.code) == (429, "too_many_streams")
    places.take("b")
    with pytest.raises(Unavailable) as full:
        places.take("c")
    assert (full.value.status, full.value.code) == (503, "streams_full")
    assert full.value.headers["Retry-After"]
    places.give_back("a")
    places.take("c")
    for caller in ("a", "b", "c"):
        places.give_back(caller)
    assert not places._held


@pytest.fixture
def slow(environment: pytest.MonkeyPatch) -> None:
    """One request of a caller in ten seconds."""
    environment.setenv("RATE_PER_SECOND", "0.1")
    config.settings.cache_clear()
    serving._rate.cache_clear()


@pytest.mark.usefixtures("slow")
def test_a_caller_over_his_rate_is_429_and_others_go_on(load: Load) -> None:
    client = load("task-assign")
    first = client.post("/", headers=bearer())
    assert first.status_code == 400, "past the limit, to the empty body"
    second = client.post("/", headers=bearer())
    envelope(second, 429, "rate_limited")
    assert 1 <= int(second.headers["Retry-After"]) <= 10
    other = client.post("/", headers=bearer(sub="0f0e0d0c-0b0a-4908-8706-050403020100"))
    assert other.status_code == 400


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}])
def test_who_has_no_good_credential_counts_by_his_address(load: Load, headers: dict[str, str]) -> None:
    client = load("jobs-recent")
    assert client.get("/", headers=headers).status_code == 401
    envelope(client.get("/", headers=headers), 429, "rate_limited")
    elsewhere = {**headers, "x-forwarded-for": "203.0.113.7"}
    assert client.get("/", headers=elsewhere).status_code == 401
    pretending = {**headers, "x-forwarded-for": "198.51.100.1, 203.0.113.7"}
    envelope(client.get("/", headers=pretending), 429, "rate_limited")


@pytest.mark.parametrize(
    ("proxies", "header", "address"),
    [
        ("1", None, "peer"),
        ("1", "192.0.2.1", "192.0.2.1"),
        ("1", "198.51.100.9, 192.0.2.1", "192.0.2.1"),
        ("2", "198.51.100.9, 192.0.2.1, 203.0.113.7", "192.0.2.1"),
        ("2", "192.0.2.1", "192.0.2.1"),
        ("2", "192.0.2.1,,203.0.113.7, ", "192.0.2.1"),
        ("3", "192.0.2.1, 203.0.113.7, 203.0.113.8", "192.0.2.1"),
        ("0", "192.0.2.1", "peer"),
        ("1", " , ", "peer"),
    ],
)
def test_an_address_is_the_one_that_the_first_trusted_proxy_saw(
    environment: pytest.MonkeyPatch, proxies: str, header: str | None, address: str
) -> None:
    environment.setenv("TRUSTED_PROXIES", proxies)
    config.settings.cache_clear()
    headers = {} if header is None else {"x-forwarded-for": header}
    assert serving.address(headers, "peer") == address
    last = header.replace(" ", "").strip(",").rpartition(",")[2] if header and proxies != "0" else ""
    assert serving.nearest(headers, "peer") == (last or "peer")


@pytest.mark.parametrize("text", ["-1", "two", "1.5", "10"])
def test_a_number_of_proxies_that_is_none_is_named(environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("TRUSTED_PROXIES", text)
    config.settings.cache_clear()
    with pytest.raises(config.WrongSetting, match="TRUSTED_PROXIES"):
        config.settings()


def test_a_flood_of_bad_tokens_locks_out_nobody_but_its_own_address(
    load: Load, environment: pytest.MonkeyPatch
) -> None:
    """In a project whose tokens only Auth can check, and where all come through one forwarder."""
    environment.delenv("SUPABASE_JWT_SECRET")
    environment.setenv("TRUSTED_PROXIES", "2")
    config.settings.cache_clear()
    serving._rate.cache_clear()
    asked: list[str] = []
    good = [token(jti=f"good {number}") for number in range(3)]

    def ask(given: str) -> Caller:
        asked.append(given)
        if given in good:
            return Caller("user", USER, given, int(time.time()) + 600)
        raise Refused("invalid_token")

    environment.setattr(auth, "_answers", auth._Answers())
    environment.setattr(auth, "_user_by_asking", ask)
    client = load("task-assign")

    def status(bearer: str, address: str) -> int:
        headers = {"Authorization": f"Bearer {bearer}", "x-forwarded-for": f"{address}, 203.0.113.7"}
        return client.post("/", headers=headers).status_code

    assert status(good[0], "192.0.2.1") == 400, "past the credential, to the empty body"
    flood = [status(token(jti=f"bad {number}"), "192.0.2.1") for number in range(200)]
    assert set(flood) == {401, 429}
    assert len(asked) < 100, "Auth is spared"
    assert status(good[0], "192.0.2.1") == 400, "who was good a moment ago is not asked about"
    assert status(good[1], "192.0.2.1") == 429, "but is somebody new at the address of the flood"
    assert status(good[2], "192.0.2.2") == 400


@pytest.mark.parametrize("text", ["many", "-1", "1e9", "0x1"])
def test_a_limit_that_is_no_number_is_named(environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("RATE_PER_SECOND", text)
    config.settings.cache_clear()
    with pytest.raises(config.WrongSetting, match="RATE_PER_SECOND"):
        config.settings()


@pytest.mark.parametrize("function", ["jobs-recent", "task-assign", "job-events", "collab"])
def test_a_url_over_8_kib_is_414(load: Load, function: str) -> None:
    response = load(function).get(f"/?cursor={'x' * serving.URI_LIMIT}", headers=bearer())
    envelope(response, 414, "uri_too_long")


def test_a_body_that_stops_halfway_is_408_and_frees_its_thread(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_patience", endpoint.Patience(0.05))
    client = load("task-assign")
    for _ in range(3):
        ours, theirs = socket.socketpair()
        with ours, theirs, theirs.makefile("rb") as reading:
            ours.sendall(b'{"type":')
            response = client.post(
                "/",
                headers={**bearer(), "Content-Type": "application/json"},
                environ_overrides={"CONTENT_LENGTH": "100", "wsgi.input": reading, "gunicorn.socket": theirs},
            )
        envelope(response, 408, "request_timeout")
        assert response.headers["Connection"] == "close"


def test_a_body_that_came_in_time_leaves_its_connection_alone() -> None:
    patience = endpoint.Patience(0.05)
    ours, theirs = socket.socketpair()
    late, watched = socket.socketpair()
    with ours, theirs, late, watched:
        with patience.with_body_of(theirs):
            pass
        with patience.with_body_of(watched):
            assert watched.recv(1) == b"", "ended by then"
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a&b=<img src=x>", "\u202e\u2028", "a\r\nSet-Cookie: b"]
)
def test_what_an_error_says_of_the_request_is_no_markup_and_no_line_of_its_own(load: Load, name: str) -> None:
    response = load("jobs-recent").get("/", query_string={name: "1"}, headers=bearer())
    body = envelope(response, 400, "invalid_parameter")
    assert name[:20] in str(body["error"])
    assert response.content_type == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not set(response.data) & set(b"<>&\r\n")
    assert response.data.isascii()
    assert "Set-Cookie" not in response.headers
