"""Exports: the pictures asked for, each once, with the calls that it takes and no more."""

import asyncio
import io
from typing import Any

import pytest
from PIL import Image

from local.figma import pictures
from local.figma.documents import Document, Layer, many_icons, page
from local.figma.world import World
from tests.worker.figma.conftest import KEY, Studio
from worker.figma.globs import matches
from worker.handlers import Done, GiveUp

PROVEN = {"file": KEY, "nodeIds": ["1:8", "1:2", "1:4"]}


def colours(studio: Studio, done: Done) -> dict[str, Any]:
    """Whose picture each file is, by its pixels."""
    return {
        item["nodeId"]: studio.picture(done, item["artifact"]).convert("RGB").getpixel((3, 3))
        for item in done.result["items"]
    }


async def test_the_owners_proven_case_gives_one_picture_a_node(studio: Studio, world: World) -> None:
    done = await studio.done(PROVEN)
    version = world.documents[KEY].version
    assert [(item["nodeId"], item["artifact"]) for item in done.result["items"]] == [
        ("1:8", "Footer.png"), ("1:2", "Hero.png"), ("1:4", "Pricing.png"),
    ]  # fmt: skip
    assert [file.name for file in done.files] == ["Footer.png", "Hero.png", "Pricing.png"]
    assert [(file.width, file.height) for file in done.files] == [(640, 120), (640, 360), (480, 320)]
    assert colours(studio, done) == {
        node: pictures.colour(KEY, node, version) for node in ("1:8", "1:2", "1:4")
    }
    assert (done.result["partial"], done.result["version"]) == (False, version)
    assert [asked.path for asked in world.requests()] == [
        f"/v1/files/{KEY}/meta", f"/v1/files/{KEY}/nodes", f"/v1/images/{KEY}",
    ]  # fmt: skip
    assert studio.storage.progress[0] == {"phase": "export", "done": 0, "total": 3}
    assert studio.storage.progress[-1] == {"phase": "done", "done": 3, "total": 3}


async def test_the_token_goes_to_the_api_and_nowhere_else(studio: Studio, world: World) -> None:
    await studio.done(PROVEN)
    assert all(asked.headers["x-figma-token"] == world.token for asked in world.requests())
    assert all(world.token not in str(asked.headers) for asked in world.requests("images"))
    assert all("authorization" not in asked.headers for asked in world.requests("images"))


@pytest.mark.parametrize(
    "pasted",
    [
        f"https://www.figma.com/design/{KEY}/Landing-page?node-id=1-2&t=x-0",
        f"https://figma.com/file/{KEY}",
        f"www.figma.com/proto/{KEY}/x",
        f"https://www.figma.com/design/aaaaaaaaaaaa/branch/{KEY}/Landing",
    ],
)
async def test_a_pasted_address_and_any_spelling_of_an_id_will_do(studio: Studio, pasted: str) -> None:
    done = await studio.done({"file": pasted, "nodeIds": ["1-8", "1%3A2", "1:8", "1:2"]})
    assert [item["nodeId"] for item in done.result["items"]] == ["1:8", "1:2"]


async def test_the_node_of_an_address_is_exported(studio: Studio) -> None:
    done = await studio.done({"file": f"https://www.figma.com/design/{KEY}/x?node-id=1-4"})
    assert [item["nodeId"] for item in done.result["items"]] == ["1:4"]


async def test_formats_and_scales_each_give_a_file(studio: Studio) -> None:
    done = await studio.done(
        {"file": KEY, "nodeIds": ["1:4"], "formats": ["png", "jpg", "svg", "pdf"], "scales": [1, 2, 0.5]}
    )
    sizes = {file.name: (file.width, file.height) for file in done.files}
    assert sizes == {
        "Pricing.png": (480, 320), "Pricing@2x.png": (960, 640), "Pricing@0.5x.png": (240, 160),
        "Pricing.jpg": (480, 320), "Pricing@2x.jpg": (960, 640), "Pricing@0.5x.jpg": (240, 160),
        "Pricing.svg": (480, 320), "Pricing.pdf": (None, None),
    }  # fmt: skip
    assert studio.picture(done, "Pricing@2x.jpg").format == "JPEG"
    assert studio.data(done, "Pricing.pdf").startswith(b"%PDF-")
    assert {file.mime for file in done.files} == {
        "image/png",
        "image/jpeg",
        "image/svg+xml",
        "application/pdf",
    }


