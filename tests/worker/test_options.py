"""The payload of a browser job: what is refused, and which field the refusal names."""

from typing import Any

import pytest

from worker.browser.faults import Fault, invalid
from worker.browser.options.screenshot import ScreenshotOptions
from worker.payloads import read

URL = "https://example.com"

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "payload.url"),
    ({"url": URL, "html": "x"}, "payload.url"),
    ({"url": None}, "payload.url"),
    ({"url": 7}, "payload.url"),
    ({"url": "https://example.com/" + "a" * 2048}, "payload.url"),
    ({"html": "x" * (2 * 1024 * 1024 + 1)}, "payload.html"),
    ({"url": URL, "colour": "red"}, "payload.colour"),
    ({"url": URL, "full_page": True}, "payload.full_page"),
    ({"url": URL, "viewport": {"width": 15, "height": 100}}, "payload.viewport.width"),
    ({"url": URL, "viewport": {"width": 3841, "height": 100}}, "payload.viewport.width"),
    ({"url": URL, "viewport": {"width": 100, "height": 4321}}, "payload.viewport.height"),
    ({"url": URL, "viewport": {"width": "100", "height": 100}}, "payload.viewport.width"),
    ({"url": URL, "viewport": {"width": 100}}, "payload.viewport.height"),
    ({"url": URL, "viewport": {"width": 100, "height": 100, "depth": 3}}, "payload.viewport.depth"),
    ({"url": URL, "viewport": "large"}, "payload.viewport"),
    ({"url": URL, "scaleFactor": 3.1}, "payload.scaleFactor"),
    ({"url": URL, "scaleFactor": 2, "retina": True}, "payload.retina"),
    ({"url": URL, "retina": 1}, "payload.retina"),
    ({"url": URL, "fullPage": "yes"}, "payload.fullPage"),
    ({"url": URL, "fullPage": True, "selector": "p"}, "payload.selector"),
    ({"url": URL, "fullPage": True, "clip": {"x": 0, "y": 0, "width": 1, "height": 1}}, "payload.clip"),
    ({"url": URL, "clip": {"x": 0, "y": 0, "width": 0, "height": 1}}, "payload.clip.width"),
    ({"url": URL, "clip": {"x": -1, "y": 0, "width": 1, "height": 1}}, "payload.clip.x"),
    ({"url": URL, "padding": 5}, "payload.padding"),
    ({"url": URL, "selector": "p", "padding": 501}, "payload.padding"),
    ({"url": URL, "selector": ""}, "payload.selector"),
    ({"url": URL, "maxHeight": 100}, "payload.maxHeight"),
    ({"url": URL, "format": "gif"}, "payload.format"),
    ({"url": URL, "quality": 80}, "payload.quality"),
    ({"url": URL, "format": "jpeg", "quality": 0}, "payload.quality"),
    ({"url": URL, "format": "jpeg", "omitBackground": True}, "payload.omitBackground"),
    ({"url": URL, "format": "jpeg", "optimizeForSpeed": True}, "payload.optimizeForSpeed"),
    ({"url": URL, "waitUntil": "never"}, "payload.waitUntil"),
    ({"url": URL, "delayMs": 10_001}, "payload.delayMs"),
    ({"url": URL, "timeoutMs": 120_001}, "payload.timeoutMs"),
    ({"url": URL, "failOnHttpStatus": "4xx"}, "payload.failOnHttpStatus"),
    ({"url": URL, "failOnHttpStatus": ["3xx"]}, "payload.failOnHttpStatus"),
    ({"url": URL, "failOnHttpStatus": [True]}, "payload.failOnHttpStatus"),
    ({"html": "x", "failOnHttpStatus": False}, "payload.failOnHttpStatus"),
    ({"html": "x", "httpAuth": {"username": "a", "password": "b"}}, "payload.httpAuth"),
    ({"url": URL, "hide": "p"}, "payload.hide"),
    ({"url": URL, "hide": ["p"] * 51}, "payload.hide"),
    ({"url": URL, "remove": ["p", 7]}, "payload.remove.1"),
    ({"url": URL, "css": "x" * 100_001}, "payload.css"),
    ({"url": URL, "js": "1", "javascript": False}, "payload.js"),
    ({"url": URL, "cookies": [{"name": "a", "value": "b"}]}, "payload.cookies.0"),
    (
        {"url": URL, "cookies": [{"name": "a", "value": "b", "url": URL, "path": "/"}]},
        "payload.cookies.0.path",
    ),
    ({"url": URL, "cookies": [{"name": "a", "url": URL}]}, "payload.cookies.0.value"),
    ({"url": URL, "headers": {"Host": "example.org"}}, "payload.headers.Host"),
    ({"url": URL, "headers": {"connection": "close"}}, "payload.headers.connection"),
    ({"url": URL, "headers": {"a b": "c"}}, "payload.headers.a b"),
    ({"url": URL, "headers": {"a": "b\r\nc: d"}}, "payload.headers.a"),
    ({"url": URL, "headers": {"a": 1}}, "payload.headers.a"),
    ({"url": URL, "locale": "not a locale"}, "payload.locale"),
    ({"url": URL, "timezone": "no zone!"}, "payload.timezone"),
    ({"url": URL, "colorScheme": "blue"}, "payload.colorScheme"),
    ({"url": URL, "httpAuth": {"username": "a"}}, "payload.httpAuth.password"),
    ({"url": URL, "blockResources": ["document"]}, "payload.blockResources.0"),
    ({"url": URL, "name": "a/b.png"}, "payload.name"),
    ({"url": URL, "name": ""}, "payload.name"),
    ({"url": URL, "shots": [{"name": "a"}, {"name": "a"}]}, "payload.shots.1.name"),
    ({"url": URL, "shots": [{"name": "a"}, {}, {"name": "a.png"}]}, "payload.shots.2.name"),
    ({"url": URL, "shots": [{"name": "é"}, {"name": "e"}]}, "payload.shots.1.name"),
    ({"url": URL, "shots": [{"name": "a?"}, {"name": "a#"}]}, "payload.shots.1.name"),
    (
        {"url": URL, "shots": [{"name": "a.jpg", "format": "jpeg"}, {"name": "a", "format": "jpeg"}]},
        "payload.shots.1.name",
    ),
    ({"url": URL, "shots": [{}, {"name": "screenshot-1"}]}, "payload.shots.1.name"),
    ({"url": URL, "shots": [{"name": "b" * 199 + "1"}, {"name": "b" * 199 + "2"}]}, "payload.shots.1.name"),
    ({"url": URL, "userAgent": "a\r\nb: c"}, "payload.userAgent"),
    ({"url": URL, "userAgent": "a\n"}, "payload.userAgent"),
    ({"url": URL, "userAgent": "robot 🤖"}, "payload.userAgent"),
    ({"url": URL, "userAgent": " "}, "payload.userAgent"),
    ({"url": URL, "headers": {"a": "b\0"}}, "payload.headers.a"),
    ({"url": URL, "headers": {"": "b"}}, "payload.headers."),
    ({"url": URL, "httpAuth": {"username": "a\nb", "password": "c"}}, "payload.httpAuth.username"),
    ({"url": URL, "httpAuth": {"username": "a:b", "password": "c"}}, "payload.httpAuth.username"),
    ({"url": URL, "httpAuth": {"username": "a", "password": "c\0"}}, "payload.httpAuth.password"),
]


