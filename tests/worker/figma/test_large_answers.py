"""Answers and pictures that are read in processes of their own: with the same outcome, and an end."""

import json
from pathlib import Path
from typing import Any

import pytest

from local.figma.world import Answer, World
from tests.worker import computations
from tests.worker.figma.conftest import KEY, Studio
from tests.worker.figma.test_export import (
    test_hostile_globs_and_deep_files_take_no_longer_than_others as _globs,
)
from tests.worker.figma.test_other_jobs import (
    test_comments_are_threads as _comments,
)
from tests.worker.figma.test_other_jobs import (
    test_fills_are_fetched_as_they_were_uploaded as _fills,
)
from tests.worker.figma.test_other_jobs import (
    test_variables_become_design_tokens_and_css as _variables,
)
from tests.worker.figma.test_other_jobs import (
    test_variables_of_another_shape_are_no_bug_of_ours as _odd_variables,
)
from tests.worker.figma.test_other_jobs import (
    test_without_variables_the_styles_are_taken as _styles,
)
from worker.figma import client, download
from worker.figma.nodes import Node, Wanted, pick_layers, pick_node
from worker.figma.packing import assemble
from worker.handlers import GiveUp, RetryLater

SAME = {"comments": _comments, "fills": _fills, "variables": _variables, "styles": _styles, "globs": _globs}


@pytest.fixture
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_IN_PLACE_BYTES", -1)


@pytest.mark.usefixtures("_all_are_large")
@pytest.mark.parametrize("name", SAME)
async def test_large_answers_have_the_outcome_of_small_ones(studio: Studio, world: World, name: str) -> None:
    await SAME[name](studio, world)


@pytest.mark.usefixtures("_all_are_large")
async def test_large_answers_of_another_shape_are_figmas_failure(studio: Studio, world: World) -> None:
    await _odd_variables(studio, world, '{"variables": {"V:1": 3}}')


HOSTILE = {
    "nested": b'{"meta": {"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "digits": b'{"meta": {"images": {"a": 1' + b"0" * 5000 + b"}}}",
    "constant": b'{"meta": {"images": {"a": NaN}}}',
    "number": b'{"meta": {"images": {"a": 1e400}}}',
    "cut off": b'{"meta": {"images": {"a": "b',
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_json_has_a_name(
    studio: Studio, world: World, monkeypatch: pytest.MonkeyPatch, name: str, large: bool
) -> None:
    if large:
        monkeypatch.setattr(client, "_IN_PLACE_BYTES", -1)
    world.answers.append(Answer("/images", 200, HOSTILE[name], times=9))
    fault = await studio.fault({"file": KEY}, "figma.fills")
    assert isinstance(fault, RetryLater)
    assert fault.error.code == "figma_unavailable"


def test_numbers_beyond_all_bounds_are_in_no_file() -> None:
    huge = {"id": "1:2", "name": "n" * 5000, "absoluteBoundingBox": {"width": float("inf"), "height": 1e308}}
    row = pick_node({"document": huge})
    assert row is not None
    node = Node.read(json.loads(json.dumps(row, allow_nan=False)))
    assert (node.box, len(node.name)) == (None, 1000)


def test_rows_of_layers_are_the_layers() -> None:
    box = {"width": 3, "height": 4.5}
    child = {"id": "1:3", "name": "b", "type": "FRAME", "visible": False, "absoluteBoundingBox": box}
    entry = {
        "document": {
            "id": "0:1",
            "children": [{"id": "1:2", "name": "a", "type": "FRAME", "children": [child]}],
        }
    }
    rows = json.loads(json.dumps(pick_layers(entry, "P", Wanted(("*",), ("FRAME",), ()))))
    assert [Node.read(row) for row in rows] == [
        Node("1:2", "a", "FRAME", "P", "P/a"),
        Node("1:3", "b", "FRAME", "P", "P/a/b", True, (3.0, 4.5)),
    ]


async def test_a_picture_that_takes_all_time_or_memory_is_a_bad_one(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PICTURE_SECONDS", 0.2)
    for function in (computations.loop_over, computations.take_all_memory_of):
        monkeypatch.setattr(download, "look", function)
        fault = await studio.fault({"file": KEY, "nodeIds": ["1:2"], "onMissing": "fail"})
        assert isinstance(fault, GiveUp)
        assert fault.error.code == "figma_bad_image"


async def test_a_child_that_dies_over_a_picture_costs_an_attempt(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "look", computations.die_over)
    fault = await studio.fault({"file": KEY, "nodeIds": ["1:2"]})
    assert isinstance(fault, RetryLater)
    assert fault.error.code == "computation_failed"


def test_pages_become_one_file(tmp_path: Path) -> None:
    head: dict[str, Any] = {
        "name": "ü", "version": "7", "styles": {"S:1": {"name": "a"}},
        "document": {"id": "0:0", "children": [{"id": "1:1"}, {"id": "1:2", "name": "gone"}], "type": "DOCUMENT"},
    }  # fmt: skip
    pages: dict[str, Any] = {
        "1:1": {"document": {"id": "1:1", "children": [{"id": "2:1"}]}, "styles": {"S:2": {"name": "b"}}},
        "1:2": None,
    }
    (tmp_path / "head").write_text(json.dumps(head))
    parts = []
    for number, (page, entry) in enumerate(pages.items()):
        parts.append((page, tmp_path / str(number)))
        parts[-1][1].write_text(json.dumps({"nodes": {page: entry}}))
    assemble(tmp_path / "head", parts, tmp_path / "whole")
    whole = json.loads((tmp_path / "whole").read_text())
    assert whole["document"] == {
        "id": "0:0", "type": "DOCUMENT",
        "children": [{"id": "1:1", "children": [{"id": "2:1"}]}, {"id": "1:2", "name": "gone"}],
    }  # fmt: skip
    assert whole["styles"] == {"S:1": {"name": "a"}, "S:2": {"name": "b"}}
    assert (whole["name"], whole["version"]) == ("ü", "7")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