async def test_progress_counts_nodes_also_those_that_give_no_picture(studio: Studio) -> None:
    payload = {"file": KEY, "nodeIds": ["1:2", "1:4", "9:9"], "formats": ["png", "jpg"], "scales": [1, 2]}
    await studio.done(payload)
    assert studio.storage.progress[0] == {"phase": "export", "done": 1, "total": 3}
    assert studio.storage.progress[-1] == {"phase": "done", "done": 3, "total": 3}
    await studio.done(payload)
    assert studio.storage.progress[-1] == {"phase": "done", "done": 3, "total": 3}


async def test_an_svg_loses_what_could_run(studio: Studio) -> None:
    done = await studio.done({"file": KEY, "nodeIds": ["1:4"], "formats": ["svg"]})
    text = studio.data(done, "Pricing.svg").decode()
    for harm in ("script", "onload", "href", "example.com"):
        assert harm not in text
    assert "<path" in text, "what the link surrounded is still drawn"
    assert done.result["items"][0]["sanitized"] is True
    plain = await studio.done({"file": KEY, "nodeIds": ["1:4"], "formats": ["svg"], "svgSanitize": False})
    assert "<script>" in studio.data(plain, "Pricing.svg").decode()


async def test_names_follow_the_template_and_never_meet(studio: Studio, world: World) -> None:
    names = [
        "a/b",
        "A:b",
        "..",
        "",
        "🚀 로켓",
        "x" * 300,
        "CON",
        "same",
        "same",
        "Same",
        "tab\tname",
        "a-b-3-0",
    ]
    layers = [Layer(f"3:{index}", name, 10, 10) for index, name in enumerate(names)]
    document = Document("hostilenames1", "Names", [page("Seite/1", *layers)])
    world.documents[document.key] = document
    done = await studio.done({"file": document.key, "nodeIds": [layer.id for layer in layers]})
    found = [item["artifact"] for item in done.result["items"]]
    assert found == [
        "a-b-3-0-png-1x.png", "A-b-3-1.png", "node-3-2.png", "node-3-3.png", "🚀 로켓.png",
        "x" * 116 + ".png",
        "_CON.png", "same-3-7.png", "same-3-8.png", "Same-3-9.png", "tab-name.png", "a-b-3-0-3-11-png-1x.png",
    ]  # fmt: skip
    assert len({name.casefold() for name in found}) == len(names)
    assert all(len(name.encode()) <= 140 and "/" not in name and ".." not in name for name in found), found
    assert done.result["items"][0]["name"] == "a/b", "the true name is told"
    templated = await studio.done(
        {
            "file": KEY, "nodeIds": ["1:2"], "scales": [2],
            "nameTemplate": "{nodeId}/{name}.{format}.{scale}",
        }
    )  # fmt: skip
    assert templated.result["items"][0]["artifact"] == "1-2-Hero.png.2.png"


def library() -> Document:
    icons = [Layer(f"5:{n}", f"icon/{n}", 24, 24, "COMPONENT") for n in range(3)]
    hidden = Layer("5:9", "icon/hidden", 24, 24, "COMPONENT", visible=False)
    frame = Layer("6:1", "Card", 300, 200, children=[Layer("6:2", "Card/Title", 80, 20, "TEXT")])
    group = Layer("7:1", "Icons", 200, 200, "SECTION", children=[*icons, hidden])
    cover = page("Cover", Layer("8:1", "Cover", 100, 100), page_id="0:2")
    document = Document("librarylibrary", "Library", [page("Parts", frame, group), cover])
    document.published = {"components": [{"node_id": "5:1"}], "component_sets": []}
    return document


