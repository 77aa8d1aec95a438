"""Whatever a handler says can be sent: as JSON, to Postgres, within its bounds."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.database_model import faults_of, size_of
from tests.worker.wild import Colour, Rude, deep, loop, small_values
from worker import storable
from worker.storable import TooLarge, clean, clean_error, clean_progress, clean_text


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("a\0b\ud800c", "ab?c"),
        (math.nan, None),
        ([math.inf, -math.inf, 1.5], [None, None, 1.5]),
        (10**5000, storable.TOO_MANY_DIGITS),
        (10**300, 10**300),
        (True, True),
        ((1, {2}), [1, [2]]),
        (b"\xff\xfe", "[2 bytes]"),
        (Colour.RED, "red"),
        (Path("/x"), "/x"),
        (Rude(), storable.UNREADABLE),
        ({1: "a", None: "b", "\0": "c", "": "d"}, {"1": "a", "None": "b", "": "c", "-2": "d"}),
    ],
    ids=lambda _: "",
)
def test_what_cannot_be_stored_is_replaced(value: Any, kept: Any) -> None:
    assert clean(value, 10_000) == kept
    assert clean({"a": [value]}, 10_000) == {"a": [kept]}


def test_exact_text_is_kept_exactly() -> None:
    assert clean(Colour.RED, 100).__class__ is str


@pytest.mark.parametrize("make", [lambda: deep(5000), loop], ids=["deep", "a loop"])
def test_what_is_too_deep_ends_in_a_note(make: Callable[[], Any]) -> None:
    text = json.dumps(clean(make(), 10_000))
    assert storable.TOO_DEEP in text
    assert text.count("[") <= storable.MAX_DEPTH + 1


def test_shared_parts_that_multiply_are_too_large_at_once() -> None:
    value: Any = ["x"]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(TooLarge):
        clean(value, storable.MAX_RESULT_BYTES)


def test_an_error_keeps_the_details_that_fit_and_names_the_others() -> None:
    error = clean_error("c" * 300, "m\0" * 9000, {"small": 1, "large": "x" * 70_000, "last\ud800": [2]})
    assert (error["small"], error["leftOut"], error["last?"]) == (1, ["large"], [2])
    assert (len(error["code"]), len(error["message"])) == (100, 4000)
    assert size_of(error) <= storable.MAX_ERROR_BYTES


def test_details_never_stand_in_for_the_code() -> None:
    assert clean_error("", None, {"code": "x", "message": "y"}) == {"code": "failed", "message": "None"}


def test_progress_that_is_too_large_says_so() -> None:
    assert "16 KiB" in clean_progress({"log": "x" * 20_000})["note"]


def test_a_text_is_cut_with_a_mark() -> None:
    assert clean_text("abcdef", 4) == "abc…"


@pytest.mark.parametrize("examples", [300, pytest.param(100_000, marks=pytest.mark.soak)])
def test_the_database_takes_whatever_is_left(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(small_values, st.integers(10, 3000))
    def check(value: Any, room: int) -> None:
        try:
            cleaned = clean(value, room)
        except TooLarge:
            return
        assert faults_of(cleaned, room) == []
        assert clean(cleaned, room) == cleaned, "what is clean stays as it is"

    check()
