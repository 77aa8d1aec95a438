"""Pages that go wrong: each has its code, and its verdict on another attempt."""

import asyncio
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.worker.conftest import Camera
from worker.browser.faults import VERDICTS
from worker.handlers import Done, GiveUp, RetryLater

VERDICT_OF_PAGE: list[tuple[Mapping[str, Any], str, type]] = [
    ({"url": "/loop"}, "too_many_redirects", GiveUp),
    ({"url": "/cut"}, "empty_response", RetryLater),
    ({"url": "/nothing"}, "not_a_page", GiveUp),
    ({"url": "/download"}, "not_a_page", GiveUp),
    ({"url": "/to-file"}, "blocked_scheme", GiveUp),
    ({"url": "/leave"}, "blocked_address", GiveUp),
    ({"url": "/squares", "js": "location = '/to-file'", "delayMs": 1500}, "not_a_page", GiveUp),
    ({"url": "/hang", "timeoutMs": 2500}, "navigation_timeout", RetryLater),
    ({"url": "/font", "timeoutMs": 2500}, "navigation_timeout", RetryLater),
    ({"url": "/app"}, "blocked_scheme", GiveUp),
    ({"url": "/endless/network", "waitUntil": "networkidle", "timeoutMs": 3000}, "wait_timeout", RetryLater),
    ({"url": "/endless/script", "timeoutMs": 3000, "delayMs": 100}, "page_hung", RetryLater),
    ({"url": "/hostile/popups", "delayMs": 10_000}, "page_error", GiveUp),
    ({"url": "/status/404"}, "http_status", GiveUp),
    ({"url": "/status/410"}, "http_status", GiveUp),
    ({"url": "/status/408"}, "http_status", RetryLater),
    ({"url": "/status/425"}, "http_status", RetryLater),
    ({"url": "/status/429"}, "http_status", RetryLater),
    ({"url": "/status/500"}, "http_status", RetryLater),
    ({"url": "/status/503"}, "http_status", RetryLater),
    ({"url": "/squares", "selector": "#nowhere", "timeoutMs": 2500}, "selector_not_found", GiveUp),
    ({"url": "/squares", "waitForSelector": "#nowhere", "timeoutMs": 2500}, "selector_not_found", GiveUp),
    ({"url": "/squares", "js": "this is no script"}, "script_error", GiveUp),
    ({"url": "/squares", "js": "throw new Error('on purpose')"}, "script_error", GiveUp),
    ({"html": "<body style='margin: 0'><div style='width: 70000px; height: 9px'>", "clip":
      {"x": 0, "y": 0, "width": 65_000, "height": 9}}, "page_too_large", GiveUp),
    ({"url": "/squares", "clip": {"x": 0, "y": 9000, "width": 9, "height": 9}}, "invalid_payload", GiveUp),
    ({"url": "/squares", "hide": ["#red", "]["]}, "invalid_payload", GiveUp),
    ({"url": "/squares", "selector": "]["}, "invalid_payload", GiveUp),
    ({"url": "/squares", "device": "Abacus 7"}, "invalid_payload", GiveUp),
    ({"url": "/squares", "timezone": "Mars/Olympus"}, "invalid_payload", GiveUp),
    ({"html": "<script>for (let i = 0; i < 20; i++) console.log('x'.repeat(1e6))</script>", "delayMs": 10_000},
      "page_error", GiveUp),
    ({"html": "<script>for (let i = 0; i < 3000; i++) setTimeout(() => { throw 1 })</script>", "delayMs": 10_000},
      "page_error", GiveUp),
    ({"url": "file:///etc/passwd"}, "blocked_scheme", GiveUp),
    ({"url": "http://127.0.0.1:1/"}, "blocked_address", GiveUp),
]  # fmt: skip
FLOOD = ({"url": "/hostile/console", "delayMs": 10_000}, "page_error", GiveUp)


@pytest.mark.parametrize(
    ("payload", "code", "verdict"),
    [*VERDICT_OF_PAGE, pytest.param(*FLOOD, marks=pytest.mark.soak)],
    ids=[str(dict(row[0])) for row in (*VERDICT_OF_PAGE, FLOOD)],
)
async def test_each_awkward_page_has_its_verdict(
    camera: Camera, payload: Mapping[str, Any], code: str, verdict: type
) -> None:
    found, outcome = await camera.fault(payload)
    assert (found, type(outcome)) == (code, verdict), outcome
    assert code in VERDICTS
    assert outcome.error.message.endswith("."), "an error is a sentence"


