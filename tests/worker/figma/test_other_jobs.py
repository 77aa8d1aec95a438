"""Snapshots, tokens, fills and comments."""

import gzip
import io
import json
from typing import Any

import pytest
from PIL import Image

from local.figma.documents import Document, Layer, page
from local.figma.pictures import png
from local.figma.world import Answer, World
from tests.worker.figma.conftest import KEY, Studio
from worker.handlers import Done, GiveUp, RetryLater

TOO_LARGE = b'{"status": 400, "err": "Request too large. If applicable, filter by query params."}'


async def snapshot(studio: Studio, **payload: Any) -> tuple[Done, dict[str, Any]]:
    done = await studio.done({"file": KEY, **payload}, "figma.file")
    (file,) = done.files
    assert (file.name, file.mime) == ("file.json.gz", "application/gzip")
    return done, json.loads(gzip.decompress(studio.data(done, file.name)))


async def test_a_snapshot_is_the_files_json(studio: Studio, world: World) -> None:
    done, file = await snapshot(studio)
    assert file == world.documents[KEY].as_json(None)
    assert done.result["counts"]["nodes"] == 5
    assert done.result["version"] == world.documents[KEY].version
    shallow, file = await snapshot(studio, depth=1)
    assert "children" not in file["document"]["children"][0]
    assert shallow.result["counts"]["nodes"] == 2


async def test_a_file_too_large_for_one_answer_is_put_together_by_pages(studio: Studio, world: World) -> None:
    world.answers.append(Answer(f"/v1/files/{KEY}", 400, TOO_LARGE))
    done, file = await snapshot(studio)
    assert file == world.documents[KEY].as_json(None)
    assert done.result["assembled"] is True


@pytest.mark.parametrize("said", [b"[]", b"<html>", b'{"document": 1'])
async def test_a_snapshot_that_is_none_is_tried_again(studio: Studio, world: World, said: bytes) -> None:
    world.answers.append(Answer(f"/v1/files/{KEY}", 200, said, times=9))
    fault = await studio.fault({"file": KEY}, "figma.file")
    assert isinstance(fault, RetryLater)
    assert fault.error.code == "figma_unavailable"


async def test_a_file_that_nests_deeper_than_we_can_follow_is_kept_all_the_same(
    studio: Studio, world: World
) -> None:
    deep = b'{"document": ' + b'{"children": [' * 100_000 + b"]}" * 100_000 + b"}"
    world.answers.append(Answer(f"/v1/files/{KEY}", 200, deep))
    done = await studio.done({"file": KEY}, "figma.file")
    assert gzip.decompress(studio.data(done, "file.json.gz")) == deep
    world.answers.append(Answer(f"/v1/files/{KEY}", 200, deep, times=9))
    assert isinstance(await studio.fault({"file": KEY, "select": {}}), RetryLater)


@pytest.mark.soak
async def test_a_file_of_forty_thousand_nodes_is_read(studio: Studio, world: World) -> None:
    layers = [Layer(f"2:{n}", f"n{n}") for n in range(40_000)]
    world.documents["fortythousand"] = Document("fortythousand", "Large", [page("P", *layers)])
    done = await studio.done({"file": "fortythousand"}, "figma.file")
    assert done.result["counts"]["nodes"] == 40_002


def variable(number: int, name: str, kind: str, **values: Any) -> dict[str, Any]:
    return {
        "id": f"V:{number}", "name": name, "resolvedType": kind, "variableCollectionId": "C:1",
        "valuesByMode": {f"M:{mode}": value for mode, value in values.items()}, "scopes": ["ALL_SCOPES"],
    }  # fmt: skip


def alias(number: int) -> dict[str, Any]:
    return {"type": "VARIABLE_ALIAS", "id": f"V:{number}"}


WHITE, RED = {"r": 1, "g": 1, "b": 1, "a": 1}, {"r": 1, "g": 0, "b": 0, "a": 0.5}


