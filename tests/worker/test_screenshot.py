"""Each option of `browser.screenshot`, checked by the pixels that it changes."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.worker.conftest import Camera
from tests.worker.site import BLACK, BLUE, GREEN, RED, WHITE
from worker.browser.egress.proxy import Egress
from worker.browser.targets import Target, Targets


async def test_a_page_is_shown_at_the_usual_size(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/squares"})
    assert shot.size == (1280, 720)
    assert (shot.at(50, 50), shot.at(50, 150), shot.at(50, 250), shot.at(500, 500)) == (
        RED,
        GREEN,
        BLUE,
        WHITE,
    )
    assert (shot.name, shot.mime, shot.image.format) == ("screenshot.png", "image/png", "PNG")
    result = shot.result
    assert result["action"] == "screenshot"
    assert result["url"] == result["finalUrl"] == camera.site.url("/squares")
    assert (result["status"], result["title"], result["redirects"]) == (200, "Squares", [])
    assert result["contentType"] == "text/html; charset=utf-8"
    assert (result["truncated"], result["partial"], result["fallback"]) == (False, False, False)
    assert {"contextMs", "navigateMs", "waitMs", "captureMs", "responseStart", "load"} <= result[
        "timings"
    ].keys()
    assert result["console"] == result["failedRequests"] == {"total": 0, "items": []}


async def test_html_is_shown_without_a_server(camera: Camera) -> None:
    shot = await camera.shoot({"html": "<title>Own</title><body style='margin: 0; background: blue'>"})
    assert shot.at(640, 360) == BLUE
    assert (shot.result["url"], shot.result["status"], shot.result["title"]) == (None, None, "Own")


SIZES: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({"viewport": {"width": 400, "height": 300}}, (400, 300)),
    ({"retina": True}, (2560, 1440)),
    ({"scaleFactor": 0.5}, (640, 360)),
    ({"viewport": {"width": 100, "height": 100}, "scaleFactor": 3}, (300, 300)),
    ({"device": "iPhone 13"}, (1170, 1992)),
    ({"device": "iPhone 13", "viewport": {"width": 200, "height": 100}, "scaleFactor": 1}, (200, 100)),
    ({"clip": {"x": 0, "y": 100, "width": 80, "height": 60}}, (80, 60)),
    ({"clip": {"x": 10, "y": 10, "width": 5000, "height": 20}}, (1270, 20)),
    ({"selector": "#green"}, (100, 100)),
    ({"selector": "#green", "padding": 10, "scaleFactor": 2}, (220, 240)),
]


@pytest.mark.parametrize(("options", "size"), SIZES, ids=[str(options) for options, _ in SIZES])
async def test_the_picture_has_the_size_asked_for(
    camera: Camera, options: dict[str, Any], size: tuple[int, int]
) -> None:
    assert (await camera.shoot({"url": "/squares", **options})).size == size


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
async def test_each_format_shows_view_page_clip_and_element(camera: Camera, image_format: str) -> None:
    view, page, clip, element = await camera.shoot_all(
        {
            "url": "/tall", "format": image_format, "viewport": {"width": 200, "height": 150},
            "shots": [
                {}, {"fullPage": True}, {"clip": {"x": 0, "y": 2890, "width": 20, "height": 20}},
                {"selector": "div:nth-of-type(2)"},
            ],
        }
    )  # fmt: skip
    assert {shot.image.format for shot in (view, page, clip, element)} == {image_format.upper()}
    assert (view.size, page.size, clip.size, element.size) == ((200, 150), (200, 3000), (20, 20), (200, 100))
    close = 0 if image_format == "png" else 8
    for shot, x, y, colour in [
        (view, 10, 140, RED), (page, 100, 2000, RED), (page, 100, 2950, BLUE),
        (clip, 4, 3, RED), (clip, 4, 16, BLUE), (element, 100, 50, BLUE),
    ]:  # fmt: skip
        assert all(abs(a - b) <= close for a, b in zip(shot.at(x, y), colour, strict=True)), (
            shot.at(x, y),
            colour,
        )


async def test_padding_surrounds_the_element(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/squares", "selector": "#green", "padding": 20})
    assert (shot.at(10, 10), shot.at(10, 30), shot.at(10, 130), shot.at(110, 60)) == (RED, GREEN, BLUE, WHITE)


async def test_a_page_beyond_max_height_is_cut_and_says_so(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/tall", "fullPage": True, "maxHeight": 1000})
    assert shot.size == (1280, 1000)
    assert shot.result["truncated"] is True
    whole = await camera.shoot({"url": "/tall", "fullPage": True, "maxHeight": 3000})
    assert (whole.size, whole.result["truncated"]) == ((1280, 3000), False)


@pytest.mark.parametrize(("image_format", "limit"), [("webp", 16_383), ("jpeg", 20_000), ("png", 20_000)])
async def test_a_very_tall_page_is_a_whole_picture(camera: Camera, image_format: str, limit: int) -> None:
    gradient = "linear-gradient(red 50%, blue 50%)"
    html = f"<body style='margin: 0'><div style='height: 20000px; background: {gradient}'>"
    shot = await camera.shoot(
        {
            "html": html, "fullPage": True, "maxHeight": 60_000, "format": image_format,
            "viewport": {"width": 64, "height": 64}, "scroll": False,
        }
    )  # fmt: skip
    assert shot.size == (64, limit)
    assert shot.result["truncated"] is (limit < 20_000)
    assert shot.at(32, 9900)[0] > 250
    assert shot.at(32, 10_100)[2] > 250


async def test_scrolling_brings_lazy_content(camera: Camera) -> None:
    options = {"url": "/lazy", "fullPage": True, "viewport": {"width": 300, "height": 400}}
    assert (await camera.shoot(options)).at(50, 4050) == BLUE
    assert (await camera.shoot({**options, "scroll": False})).at(50, 4050) == WHITE


@pytest.mark.parametrize("page", ["/boxed", "/fixed"])
async def test_a_page_that_scrolls_in_a_box_is_shown_whole(camera: Camera, page: str) -> None:
    shot = await camera.shoot({"url": page, "fullPage": True})
    assert shot.size == (1280, 4100)
    assert (shot.at(50, 50), shot.at(50, 3000), shot.at(50, 4050)) == (GREEN, RED, BLUE)
    assert (await camera.shoot({"url": page})).size == (1280, 720)


async def test_quality_changes_the_size_of_the_file(camera: Camera) -> None:
    for image_format in ("jpeg", "webp"):
        html = "<body style='background: repeating-conic-gradient(red 0 9deg, blue 9deg 18deg)'>"
        good = await camera.shoot({"html": html, "format": image_format, "quality": 95})
        poor = await camera.shoot({"html": html, "format": image_format, "quality": 5})
        assert len(poor.data) < len(good.data) / 2


async def test_optimize_for_speed_gives_the_same_pixels(camera: Camera) -> None:
    fast = await camera.shoot({"url": "/squares"})
    small = await camera.shoot({"url": "/squares", "optimizeForSpeed": False})
    assert fast.image.convert("RGB").tobytes() == small.image.convert("RGB").tobytes()
    assert len(fast.data) > len(small.data)


@pytest.mark.parametrize(
    "options", [{}, {"format": "webp"}, {"fullPage": True}, {"optimizeForSpeed": False}], ids=str
)
async def test_an_omitted_background_is_transparent(camera: Camera, options: dict[str, Any]) -> None:
    shot = await camera.shoot({"url": "/bare", "omitBackground": True, **options})
    rgba = shot.image.convert("RGBA")
    assert rgba.getpixel((500, 500)) == (0, 0, 0, 0)
    assert rgba.getpixel((50, 50)) in [(255, 0, 0, 255), (255, 1, 0, 255)]  # WebP is not exact


WISHES = ["dark", "motion", "print", "retina", "script"]


@pytest.mark.parametrize(
    ("options", "green"),
    [
        ({}, ["script"]),
        ({"colorScheme": "dark"}, ["dark", "script"]),
        ({"reducedMotion": "no-preference"}, ["motion", "script"]),
        ({"media": "print"}, ["print", "retina", "script"]),  # print has a resolution of its own
        ({"retina": True}, ["retina", "script"]),
        ({"javascript": False}, []),
    ],
    ids=str,
)
async def test_a_page_meets_the_visitor_asked_for(
    camera: Camera, options: dict[str, Any], green: list[str]
) -> None:
    shot = await camera.shoot({"url": "/wishes", **options})
    scale = 2 if options.get("retina") else 1
    seen = {
        name for index, name in enumerate(WISHES) if shot.at(50 * scale, (100 * index + 50) * scale) == GREEN
    }
    assert seen == set(green)


async def test_hide_keeps_the_place_and_remove_does_not(camera: Camera) -> None:
    hidden = await camera.shoot({"url": "/squares", "hide": ["#red"]})
    assert (hidden.at(50, 50), hidden.at(50, 150)) == (WHITE, GREEN)
    removed = await camera.shoot({"url": "/squares", "remove": ["#red", "#green"]})
    assert (removed.at(50, 50), removed.at(50, 150)) == (BLUE, WHITE)


@pytest.mark.parametrize("page", ["/squares", "/strict"])
async def test_css_and_js_reach_the_page_whatever_its_policy(camera: Camera, page: str) -> None:
    css = (
        "#red { background: black !important; width: 100px; height: 100px; position: fixed; top: 0; left: 0 }"
    )
    shot = await camera.shoot({"url": page, "css": css})
    assert shot.at(50, 50) == BLACK
    js = "const red = document.getElementById('red');\nawait null;\nred.remove(); document.title = 'changed'"
    shot = await camera.shoot({"url": page, "js": js})
    assert shot.result["title"] == "changed"


async def test_waiting_for_a_selector_waits(camera: Camera) -> None:
    assert (await camera.shoot({"url": "/late"})).at(50, 50) == RED
    assert (await camera.shoot({"url": "/late", "waitForSelector": "#arrived"})).at(50, 50) == BLUE


async def test_delay_waits(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/late", "delayMs": 500})
    assert shot.at(50, 50) == BLUE
    assert shot.result["timings"]["waitMs"] >= 500


async def test_pictures_are_waited_for_unless_told_otherwise(camera: Camera) -> None:
    assert (await camera.shoot({"url": "/image/inserted"})).at(50, 50) == BLUE
    assert (await camera.shoot({"url": "/image/inserted", "waitForImages": False})).at(50, 50) == WHITE


@pytest.mark.parametrize(
    ("until", "colour"),
    [("commit", None), ("domcontentloaded", WHITE), ("load", BLUE), ("networkidle", BLUE)],
)
async def test_each_wait_until_ends_in_a_picture(camera: Camera, until: str, colour: Any) -> None:
    shot = await camera.shoot({"url": "/image", "waitUntil": until, "waitForImages": False})
    assert colour is None or shot.at(50, 50) == colour


async def test_a_font_that_never_comes_is_not_waited_for_for_ever(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/font", "waitUntil": "domcontentloaded", "fullPage": True})
    assert shot.at(50, 50) == RED
    assert shot.result["partial"] is True
    quick = await camera.shoot({"url": "/font", "waitUntil": "domcontentloaded", "waitForFonts": False})
    assert quick.result["partial"] is False


async def test_animations_are_at_their_end_unless_allowed(camera: Camera) -> None:
    options = {"url": "/moving", "reducedMotion": "no-preference"}
    assert (await camera.shoot(options)).at(190, 50) == RED
    assert (await camera.shoot({**options, "animations": "allow"})).at(190, 50) == WHITE
    assert (await camera.shoot({**options, "animations": "allow", "fullPage": True})).at(190, 50) == WHITE


async def test_the_caret_is_not_shown(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/caret", "clip": {"x": 0, "y": 0, "width": 300, "height": 100}})
    assert shot.image.convert("L").getextrema() == (255, 255)
    view = await camera.shoot({"url": "/caret"})
    assert view.image.convert("L").crop((0, 0, 290, 90)).getextrema() == (255, 255)
    late = "<body style='margin: 0'><textarea id=t style='border: 0; outline: 0; font-size: 90px'></textarea>"
    late += (
        "<script>onload = () => requestAnimationFrame(() => requestAnimationFrame(() => t.focus()))</script>"
    )
    view = await camera.shoot({"html": late})
    assert view.image.convert("L").crop((0, 0, 290, 90)).getextrema() == (255, 255)


async def test_what_the_server_is_told(camera: Camera) -> None:
    await camera.shoot(
        {
            "url": "/squares?told",
            "headers": {"X-Case": "seven"},
            "cookies": [
                {"name": "by_url", "value": "1", "url": camera.site.origin},
                {"name": "by_domain", "value": "2", "domain": "127.0.0.1"},
                {"name": "elsewhere", "value": "3", "domain": "example.com"},
            ],
            "userAgent": "Tester/1",
            "locale": "ko-KR",
        }
    )
    told = camera.site.asked("/squares")[-1]
    assert (told["x-case"], told["user-agent"]) == ("seven", "Tester/1")
    assert set(told["cookie"].split("; ")) == {"by_url=1", "by_domain=2"}
    assert told["accept-language"].startswith("ko-KR")


async def test_our_name_is_in_the_usual_user_agent(camera: Camera) -> None:
    await camera.shoot({"url": "/squares"})
    assert " Sidejob/" in camera.site.asked("/squares")[-1]["user-agent"]


async def test_locale_and_time_zone_reach_the_page(camera: Camera) -> None:
    js = "document.title = new Date(0).getHours() + ' ' + (1.5).toLocaleString()"
    shot = await camera.shoot({"url": "/squares", "timezone": "Asia/Seoul", "locale": "de-DE", "js": js})
    assert shot.result["title"] == "9 1,5"


async def test_http_auth_opens_a_protected_page(camera: Camera) -> None:
    auth = {"username": "ann", "password": "lupine"}
    assert (await camera.shoot({"url": "/protected", "httpAuth": auth})).at(50, 50) == RED
    code, outcome = await camera.fault({"url": "/protected"})
    assert (code, outcome.error.details["status"]) == ("http_status", 401)


class _Moved(Targets):
    """Knows one name, on the port that its scheme implies, and finds it where the tests' site is."""

    def __init__(self, site_origin: str) -> None:
        super().__init__()
        self._port = int(site_origin.rpartition(":")[2])

    async def locate(self, target: Target) -> Target:
        assert target.origin == "http://usual.test:80"
        return replace(target, port=self._port, addresses=(IPv4Address("127.0.0.1"),), allowed=True)