async def test_a_refused_connection_is_tried_again(camera: Camera) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        closed = Camera(camera.engine, camera.site, frozenset({origin}))
        code, outcome = await closed.fault({"url": origin + "/"})
    assert (code, type(outcome)) == ("connection_refused", RetryLater)


async def test_an_unsafe_port_is_final(camera: Camera) -> None:
    allowed = frozenset({camera.site.origin, "http://127.0.0.1:6000"})
    code, outcome = await Camera(camera.engine, camera.site, allowed).fault({"url": "/to-port"})
    assert (code, type(outcome)) == ("unsafe_port", GiveUp)


async def test_a_page_without_tls_is_no_https_page(camera: Camera) -> None:
    origin = camera.site.origin.replace("http:", "https:")
    code, outcome = await Camera(camera.engine, camera.site, frozenset({origin})).fault(
        {"url": origin + "/squares"}
    )
    assert (code, type(outcome)) == ("tls_error", GiveUp)


@pytest.mark.parametrize(
    ("said", "after"),
    [("7", timedelta(seconds=7)), ("86400", timedelta(hours=1)), ("soon", None), ("", None)],
)
async def test_retry_after_is_honoured_up_to_an_hour(
    camera: Camera, said: str, after: timedelta | None
) -> None:
    _, outcome = await camera.fault({"url": f"/status/503?retry={said}"})
    assert isinstance(outcome, RetryLater)
    assert outcome.after == after


async def test_the_worker_limits_how_long_a_page_may_load(camera: Camera) -> None:
    code, _ = await camera.fault({"url": "/hang"}, nav=0.4)
    assert code == "navigation_timeout"


async def test_a_frame_from_inside_fails_nothing_but_is_not_shown(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/frame"})
    assert shot.at(50, 50) != (255, 0, 0)
    assert shot.result["blockedRequests"] == {"total": 1, "hosts": ["127.0.0.1"]}


async def test_a_frame_that_is_redirected_inside_is_not_shown(camera: Camera) -> None:
    html = f"<body style='margin: 0'><iframe style='border: 0' src='{camera.site.url('/leave')}'></iframe>"
    shot = await camera.shoot({"html": html})
    assert shot.at(50, 50) != (255, 0, 0)
    assert shot.result["blockedRequests"] == {"total": 1, "hosts": ["127.0.0.1"]}


async def test_a_crashed_page_is_told_from_a_crashed_browser(camera: Camera) -> None:
    shooting = asyncio.create_task(camera.outcome({"url": "/squares", "delayMs": 10_000}))
    page = await camera.page("/squares")
    session = await page.context.new_cdp_session(page)
    crash = asyncio.create_task(session.send("Page.crash"))
    outcome = await shooting
    assert isinstance(outcome, RetryLater)
    assert outcome.error.code == "page_crashed"
    await asyncio.gather(crash, return_exceptions=True)


async def test_a_failure_is_forced_to_succeed_only_at_its_end_and_says_so(camera: Camera) -> None:
    assert isinstance(await camera.outcome({"url": "/status/500"}, force=True), RetryLater)
    for payload in ({"url": "/status/500"}, {"url": "/status/404"}):
        shot = await camera.shoot(payload, force=True, last=True)
        assert (shot.name, shot.size) == ("fallback.png", (1, 1)), "the row says what it is, too"
        assert shot.result["fallback"] is True
        assert shot.result["error"]["code"] == "http_status"
        assert shot.result["error"]["status"] == int(payload["url"][-3:])
    for payload in (
        {"url": "http://127.0.0.1:1"},
        {"url": "/squares", "colour": "red"},
        {"url": "http://[x]"},
    ):
        assert isinstance(await camera.outcome(payload, force=True, last=True), GiveUp)
    assert isinstance(await camera.outcome({"url": "/status/500"}, last=True), RetryLater)


async def test_a_cancelled_job_leaves_no_context(camera: Camera) -> None:
    shooting = asyncio.create_task(camera.outcome({"url": "/squares", "delayMs": 10_000}))
    await camera.page("/squares")
    shooting.cancel()
    assert isinstance((await asyncio.gather(shooting, return_exceptions=True))[0], asyncio.CancelledError)
    assert camera.engine.contexts == 0
    assert isinstance(await camera.outcome({"url": "/squares"}), Done)