@pytest.mark.parametrize(
    ("select", "ids"),
    [
        ({}, ["6:1", "7:1", "8:1"]),
        ({"pages": ["Parts"]}, ["6:1", "7:1"]),
        ({"pages": ["C*"]}, ["8:1"]),
        ({"names": ["C*"]}, ["6:1", "8:1"]),
        ({"names": ["Parts/Icons/icon/*"], "types": ["COMPONENT"]}, ["5:0", "5:1", "5:2"]),
        ({"names": ["*Title"], "types": ["TEXT"]}, ["6:2"]),
        ({"components": ["icon/*"]}, ["5:0", "5:1", "5:2"]),
        ({"components": ["*"], "publishedOnly": True}, ["5:1"]),
        ({"names": ["card"]}, []),
    ],
    ids=str,
)
async def test_nodes_are_found_by_page_name_type_and_component(
    studio: Studio, world: World, select: dict[str, Any], ids: list[str]
) -> None:
    document = library()
    world.documents[document.key] = document
    outcome = await studio.outcome({"file": document.key, "select": select})
    if not ids:
        assert isinstance(outcome, GiveUp)
        assert outcome.error.code == "figma_nothing_exported"
        return
    assert isinstance(outcome, Done)
    assert {item["nodeId"] for item in outcome.result["items"]} == set(ids)
    assert all(item["page"] in ("Parts", "Cover") for item in outcome.result["items"])


async def test_hostile_globs_and_deep_files_take_no_longer_than_others(studio: Studio, world: World) -> None:
    """A matcher that goes back would not end; one that calls itself would fall over."""
    below = Layer("9:3000", "a" * 5000, 10, 10)
    for number in range(300):
        below = Layer(f"9:{number}", "a" * 5000, 10, 10, children=[below])
    world.documents["deepdeepdeep"] = Document("deepdeepdeep", "Deep", [page("P", below)])
    fault = await studio.fault({"file": "deepdeepdeep", "select": {"names": ["*a" * 140 + "*b"]}})
    assert fault.error.code == "figma_nothing_exported"
    assert matches("a[b]c", ["a[b]?"])
    assert not matches("abc", ["a[b]c"])


async def test_what_gives_no_picture_is_named(studio: Studio, world: World) -> None:
    layers = [
        Layer("2:1", "good"), Layer("2:2", "hidden", visible=False), Layer("2:3", "clear", opacity=0),
        Layer("2:4", "empty", draws=False),
    ]  # fmt: skip
    document = Document("partialpartial", "Partial", [page("P", *layers)])
    world.documents[document.key] = document
    payload = {"file": document.key, "nodeIds": ["2:1", "2:2", "2:3", "2:4", "9:9"]}
    done = await studio.done(payload)
    assert done.result["partial"] is True
    assert [item["nodeId"] for item in done.result["items"]] == ["2:1"]
    assert {entry["nodeId"]: entry["reason"] for entry in done.result["skipped"]} == {
        "2:2": "invisible", "2:3": "invisible", "2:4": "empty", "9:9": "missing",
    }  # fmt: skip
    assert done.result["counts"]["skipped"] == 4
    fault = await studio.fault({**payload, "onMissing": "fail"})
    assert isinstance(fault, GiveUp)
    assert fault.error.code == "figma_node_missing"
    none = await studio.fault({**payload, "nodeIds": ["9:9"]})
    assert isinstance(none, GiveUp)
    assert none.error.code == "figma_nothing_exported"
    assert none.error.details["skipped"][0]["nodeId"] == "9:9"


async def test_a_null_that_passes_is_asked_for_once_more(studio: Studio, world: World) -> None:
    world.null_once = {"1:2"}
    done = await studio.done(PROVEN)
    assert (len(done.result["items"]), studio.renders()) == (3, 2)


async def test_the_same_job_again_costs_one_metadata_request(studio: Studio, world: World) -> None:
    first = await studio.done(PROVEN)
    world.asked.clear()
    second = await studio.done(PROVEN)
    assert [asked.path for asked in world.asked] == [f"/v1/files/{KEY}/meta"]
    assert colours(studio, second) == colours(studio, first)
    assert all(item["fromCache"] for item in second.result["items"])
    assert second.result["counts"]["fromCache"] == 3
    third = await studio.done(PROVEN)
    assert third.result["items"] == second.result["items"]
    assert (studio.storage.uploads, studio.storage.copies, studio.storage.shares) == (3, 0, 6)
    assert studio.storage.read == 2, "one earlier job each time"


async def test_the_same_job_in_other_words_is_the_same_job(studio: Studio, world: World) -> None:
    await studio.done({"file": KEY, "nodeIds": ["1:2", "1:4"]})
    world.asked.clear()
    pasted = f"https://www.figma.com/design/{KEY}/Landing?node-id=1-8"
    await studio.done({"file": pasted, "nodeIds": ["1-2", "1%3A4", "1:2"], "formats": ["png"]})
    assert [asked.path for asked in world.asked] == [f"/v1/files/{KEY}/meta"]