def themed() -> dict[str, Any]:
    variables = [
        variable(1, "Color/White", "COLOR", light=WHITE, dark=RED),
        variable(2, "Color/Text on top", "COLOR", light=alias(1), dark=alias(1)),
        {**variable(3, "Space/M", "FLOAT", light=16, dark=16), "scopes": ["GAP"]},
        variable(4, "Factor", "FLOAT", light=1.5, dark=2),
        variable(5, "Round/A", "COLOR", light=alias(6), dark=WHITE),
        variable(6, "Round/B", "COLOR", light=alias(5), dark=WHITE),
        variable(7, "Lost", "COLOR", light=alias(99), dark=WHITE),
        variable(8, "Space/M", "FLOAT", light=8, dark=8),
        {**variable(9, "Gone", "COLOR", light=WHITE, dark=WHITE), "deletedButReferenced": True},
        variable(10, "Shown", "BOOLEAN", light=True, dark=False),
    ]
    collection = {
        "id": "C:1", "name": "Theme", "defaultModeId": "M:light", "remote": False,
        "modes": [{"modeId": "M:light", "name": "Light"}, {"modeId": "M:dark", "name": "Dark"}],
        "variableIds": [one["id"] for one in variables],
    }  # fmt: skip
    return {"variables": {one["id"]: one for one in variables}, "variableCollections": {"C:1": collection}}


async def test_variables_become_design_tokens_and_css(studio: Studio, world: World) -> None:
    world.documents[KEY].variables = themed()
    done = await studio.done({"file": KEY}, "figma.tokens")
    assert [file.name for file in done.files] == [
        "Theme.Light.tokens.json",
        "Theme.Dark.tokens.json",
        "tokens.css",
    ]
    light = json.loads(studio.data(done, "Theme.Light.tokens.json"))
    assert light["Color"]["White"]["$value"] == {
        "colorSpace": "srgb", "components": [1, 1, 1], "alpha": 1, "hex": "#ffffff",
    }  # fmt: skip
    assert light["Color"]["Text on top"]["$value"] == "{Color.White}"
    assert light["Space"]["M"] == {
        "$type": "dimension", "$value": {"value": 16, "unit": "px"},
        "$extensions": {"com.figma": {"id": "V:3", "scopes": ["GAP"]}},
    }  # fmt: skip
    assert light["Factor"]["$type"] == "number"
    assert {(one["problem"], one["name"]) for one in done.result["problems"]} == {
        ("circularAlias", "Round/A"), ("circularAlias", "Round/B"), ("danglingAlias", "Lost"),
        ("duplicate", "Space/M"), ("deletedButReferenced", "Gone"),
    }  # fmt: skip
    css = studio.data(done, "tokens.css").decode()
    assert ":root {\n  --theme-color-white: #ffffff;\n" in css
    assert "  --theme-color-text-on-top: var(--theme-color-white);\n" in css
    assert '[data-theme="Dark"] {\n  --theme-color-white: rgb(100% 0% 0% / 0.5);' in css
    assert "--theme-space-m: 16px;" in css
    only = await studio.done({"file": KEY, "modes": ["Da*"], "outputs": ["dtcg"]}, "figma.tokens")
    assert [file.name for file in only.files] == ["Theme.Dark.tokens.json"]


