"""Bad input and everything that Figma can do wrong: the code, whether it is tried again, what it costs."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.figma.documents import Document, Layer, many_icons, page
from local.figma.world import TOKEN, Answer, World
from tests.worker.figma.conftest import KEY, Studio, again, open_figma
from worker.handlers import Done, GiveUp, Postpone, RetryLater

PROVEN = {"file": KEY, "nodeIds": ["1:8", "1:2", "1:4"]}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "file"),
    ({"file": KEY}, "nodeIds"),
    ({"file": "not a key", "nodeIds": ["1:2"]}, "file"),
    ({"file": f"https://evil.example/design/{KEY}", "nodeIds": ["1:2"]}, "file"),
    ({"file": f"https://figma.com.evil.example/design/{KEY}", "nodeIds": ["1:2"]}, "file"),
    ({"file": f"http://www.figma.com/design/{KEY}", "nodeIds": ["1:2"]}, "file"),
    ({"file": f"https://www.figma.com/slides/{KEY}/x", "nodeIds": ["1:2"]}, "file"),
    ({"file": "https://www.figma.com/community/file/123", "nodeIds": ["1:2"]}, "file"),
    ({"file": f"https://www.figma.com/design/{KEY}/x?version-id=a%2Fb", "nodeIds": ["1:2"]}, "file"),
    ({"file": f"{KEY}/../../me", "nodeIds": ["1:2"]}, "file"),
    ({"file": KEY, "nodeIds": ["1:2", "x"]}, "nodeIds.1"),
    ({"file": KEY, "nodeIds": ["1:2&ids=3"]}, "nodeIds.0"),
    ({"file": KEY, "nodeIds": [f"1:{n}" for n in range(10_000)]}, "nodeIds"),
    ({"file": KEY, "nodeIds": [f"1:{n}" for n in range(600)], "scales": [1, 2]}, "nodeIds"),
    ({"file": KEY, "nodeIds": "1:2"}, "nodeIds"),
    ({"file": KEY, "nodeIds": ["1:2"], "scales": [0]}, "scales.0"),
    ({"file": KEY, "nodeIds": ["1:2"], "scales": [1, 9]}, "scales.1"),
    ({"file": KEY, "nodeIds": ["1:2"], "scales": []}, "scales"),
    ({"file": KEY, "nodeIds": ["1:2"], "formats": ["gif"]}, "formats.0"),
    ({"file": KEY, "nodeIds": ["1:2"], "nameTemplate": "{nope}"}, "nameTemplate"),
    ({"file": KEY, "nodeIds": ["1:2"], "nameTemplate": "{name.__class__}"}, "nameTemplate"),
    ({"file": KEY, "nodeIds": ["1:2"], "nameTemplate": "{name!r:>99}"}, "nameTemplate"),
    ({"file": KEY, "nodeIds": ["1:2"], "onMissing": "shrug"}, "onMissing"),
    ({"file": KEY, "nodeIds": ["1:2"], "select": {}}, "select"),
    ({"file": KEY, "select": {"page": ["x"]}}, "select.page"),
    ({"file": KEY, "nodeIds": ["1:2"], "token": "x"}, "token"),
    ({"file": KEY, "nodeIds": ["1:2"], "version": "../x"}, "version"),
]


@pytest.mark.parametrize(("payload", "where"), WRONG, ids=[where for _, where in WRONG])
async def test_a_wrong_payload_names_its_field_and_asks_figma_nothing(
    studio: Studio, world: World, payload: dict[str, Any], where: str
) -> None:
    fault = await studio.fault(payload)
    assert isinstance(fault, GiveUp)
    assert fault.error.code == "invalid_payload"
    assert fault.error.details["field"] == f"payload.{where}"
    assert fault.error.message.startswith(f"payload.{where}: ")
    assert world.asked == []


async def test_a_file_that_is_not_allowed_is_never_asked_for(studio: Studio, world: World) -> None:
    async with open_figma(world, allowed=frozenset({"someotherfile"})) as figma:
        fault = await again(studio, figma).fault(PROVEN)
    assert (fault.error.code, world.asked) == ("figma_file_not_allowed", [])
    async with open_figma(world, allowed=frozenset({KEY})) as figma:
        assert isinstance(await again(studio, figma).outcome(PROVEN), Done)


async def test_without_a_token_figma_is_asked_nothing(studio: Studio, world: World) -> None:
    async with open_figma(world, token="") as figma:
        fault = await again(studio, figma).fault(PROVEN)
    assert isinstance(fault, GiveUp)
    assert (fault.error.code, world.asked) == ("figma_token_missing", [])


def body(text: str) -> bytes:
    return b'{"status": 400, "err": "%s"}' % text.encode()


HTML = b"<!doctype html><title>Bad Gateway</title>"
ANSWERS: list[tuple[int, bytes, str, bool]] = [
    (403, body("Invalid token"), "figma_token_invalid", True),
    (403, body("Token expired"), "figma_token_invalid", True),
    (401, b'{"error": true, "status": 401, "message": "Unauthorized"}', "figma_token_invalid", True),
    (403, body("Invalid scope(s): this requires the file_content:read scope"), "figma_scope_missing", True),
    (403, body("File not exportable"), "figma_forbidden", True),
    (403, HTML, "figma_forbidden", True),
    (404, body("Not found"), "figma_not_found", True),
    (400, body("File type not supported by this endpoint"), "figma_file_type", True),
    (400, body("Something new"), "figma_bad_request", True),
    (500, body("Internal"), "figma_unavailable", False),
    (502, HTML, "figma_unavailable", False),
    (200, HTML, "figma_unavailable", False),
    (200, b"[]", "figma_unavailable", False),
    (200, b'{"images": 7}', "figma_unavailable", False),
    (200, b'{"images": {"1:2": 7, "1:4": 7, "1:8": 7}}', "figma_unavailable", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "said", "code", "final"), ANSWERS, ids=[f"{status}-{code}" for status, _, code, _ in ANSWERS]
)
async def test_each_refusal_has_its_code_and_verdict(
    studio: Studio, world: World, status: int, said: bytes, code: str, final: bool
) -> None:
    world.answers.append(Answer("/v1/images/", status, said, times=1000))
    fault = await studio.fault(PROVEN)
    assert fault.error.code == code
    assert isinstance(fault, GiveUp if final else RetryLater)
    assert studio.renders() <= 10, "an outage is not asked a hundred times"


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_one_failure_passes_unseen(studio: Studio, world: World, status: int) -> None:
    world.answers.append(Answer("/v1/images/", status, HTML))
    assert len((await studio.done(PROVEN)).files) == 3


async def test_a_hang_ends_in_a_retry(studio: Studio, world: World) -> None:
    world.answers.append(Answer("/v1/images/", 200, b"{}", times=9, hang_seconds=5))
    async with open_figma(world, timeout_seconds=0.3) as figma:
        fault = await again(studio, figma).fault(PROVEN)
    assert isinstance(fault, RetryLater)
    assert (fault.error.code, studio.renders()) == ("figma_unavailable", 2)


async def test_a_token_that_figma_echoes_is_not_passed_on(
    studio: Studio, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world.answers.append(Answer("/v1/files/", 403, body(f"Invalid token {TOKEN}"), times=9))
    fault = await studio.fault(PROVEN)
    assert TOKEN not in str(fault.error.as_json())
    assert TOKEN not in caplog.text


async def test_metadata_without_its_scope_or_its_wrapper_will_do(studio: Studio, world: World) -> None:
    world.answers.append(Answer("/meta", 403, body("Invalid scope: requires the file_metadata:read scope")))
    done = await studio.done(PROVEN)
    assert done.result["version"] == world.documents[KEY].version
    world.bare_meta = True
    assert (await studio.done({**PROVEN, "force": True})).result["version"] == done.result["version"]


@pytest.mark.parametrize("how", ["truncated", "reset", "empty", "html", "damaged", "500", "expired"])
async def test_a_broken_download_is_fetched_again(studio: Studio, world: World, how: str) -> None:
    world.spoilt = {"1:2": [how]}
    done = await studio.done(PROVEN)
    assert len(done.files) == 3
    assert studio.picture(done, "Hero.png").size == (640, 360)
    assert studio.renders() == (2 if how == "expired" else 1)
    if how == "expired":
        assert world.requests(part="/v1/images/")[-1].ids == ["1:2"]


async def test_another_pictures_bytes_are_noticed(studio: Studio, world: World) -> None:
    world.spoilt = {"1:2": ["other"]}
    done = await studio.done(PROVEN)
    assert studio.picture(done, "Hero.png").size == (640, 360)


async def test_a_size_that_figma_insists_on_is_told(studio: Studio, world: World) -> None:
    world.documents[KEY].layers["1:2"].picture_size = (50, 50)
    done = await studio.done(PROVEN)
    (odd,) = (item for item in done.result["items"] if item.get("unexpectedSize"))
    assert (odd["nodeId"], odd["width"]) == ("1:2", 50)


async def test_a_png_that_is_none_is_named_and_the_others_stay(studio: Studio, world: World) -> None:
    world.spoilt = {"1:2": ["html"] * 99}
    done = await studio.done(PROVEN)
    assert [entry["reason"] for entry in done.result["skipped"]] == ["bad_image"]
    assert len(done.files) == 2
    fault = await studio.fault({**PROVEN, "onMissing": "fail", "force": True})
    assert isinstance(fault, GiveUp)
    assert fault.error.code == "figma_bad_image"


async def test_a_download_that_never_comes_is_tried_again_with_the_job(studio: Studio, world: World) -> None:
    world.spoilt = {"1:2": ["500"] * 6}
    fault = await studio.fault(PROVEN)
    assert isinstance(fault, RetryLater)
    assert fault.error.code == "figma_download_failed"
    world.asked.clear()
    done = await studio.done(PROVEN)
    assert [asked.ids for asked in world.requests(part="/v1/images/")] == [["1:2"]], "the others are there"
    assert len(done.files) == 3
    assert done.result["counts"]["resumed"] == 2


async def test_the_last_attempt_does_without_what_cannot_be_fetched(studio: Studio, world: World) -> None:
    world.spoilt = {"1:2": ["500"] * 99}
    done = await studio.done(PROVEN, last_attempt=True)
    assert [entry["reason"] for entry in done.result["skipped"]] == ["download_failed"]


async def test_a_token_revoked_in_the_middle_keeps_what_is_stored(studio: Studio, world: World) -> None:
    world.documents["manyiconsfile"] = many_icons("manyiconsfile", 130)
    payload = {"file": "manyiconsfile", "select": {"components": ["*"]}}
    world.answers.append(Answer("/v1/images/", 403, body("Token expired"), after=1, times=1000))
    fault = await studio.fault(payload)
    assert isinstance(fault, GiveUp)
    assert fault.error.code == "figma_token_invalid"
    assert len(studio.storage.checkpoint["kept"]) == 100
    world.answers.clear()
    studio.storage.job += 1  # the dead letter is run again: a new job, with the failed one's checkpoint
    done = await studio.done(payload)
    assert (len(done.files), done.result["counts"]["resumed"], studio.storage.copies) == (130, 100, 100)
    assert len({file.path.split("/")[2] for file in done.files}) == 1, "each job has files of its own"  # type: ignore[union-attr]


async def test_a_killed_worker_loses_nothing_that_was_reported(
    studio: Studio, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.figma.shelf._PAUSE_SECONDS", 0.0)
    world.documents["manyiconsfile"] = many_icons("manyiconsfile", 60)
    payload = {"file": "manyiconsfile", "select": {"components": ["*"]}}
    studio.storage.fail_after = 20
    with pytest.raises(asyncio.CancelledError):
        await studio.outcome(payload)
    kept = len(studio.storage.checkpoint["kept"])
    assert kept >= 12
    studio.storage.fail_after = None
    world.asked.clear()
    done = await studio.done(payload)
    assert len({file.path for file in done.files}) == 60  # type: ignore[union-attr]
    asked = [node for one in world.requests(part="/v1/images/") for node in one.ids]
    assert len(asked) == 60 - kept


async def test_many_ids_and_one_poisoned_node_lose_that_node_alone(studio: Studio, world: World) -> None:
    world.documents["manyiconsfile"] = many_icons("manyiconsfile", 60)
    world.poison = {"10:37"}
    payload = {"file": "manyiconsfile", "select": {"components": ["*"]}}
    done = await studio.done(payload)
    assert len(done.files) == 59
    assert [(one["nodeId"], one["reason"]) for one in done.result["skipped"]] == [("10:37", "render_timeout")]
    assert studio.renders() <= 1 + 2 * 6
    fault = await studio.fault({**payload, "onMissing": "fail", "force": True})
    assert isinstance(fault, GiveUp)
    assert fault.error.code == "figma_render_timeout"


@pytest.mark.parametrize("status", [400, 500])
async def test_the_limit_of_a_render_is_learnt_once(studio: Studio, world: World, status: int) -> None:
    world.documents["manyiconsfile"] = many_icons("manyiconsfile", 100)
    world.most_ids, world.timeout_status = 25, status
    done = await studio.done({"file": "manyiconsfile", "select": {"components": ["*"]}})
    assert len(done.files) == 100
    assert studio.renders() == 4 + (3 if status == 400 else 6)


async def test_large_nodes_are_packed_by_their_pixels(studio: Studio, world: World) -> None:
    layers = [Layer(f"4:{n}", f"large-{n}", 2000, 2000, picture_size=(20, 20)) for n in range(30)]
    world.documents["largelargelarge"] = Document("largelargelarge", "L", [page("P", *layers)])
    world.most_megapixels = 61
    done = await studio.done({"file": "largelargelarge", "nodeIds": [layer.id for layer in layers]})
    assert (len(done.files), world.statuses()[400]) == (30, 0)
    assert max(len(one.ids) for one in world.requests(part="/v1/images/")) == 15


async def test_one_node_that_only_gives_500_is_an_outage_not_a_poisoned_node(
    studio: Studio, world: World
) -> None:
    world.answers.append(Answer("/v1/images/", 500, b"", times=99))
    fault = await studio.fault({"file": KEY, "nodeIds": ["1:2"]})
    assert isinstance(fault, RetryLater)
    assert fault.error.code == "figma_unavailable"


@pytest.mark.parametrize("node", ["1:8", "1:2", "1:4"])
@pytest.mark.parametrize("status", [400, 500])
async def test_a_node_that_cannot_be_drawn_is_found_wherever_it_stands(
    studio: Studio, world: World, node: str, status: int
) -> None:
    world.poison, world.timeout_status = {node}, status
    done = await studio.done(PROVEN)
    assert [(one["nodeId"], one["reason"]) for one in done.result["skipped"]] == [(node, "render_timeout")]
    assert len(done.files) == 2


async def test_a_refusal_in_new_words_is_halved_before_it_is_believed(studio: Studio, world: World) -> None:
    world.answers.append(Answer("/v1/images/", 400, body("We could not process these")))
    assert len((await studio.done(PROVEN)).files) == 3


@pytest.mark.parametrize("text", ["Rendering timed out", "Render time out", "Request timeout"])
async def test_a_timeout_is_one_in_any_words(studio: Studio, world: World, text: str) -> None:
    world.answers.append(Answer("/v1/images/", 200, b'{"err": "%s", "images": {}}' % text.encode()))
    assert len((await studio.done(PROVEN)).files) == 3
    assert studio.renders() == 3


async def test_a_server_that_only_draws_will_do(studio: Studio, world: World) -> None:
    """Figma's own 404 says that the file is not there; another's, that the request is not known."""
    for part in ("/meta", f"/v1/files/{KEY}"):
        world.answers.append(Answer(part, 404, HTML, times=9))
    done = await studio.done(PROVEN)
    assert [item["artifact"] for item in done.result["items"]] == [
        "node-1-8.png", "node-1-2.png", "node-1-4.png",
    ]  # fmt: skip
    assert done.result["version"] == ""
    assert done.result["source"] is None, "what has no version is nobody's cache"
    world.asked.clear()
    world.answers = [Answer("/v1/", 404, body("Not found"), times=9)]
    assert (await studio.fault(PROVEN)).error.code == "figma_not_found"
    assert len(world.asked) == 1


async def test_a_file_whose_version_cannot_be_held_says_that_it_was_edited(
    studio: Studio, world: World
) -> None:
    metas = [b'{"file": {"name": "x", "last_touched_at": "2026-11-0%dT10:00:00Z"}}' % day for day in (1, 2)]
    world.answers = [Answer("/meta", 200, meta) for meta in metas]
    done = await studio.done(PROVEN)
    assert (done.result["editedMeanwhile"], done.result["source"]) == (True, None)
    assert all("version" not in asked.query for asked in world.requests())


@pytest.mark.parametrize("said", ["0", "0.0", "-5", ""])
async def test_a_retry_after_that_says_nothing_is_no_reason_to_hurry(
    studio: Studio, world: World, said: str
) -> None:
    refusal = Answer("/v1/images/", 429, body("Rate limit exceeded"), {"Retry-After": said}, times=999)
    world.answers.append(refusal)
    outcome = await studio.outcome(PROVEN)
    assert isinstance(outcome, Postpone)
    assert outcome.after > timedelta(seconds=0.5)
    assert studio.renders() == 1


async def test_names_that_postgres_does_not_take_are_told_without_what_it_does_not(
    studio: Studio, world: World
) -> None:
    layer = Layer("1:1", "a\0b\ud800c\r\nd", 10, 10)
    world.documents["hostilenames2"] = Document("hostilenames2", "x", [page("P\0", layer)])
    done = await studio.done({"file": "hostilenames2", "select": {}})
    (item,) = done.result["items"]
    assert (item["name"], item["page"], item["artifact"]) == ("ab?c\r\nd", "P", "a-b-c--d.png")


async def test_a_short_retry_after_is_waited_for_and_nothing_is_sent_before(
    studio: Studio, world: World
) -> None:
    world.limits.minute_seconds = 4.0
    said = {"Retry-After": "1.2"}
    world.answers.append(Answer("/v1/images/", 429, body("Rate limit exceeded"), said))
    async with open_figma(world) as figma:
        assert len((await again(studio, figma).done(PROVEN)).files) == 3
    first, second = world.requests(part="/v1/images/")
    assert second.at - first.at >= 1.2


@pytest.mark.parametrize("after", ["120", "in an hour", None, "soon"])
async def test_a_long_retry_after_hands_the_job_back(studio: Studio, world: World, after: str | None) -> None:
    if after == "in an hour":
        after = (datetime.now(UTC) + timedelta(hours=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"Retry-After": after} if after else {}
    world.answers.append(Answer("/v1/images/", 429, body("Rate limit exceeded"), headers))
    outcome = await studio.outcome(PROVEN)
    assert isinstance(outcome, Postpone)
    assert "rate" in outcome.reason
    least = {"120": 119, None: 7, "soon": 7}.get(after, 3500)
    assert timedelta(seconds=least) <= outcome.after < timedelta(seconds=4300)
    before = len(world.requests(part="/v1/images/"))
    assert isinstance(await studio.outcome(PROVEN), Postpone), "nobody probes while the limit is used up"
    assert len(world.requests(part="/v1/images/")) == before


async def test_a_used_up_month_ends_the_job_and_says_what_would_help(studio: Studio, world: World) -> None:
    headers = {
        "Retry-After": "396749", "X-Figma-Plan-Tier": "pro", "X-Figma-Rate-Limit-Type": "low",
        "X-Figma-Upgrade-Link": "https://www.figma.com/files?api_paywall=true",
    }  # fmt: skip
    world.answers.append(Answer("/v1/images/", 429, body("Rate limit exceeded"), headers))
    fault = await studio.fault(PROVEN)
    assert isinstance(fault, GiveUp)
    assert fault.error.code == "figma_quota_exhausted"
    until = datetime.fromisoformat(fault.error.details["until"])
    assert timedelta(days=4.5) < until - datetime.now(UTC) < timedelta(days=4.7)
    assert (fault.error.details["planTier"], fault.error.details["limitType"]) == ("pro", "low")
    assert f"{until:%Y-%m-%d}" in fault.error.message


@pytest.mark.soak
async def test_five_hundred_nodes_under_the_limit_meet_no_429(studio: Studio, world: World) -> None:
    world.documents["manyiconsfile"] = many_icons("manyiconsfile", 500)
    world.limits.per_minute = {1: 10, 2: 10, 3: 10}
    world.limits.minute_seconds = 15.0
    world.most_ids = 25
    async with open_figma(world) as figma:
        done = await again(studio, figma).done({"file": "manyiconsfile", "select": {"components": ["*"]}})
    assert len(done.files) == 500
    assert 429 not in world.statuses()
    assert world.statuses()[200] == 1 + 2 + 20


async def test_a_wrong_guess_of_the_limit_is_corrected_by_the_first_429(studio: Studio, world: World) -> None:
    world.documents["manyiconsfile"] = many_icons("manyiconsfile", 80)
    world.limits.per_minute = {1: 4, 2: 10, 3: 10}
    world.most_ids = 10
    guess = {1: 8, 2: 10, 3: 10}
    async with open_figma(world, per_minute=guess) as figma:
        outcome = await again(studio, figma).outcome(
            {"file": "manyiconsfile", "select": {"components": ["*"]}}
        )
    assert isinstance(outcome, Done | Postpone)
    assert world.statuses()[429] == 1