async def test_a_changed_file_is_rendered_anew(studio: Studio, world: World) -> None:
    first = await studio.done(PROVEN)
    world.documents[KEY].touch()
    second = await studio.done(PROVEN)
    assert colours(studio, second) != colours(studio, first)
    assert colours(studio, second)["1:2"] == pictures.colour(KEY, "1:2", world.documents[KEY].version)
    assert studio.storage.shares == 0


async def test_other_options_are_other_pictures_and_equal_ones_are_taken_over(
    studio: Studio, world: World
) -> None:
    await studio.done({"file": KEY, "nodeIds": ["1:2", "1:4"]})
    more = await studio.done({"file": KEY, "nodeIds": ["1:2", "1:8"], "scales": [1, 2]})
    assert (studio.storage.shares, studio.storage.copies) == (1, 0), "1:2 at scale 1"
    cached = [(item["nodeId"], item["scale"]) for item in more.result["items"] if item.get("fromCache")]
    assert cached == [("1:2", 1.0)]
    other = await studio.done({"file": KEY, "nodeIds": ["1:2"], "useAbsoluteBounds": True})
    assert other.result["counts"]["fromCache"] == 0
    forced = await studio.done({"file": KEY, "nodeIds": ["1:2"], "force": True})
    assert forced.result["counts"]["fromCache"] == 0
    assert world.requests(part="/v1/images/")[-1].ids == ["1:2"]


async def test_a_killed_attempts_successor_finds_again_what_can_be_shared(
    studio: Studio, world: World
) -> None:
    """The checkpoint has what the job itself has stored, and no earlier job's file, which may go meanwhile."""
    await studio.done({"file": KEY, "nodeIds": ["1:2", "1:4"]})
    studio.storage.fail_after = studio.storage.uploads
    with pytest.raises(asyncio.CancelledError):
        await studio.outcome(PROVEN)
    assert studio.storage.checkpoint["kept"] == {}
    assert studio.storage.progress[-1]["done"] == 2
    studio.storage.fail_after = None
    world.asked.clear()
    done = await studio.done(PROVEN)
    assert (done.result["counts"]["fromCache"], len(done.files)) == (2, 3)
    assert world.requests(part="/v1/images/")[-1].ids == ["1:8"]


async def test_a_version_can_be_asked_for_and_is_kept_while_the_file_moves(
    studio: Studio, world: World
) -> None:
    document = world.documents[KEY]
    old = document.version
    document.touch()
    done = await studio.done({**PROVEN, "version": old})
    assert colours(studio, done)["1:2"] == pictures.colour(KEY, "1:2", old)
    assert all(asked.query["version"] == old for asked in world.requests() if "/meta" not in asked.path)


async def test_versions_that_figma_does_not_take_are_left_out(studio: Studio, world: World) -> None:
    world.pins_versions = False
    done = await studio.done(PROVEN)
    assert len(done.result["items"]) == 3
    assert "version" not in world.requests(part="/v1/images/")[0].query


async def test_very_large_pictures_say_that_figma_made_them_smaller(studio: Studio, world: World) -> None:
    document = Document("verylargefile1", "Large", [page("P", Layer("1:1", "Poster", 4000, 3000))])
    world.documents[document.key] = document
    done = await studio.done({"file": document.key, "nodeIds": ["1:1"], "scales": [2]})
    assert done.result["items"][0]["downscaled"] is True
    assert done.files[0].width is not None
    assert done.files[0].width < 8000


async def test_a_thousand_nodes_are_one_job_and_more_are_refused(studio: Studio, world: World) -> None:
    world.documents["manyiconsfile"] = many_icons("manyiconsfile", 1001)
    fault = await studio.fault({"file": "manyiconsfile", "select": {"components": ["*"]}})
    assert fault.error.code == "invalid_payload"
    assert "1001" in fault.error.message
    assert studio.renders() == 0


async def test_every_picture_can_be_decoded(studio: Studio) -> None:
    done = await studio.done({"file": KEY, "nodeIds": ["1:2"], "formats": ["png", "jpg"]})
    for file in done.files:
        Image.open(io.BytesIO(studio.data(done, file.name))).load()