async def test_without_variables_the_styles_are_taken(studio: Studio, world: World) -> None:
    document = world.documents[KEY]
    style = {"fontFamily": "Inter", "fontSize": 16, "fontWeight": 700, "lineHeightPx": 24}
    shadow = {"type": "DROP_SHADOW", "radius": 4, "offset": {"x": 0, "y": 2}, "color": RED}
    for layer in (
        Layer("s:1", "x", more={"fills": [{"type": "SOLID", "color": WHITE, "opacity": 0.5}]}),
        Layer("s:2", "x", type="TEXT", more={"style": style}),
        Layer("s:3", "x", more={"effects": [shadow]}),
    ):
        document.layers[layer.id] = layer
    document.styles = {"s:1": {"name": "Brand/Paper"}, "s:2": {"name": "Text/Bold"}}
    document.published = {"styles": [{"node_id": "s:3", "name": "Lift"}]}
    done = await studio.done({"file": KEY}, "figma.tokens")
    assert done.result["from"] == "styles"
    tokens = json.loads(studio.data(done, "styles.default.tokens.json"))
    assert tokens["Brand"]["Paper"]["$value"]["alpha"] == 0.5
    assert tokens["Text"]["Bold"]["$value"]["lineHeight"] == 1.5
    assert tokens["Lift"]["$value"]["blur"] == {"value": 4, "unit": "px"}
    assert '700 16px/1.5 "Inter"' in studio.data(done, "tokens.css").decode()
    fault = await studio.fault({"file": KEY, "source": "variables"}, "figma.tokens")
    assert isinstance(fault, GiveUp)
    assert (fault.error.code, fault.error.details["hint"]) == ("figma_plan_required", 'source: "styles"')


def gif() -> bytes:
    output = io.BytesIO()
    Image.new("P", (5, 4)).save(output, "GIF")
    return output.getvalue()


async def test_fills_are_fetched_as_they_were_uploaded(studio: Studio, world: World) -> None:
    document = world.documents[KEY]
    document.fills = {"abcdef0123": png(30, 20, (1, 2, 3), "x"), "fedcba3210": gif()}
    document.layers["1:2"].more = {"fills": [{"type": "IMAGE", "imageRef": "fedcba3210"}]}
    done = await studio.done({"file": KEY}, "figma.fills")
    assert {file.name: (file.mime, file.width, file.height) for file in done.files} == {
        "abcdef0123.png": ("image/png", 30, 20), "fedcba3210.gif": ("image/gif", 5, 4),
    }  # fmt: skip
    assert studio.data(done, "abcdef0123.png") == document.fills["abcdef0123"]
    inside = await studio.done({"file": KEY, "inNodeIds": ["1:2"]}, "figma.fills")
    assert [file.name for file in inside.files] == ["fedcba3210.gif"]
    some = await studio.done({"file": KEY, "imageRefs": ["abcdef0123", "0000000000"]}, "figma.fills")
    assert some.result["skipped"] == [{"imageRef": "0000000000", "reason": "missing"}]
    strict = {"file": KEY, "imageRefs": ["0000000000"], "onMissing": "fail"}
    assert (await studio.fault(strict, "figma.fills")).error.code == "figma_node_missing"


async def test_fills_that_are_stored_are_not_fetched_again(studio: Studio, world: World) -> None:
    document = world.documents[KEY]
    document.fills = {"abcdef0123": png(30, 20, (1, 2, 3), "x"), "fedcba3210": gif()}
    world.spoilt = {"fedcba3210": ["500"] * 6}
    fault = await studio.fault({"file": KEY}, "figma.fills")
    assert isinstance(fault, RetryLater)
    assert fault.error.code == "figma_download_failed"
    world.asked.clear()
    done = await studio.done({"file": KEY}, "figma.fills")
    assert [asked.path.rpartition("/")[2] for asked in world.requests("images")] == ["fedcba3210"]
    assert (len(done.files), done.result["counts"]["resumed"]) == (2, 1)


async def test_fills_that_an_earlier_job_has_fetched_are_shared(studio: Studio, world: World) -> None:
    document = world.documents[KEY]
    document.fills = {"abcdef0123": png(30, 20, (1, 2, 3), "x"), "fedcba3210": gif()}
    first = await studio.done({"file": KEY, "imageRefs": ["abcdef0123"]}, "figma.fills")
    world.asked.clear()
    both = await studio.done({"file": KEY}, "figma.fills")
    assert [asked.path.rpartition("/")[2] for asked in world.requests("images")] == ["fedcba3210"]
    assert both.result["counts"] == {"exported": 2, "skipped": 0, "fromCache": 1, "resumed": 0}
    document.touch()  # a reference is a digest: another version has the same pictures
    world.asked.clear()
    again = await studio.done({"file": KEY}, "figma.fills")
    assert (len(world.asked), studio.storage.uploads, studio.storage.copies) == (1, 2, 0)
    assert studio.data(again, "abcdef0123.png") == studio.data(first, "abcdef0123.png")
    assert [item["fromCache"] for item in again.result["items"]] == [True, True]