@pytest.mark.parametrize(
    ("payload", "field"), WRONG, ids=[f"{field}-{i}" for i, (_, field) in enumerate(WRONG)]
)
def test_a_wrong_payload_is_refused_by_the_name_of_its_field(payload: dict[str, Any], field: str) -> None:
    with pytest.raises(Fault) as caught:
        read(ScreenshotOptions, payload, invalid)
    assert caught.value.code == "invalid_payload"
    assert caught.value.details == {"field": field}
    assert caught.value.message.startswith(f"{field}: ")


def test_shots_whose_files_differ_may_have_one_name() -> None:
    shots = [{"name": "a"}, {"name": "a", "format": "jpeg"}, {"name": "A"}]
    assert len(read(ScreenshotOptions, {"url": URL, "shots": shots}, invalid).pictures) == 3


def test_an_error_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Fault) as caught:
        read(
            ScreenshotOptions, {"url": URL, "httpAuth": {"username": "ann", "password": ["hunter2"]}}, invalid
        )
    assert "hunter2" not in str(caught.value)


def test_numbers_may_be_whole_where_they_may_be_broken() -> None:
    options = read(
        ScreenshotOptions,
        {"url": URL, "scaleFactor": 2, "clip": {"x": 0, "y": 0, "width": 10, "height": 1.5}},
        invalid,
    )
    assert options.scale == 2


@pytest.mark.parametrize(
    ("rule", "failing"),
    [
        (True, {404, 500, 503}),
        (False, set()),
        (["4xx"], {404}),
        ([503], {503}),
        (["5xx", 404], {404, 500, 503}),
    ],
)
def test_fail_on_http_status_says_which(rule: Any, failing: set[int]) -> None:
    options = read(ScreenshotOptions, {"url": URL, "failOnHttpStatus": rule}, invalid)
    assert {status for status in (200, 301, 404, 500, 503) if options.fails_on(status)} == failing