async def test_http_auth_reaches_a_page_on_the_usual_port(camera: Camera) -> None:
    camera._egress = Egress(_Moved(camera.site.origin))
    auth = {"username": "ann", "password": "lupine"}
    shot = await camera.shoot({"url": "http://usual.test/protected", "httpAuth": auth})
    assert shot.at(50, 50) == RED


async def test_blocked_resources_and_urls_are_not_fetched(camera: Camera) -> None:
    before = len(camera.site.asked("/slow.svg"))
    assert (await camera.shoot({"url": "/image", "blockResources": ["image"]})).at(50, 50) != BLUE
    assert (await camera.shoot({"url": "/image", "blockUrls": ["*/slow.*"]})).at(50, 50) != BLUE
    assert len(camera.site.asked("/slow.svg")) == before


async def test_the_name_of_the_file_can_be_chosen(camera: Camera) -> None:
    for name, expected in [("시안", "시안.jpg"), ("a.jpeg", "a.jpeg"), ("a.png", "a.png.jpg")]:
        shot = await camera.shoot({"url": "/squares", "format": "jpeg", "name": name})
        assert (shot.name, shot.mime) == (expected, "image/jpeg")


async def test_a_page_that_tries_an_app_and_then_goes_on_is_followed(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/app-or-squares"})
    assert shot.result["finalUrl"] == camera.site.url("/squares")


async def test_redirects_are_listed(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/hop"})
    site = camera.site
    assert shot.result["finalUrl"] == site.url("/squares")
    assert shot.result["redirects"] == [
        {"url": site.url("/hop"), "status": 301},
        {"url": site.url("/hop/again"), "status": 302},
    ]


async def test_the_final_url_is_the_pages_own(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/moves"})
    assert shot.result["finalUrl"] == camera.site.url("/moved-by-script")


async def test_what_went_wrong_in_the_page_is_told(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/errors", "delayMs": 200})
    assert any("it is broken" in item["text"] for item in shot.result["console"]["items"])
    assert any("null" in item["text"] for item in shot.result["console"]["items"])
    assert [item["resourceType"] for item in shot.result["failedRequests"]["items"]] == ["image"]
    assert shot.result["blockedRequests"] == {"total": 1, "hosts": ["127.0.0.1"]}


NAMED = "<img name=images><form name=fonts></form><form name=title></form><form name=activeElement></form>"
BROKEN = "<script>Array.prototype.filter = Promise.race = performance.getEntriesByType = () => { throw 1 }</script>"
ROOTLESS = "<script>addEventListener('load', () => document.documentElement.remove())</script>"


@pytest.mark.parametrize(
    ("html", "colour"), [(NAMED, RED), (BROKEN, RED), (ROOTLESS, WHITE)], ids=["named", "broken", "rootless"]
)
@pytest.mark.parametrize("whole", [False, True], ids=["view", "page"])
async def test_a_page_that_breaks_what_scripts_rely_on_is_shown(
    camera: Camera, html: str, colour: tuple[int, ...], whole: bool
) -> None:
    html = f"<body style='margin: 0; background: red'>{html}<input autofocus>"
    shot = await camera.shoot({"html": html, "fullPage": whole, "viewport": {"width": 300, "height": 200}})
    assert (shot.at(250, 150), shot.size) == (colour, (300, 200))


@pytest.mark.parametrize("page", ["/dialogs", "/popups"])
async def test_dialogs_and_popups_do_not_disturb(camera: Camera, page: str) -> None:
    assert (await camera.shoot({"url": page})).at(50, 50) == RED


async def test_an_error_page_can_be_wanted(camera: Camera) -> None:
    shot = await camera.shoot({"url": "/status/404", "failOnHttpStatus": False})
    assert shot.result["status"] == 404
    assert (await camera.shoot({"url": "/status/404", "failOnHttpStatus": ["5xx", 410]})).result[
        "status"
    ] == 404
    code, _ = await camera.fault({"url": "/status/503", "failOnHttpStatus": ["5xx", 410]})
    assert code == "http_status"


LEAVE = """
  document.cookie = 'left=1'; localStorage.left = 1; sessionStorage.left = 1; name = 'left';
  await (await caches.open('left')).put('/left', new Response('1'));
  await new Promise(done => { indexedDB.open('left').onsuccess = done });
  await navigator.serviceWorker.register('/worker.js').catch(() => {});"""
FIND = """document.title = [document.cookie, localStorage.length, sessionStorage.length, name,
  (await caches.keys()).length, (await indexedDB.databases()).length,
  (await navigator.serviceWorker.getRegistrations()).length].join()"""


async def test_a_job_leaves_nothing_to_the_next(camera: Camera) -> None:
    found = (await camera.shoot({"url": "/kept", "js": LEAVE + FIND})).result["title"]
    assert found == "left=1,1,1,left,1,1,0", "what is left is there, but for the service worker"
    asked = len(camera.site.asked("/kept.svg"))
    assert (await camera.shoot({"url": "/kept", "js": FIND})).result["title"] == ",0,0,,0,0,0"
    assert len(camera.site.asked("/kept.svg")) == asked + 1, "nor is it in a cache"
    await camera.shoot({"url": "/protected", "httpAuth": {"username": "ann", "password": "lupine"}})
    assert (await camera.fault({"url": "/protected"}))[0] == "http_status"