async def test_a_fill_that_is_no_picture_is_named(studio: Studio, world: World) -> None:
    document = world.documents[KEY]
    document.fills = {"abcdef0123": png(30, 20, (1, 2, 3), "x"), "fedcba3210": b"none"}
    done = await studio.done({"file": KEY}, "figma.fills")
    assert done.result["skipped"] == [{"imageRef": "fedcba3210", "reason": "bad_image"}]
    fault = await studio.fault({"file": KEY, "onMissing": "fail"}, "figma.fills")
    assert fault.error.code == "figma_bad_image"


@pytest.mark.parametrize(
    "meta", ["7", '{"variables": {"V:1": 3}}', '{"variableCollections": {"C": {"modes": [1]}}}']
)
async def test_variables_of_another_shape_are_no_bug_of_ours(studio: Studio, world: World, meta: str) -> None:
    answer = f'{{"status": 200, "error": false, "meta": {meta}}}'.encode()
    world.answers.append(Answer("/variables/local", 200, answer, times=9))
    fault = await studio.fault({"file": KEY}, "figma.tokens")
    assert isinstance(fault, RetryLater)
    assert fault.error.code == "figma_unavailable"


def comment(number: int, parent: int | None = None, resolved: str | None = None) -> dict[str, Any]:
    return {
        "id": str(number), "parent_id": str(parent) if parent else "", "message": f"m{number}",
        "created_at": f"2026-11-{number:02}T10:00:00Z", "resolved_at": resolved,
    }  # fmt: skip


async def test_comments_are_threads(studio: Studio, world: World) -> None:
    world.documents[KEY].comments = [
        comment(9, 2), comment(4, 2), comment(2), comment(3, None, "2026-11-05T00:00:00Z"), comment(5, 77),
    ]  # fmt: skip

    async def threads(**payload: Any) -> list[tuple[str, list[str]]]:
        done = await studio.done({"file": KEY, **payload}, "figma.comments")
        found = json.loads(studio.data(done, "comments.json"))["threads"]
        return [(one["id"], [reply["id"] for reply in one["replies"]]) for one in found]

    assert await threads() == [("2", ["4", "9"]), ("3", []), ("5", [])]
    assert await threads(includeResolved=False) == [("2", ["4", "9"]), ("5", [])]
    assert await threads(since="2026-11-06T00:00:00+09:00") == [("2", ["4", "9"])]
    assert world.requests(part="/comments")[0].query == {"as_md": "true"}


@pytest.mark.parametrize(
    ("kind", "payload", "field"),
    [
        ("figma.file", {"depth": 0}, "depth"),
        ("figma.tokens", {"outputs": ["scss"]}, "outputs.0"),
        ("figma.tokens", {"source": "library"}, "source"),
        ("figma.fills", {"imageRefs": ["../x/y/z/0"]}, "imageRefs.0"),
        ("figma.comments", {"since": "yesterday"}, "since"),
        ("figma.comments", {"since": "2026-01-01T00:00:00"}, "since"),
        ("figma.comments", {"version": "1"}, "version"),
    ],
)
async def test_wrong_payloads_name_their_field(
    studio: Studio, kind: str, payload: dict[str, Any], field: str
) -> None:
    fault = await studio.fault({"file": KEY, **payload}, kind)
    assert (fault.error.code, fault.error.details["field"]) == ("invalid_payload", f"payload.{field}")
