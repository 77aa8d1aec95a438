"""What every browser job may ask for beyond the picture: several shots, waits, traces, and going on regardless."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import Camera, made
from tests.worker.site import BLUE, GREEN, RED, WHITE, Site
from worker.browser.egress.limits import Limits
from worker.browser.engine import Engine
from worker.handlers import Done, GiveUp, RetryLater

MAGENTA = (255, 0, 255)


async def test_several_shots_come_from_one_load(camera: Camera) -> None:
    before = len(camera.site.asked("/wishes"))
    taken = await camera.shoot_all(
        {
            "url": "/wishes",
            "viewport": {"width": 300, "height": 600},
            "shots": [
                {"name": "light"},
                {"name": "dark", "colorScheme": "dark"},
                {"viewport": {"width": 150, "height": 200}, "format": "jpeg"},
                {"name": "element", "selector": "#script", "padding": 10},
                {"name": "part", "clip": {"x": 0, "y": 0, "width": 50, "height": 60}, "format": "webp"},
                {"name": "all", "fullPage": True},
                {"name": "again"},
            ],
        }
    )
    shots = {shot.name: shot for shot in taken}
    assert len(camera.site.asked("/wishes")) == before + 1
    assert {name: shot.size for name, shot in shots.items()} == {
        "light.png": (300, 600), "dark.png": (300, 600), "screenshot-3.jpg": (150, 200), "element.png": (110, 120),
        "part.webp": (50, 60), "all.png": (300, 600), "again.png": (300, 600),
    }  # fmt: skip
    assert (shots["light.png"].at(50, 50), shots["dark.png"].at(50, 50), shots["again.png"].at(50, 50)) == (
        RED,
        GREEN,
        RED,
    )
    assert shots["element.png"].at(50, 60) == GREEN


async def test_a_shot_takes_from_the_job_what_it_does_not_say(camera: Camera) -> None:
    taken = await camera.shoot_all(
        {"url": "/tall", "format": "jpeg", "quality": 90, "fullPage": True, "scaleFactor": 0.5,
         "shots": [{}, {"selector": "div:nth-of-type(2)"}, {"format": "png"}]}
    )  # fmt: skip
    shots = {shot.name: shot for shot in taken}
    assert {name: shot.size for name, shot in shots.items()} == {
        "screenshot-1.jpg": (640, 1500), "screenshot-2.jpg": (640, 50), "screenshot-3.png": (640, 1500),
    }  # fmt: skip
    assert shots["screenshot-2.jpg"].at(300, 25)[2] > 240


async def test_a_masked_element_is_covered_wherever_it_is(camera: Camera) -> None:
    for options in ({}, {"fullPage": True}, {"scrollTo": "#blue", "viewport": {"width": 300, "height": 120}}):
        shot = await camera.shoot({"url": "/squares", "mask": ["#green"], "fullPage": True, **options})
        assert [shot.at(50, y) for y in (50, 150, 250)] == [RED, MAGENTA, BLUE]
    code, outcome = await camera.fault({"url": "/squares", "mask": ["]["]})
    assert (code, outcome.error.details["field"]) == ("invalid_payload", "payload.mask.0")


async def test_clicks_are_done_in_order_and_the_view_goes_where_told(camera: Camera) -> None:
    html = "<button id=a onclick='document.title += 1'>a</button><button id=b onclick='document.title += 2'>b</button>"
    shot = await camera.shoot({"html": html, "click": ["#b", "#a", "#b"]})
    assert shot.result["title"] == "212"
    view = await camera.shoot(
        {"url": "/tall", "scrollTo": "div:nth-of-type(2)", "viewport": {"width": 100, "height": 100}}
    )
    assert view.at(50, 50) == BLUE
    code, outcome = await camera.fault({"html": html, "click": ["#a", "#c"], "timeoutMs": 3000})
    assert (code, outcome.error.details["field"]) == ("selector_not_found", "payload.click.1")


async def test_waiting_for_a_function_waits(camera: Camera) -> None:
    assert (await camera.shoot({"url": "/late", "waitForFunction": "!!window.arrived"})).at(50, 50) == BLUE
    code, _ = await camera.fault({"url": "/late", "waitForFunction": "false", "timeoutMs": 3000})
    assert code == "wait_timeout"
    code, _ = await camera.fault({"url": "/late", "waitForFunction": "no.such.thing", "timeoutMs": 2000})
    assert code == "script_error"


@pytest.mark.parametrize(
    ("payload", "late"),
    [
        ({"url": "/font", "timeoutMs": 4000}, "load"),
        ({"url": "/squares", "waitForSelector": "#nowhere", "timeoutMs": 3000}, "selector"),
        ({"url": "/squares", "waitForFunction": "false", "timeoutMs": 3000}, "function"),
        ({"url": "/endless/network", "waitUntil": "networkidle", "timeoutMs": 4000}, "network"),
        ({"html": "<img src='{site}/hang'><div style='position: fixed; inset: 0; background: red'>", "timeoutMs": 4000}, "load"),
    ],
)  # fmt: skip
async def test_the_best_attempt_shows_what_is_there(
    camera: Camera, payload: dict[str, Any], late: str
) -> None:
    if "html" in payload:
        payload["html"] = payload["html"].replace("{site}", camera.site.origin)
    shot = await camera.shoot({**payload, "bestAttempt": True})
    assert shot.result["partial"] is True
    assert late in shot.result["late"]
    if late in ("selector", "load"):
        assert shot.at(50, 50) == RED


async def test_errors_of_the_page_fail_a_job_that_asks_for_it(camera: Camera) -> None:
    for option in ("failOnConsoleError", "failOnResourceError"):
        code, outcome = await camera.fault({"url": "/errors", "delayMs": 300, option: True})
        assert (code, type(outcome)) == ("page_error", GiveUp)
        await camera.shoot({"url": "/squares", option: True})
    wanted = {"url": "/image", "failOnResourceError": True, "blockResources": ["image"]}
    assert (await camera.shoot(wanted)).result["failedRequests"]["total"] == 0


async def test_storage_and_place_are_given_to_the_page(camera: Camera) -> None:
    state = {
        "cookies": [{"name": "kept", "value": "yes", "domain": "127.0.0.1"}],
        "origins": [{"origin": camera.site.origin, "localStorage": [{"name": "k", "value": "v"}]}],
    }
    js = "document.title = localStorage.k + ' ' + document.cookie"
    assert (await camera.shoot({"url": "/squares", "storageState": state, "js": js})).result[
        "title"
    ] == "v kept=yes"
    where = {"latitude": 37.5, "longitude": 127.0}
    js = "document.title = await new Promise(r => navigator.geolocation.getCurrentPosition(p => r(p.coords.latitude), () => r('no')))"
    assert (await camera.shoot({"url": "/squares", "geolocation": where, "js": js})).result["title"] == "37.5"


async def test_forced_colours_reach_the_page(camera: Camera) -> None:
    html = "<style>body { background: red } @media (forced-colors: active) { body { background: Canvas } }</style>"
    assert (await camera.shoot({"html": html})).at(50, 50) == RED
    assert (await camera.shoot({"html": html, "forcedColors": "active"})).at(50, 50) == WHITE


async def test_consent_boxes_and_ads_can_be_left_out(camera: Camera) -> None:
    html = "<body style='margin: 0; background: white'><div id=onetrust-consent-sdk style='height: 100px; background: red'></div>"
    assert (await camera.shoot({"html": html})).at(50, 50) == RED
    assert (await camera.shoot({"html": html, "cookieBanners": "hide"})).at(50, 50) == WHITE
    ads = "<script src='http://static.doubleclick.net/x.js'></script>"
    blocked = await camera.shoot({"html": ads, "blockAds": True})
    assert blocked.result["failedRequests"]["total"] == 0
    assert (await camera.shoot({"html": ads})).result["failedRequests"]["total"] == 1


async def test_bad_certificates_are_accepted_only_where_the_worker_allows_it(camera: Camera) -> None:
    code, outcome = await camera.fault({"url": "/squares", "ignoreTlsErrors": True})
    assert (code, outcome.error.details["field"]) == ("invalid_payload", "payload.ignoreTlsErrors")
    await camera.shoot({"url": "/squares", "ignoreTlsErrors": True}, insecure=True)


async def test_a_trace_shows_what_happened_in_failure_too(engine: Engine, site: Site, tmp_path: Path) -> None:
    camera = Camera(engine, site, folder=tmp_path)
    done = await camera.outcome({"url": "/errors", "trace": True})
    assert isinstance(done, Done)
    assert [file.name for file in done.files] == ["screenshot.png", "console.json", "trace.zip"]
    failed = await camera.outcome(
        {"url": "/squares", "selector": "#nowhere", "timeoutMs": 4000, "trace": True}
    )
    assert isinstance(failed, GiveUp), failed
    for outcome in (done, failed):
        console, trace = made(outcome)[-2:]
        assert isinstance(console.content, bytes)
        assert "console" in json.loads(console.content)
        assert isinstance(trace.content, Path)
        assert any(name.endswith(".trace") for name in zipfile.ZipFile(trace.content).namelist())


async def test_a_job_that_takes_too_much_of_the_network_is_ended_and_counted(
    engine: Engine, site: Site
) -> None:
    greedy = Camera(engine, site, limits=Limits(requests=20))
    code, outcome = await greedy.fault({"url": "/endless/network", "delayMs": 10_000, "waitUntil": "commit"})
    assert (code, type(outcome)) == ("traffic_limit", GiveUp)
    assert greedy.counted["browser_traffic_limits_total"] == 1
    heavy = Camera(engine, site, limits=Limits(received_bytes=100_000))
    code, _ = await heavy.fault({"url": "/heavy"}, nav=30)
    assert code == "traffic_limit"


async def test_refusals_are_counted(camera: Camera) -> None:
    await camera.fault({"url": "/leave"})
    await camera.shoot({"url": "/frame"})
    await camera.fault({"url": "http://169.254.169.254/latest/meta-data/"})
    assert camera.counted["browser_refused_requests_total"] == 3
    assert camera.counted["browser_requests_total"] >= 4
    assert camera.counted["browser_received_bytes_total"] > 400


async def test_a_page_that_crashed_twice_runs_alone_and_then_no_more(camera: Camera) -> None:
    crash = {"url": "/squares", "js": "throw 1"}
    outcome = await camera.outcome(crash, checkpoint={"crashes": 2})
    assert isinstance(outcome, GiveUp)
    assert outcome.error.code == "script_error"
    pid = camera.engine.pid
    shot = await camera.shoot({"url": "/squares"}, checkpoint={"crashes": 2})
    assert shot.at(50, 50) == RED
    assert camera.engine.pid == pid


async def test_a_worker_that_waits_longer_lets_jobs_take_longer(camera: Camera) -> None:
    code, outcome = await camera.fault({"url": "/hang", "timeoutMs": 1500}, nav=60)
    assert (code, type(outcome)) == ("navigation_timeout", RetryLater)
    assert "0.0 s" not in outcome.error.message
