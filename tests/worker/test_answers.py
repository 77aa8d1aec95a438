"""What the project answers is read entry by entry, whatever stands in it; nothing else is ever raised."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker import answers, claims
from worker.answers import MAX_DEPTH, MAX_DIGITS, Unreadable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
PIECES = st.lists(st.sampled_from([*'[]{}",:\\ 1-.eE', "null", '"a"', "\\u0000", '"\\"', "\n"]), max_size=40)
EXAMPLES = [300, pytest.param(100_000, marks=pytest.mark.soak)]


def row(**changes: Any) -> str:
    """A job as `claim_jobs` answers it. A text among the changes that begins with `raw:` is put in as it is."""
    plain = {
        "id": "a", "workspace_id": "w", "type": "test.quick", "payload": {"n": 1}, "checkpoint": None,
        "attempts": 1, "attempt": 1, "released": 0, "max_attempts": 3, "lease_token": "t", "trace_id": None,
        "updated_at": "2026-03-07T23:59:00+00:00", "queue_ms": 1500,
    } | changes  # fmt: skip
    return "{" + ", ".join(f"{json.dumps(name)}: {_text(value)}" for name, value in plain.items()) + "}"


def _text(value: Any) -> str:
    return value[4:] if isinstance(value, str) and value.startswith("raw:") else json.dumps(value)


def nested(depth: int) -> str:
    return "raw:" + '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("examples", EXAMPLES)
def test_what_json_can_say_is_taken_apart_into_its_entries(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(
        st.lists(JSON, max_size=5) | st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from([None, 1])
    )
    def check(value: Any, indent: int | None) -> None:
        text = json.dumps(value, ensure_ascii=bool(indent), indent=indent)
        if isinstance(value, dict):
            assert {name: answers.decode(text) for name, text in answers.members(text).items()} == value
        else:
            assert [answers.decode(entry) for _, entry in answers.split(text)] == value

    check()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_text_raises_anything_else(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(st.text() | PIECES.map("".join) | PIECES.map(lambda parts: "[" + row() + "," + "".join(parts)))
    def check(text: str) -> None:
        for read in (answers.split, answers.members, answers.decode, claims.read):
            with suppress(Unreadable):
                read(text)

    check()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (nested(MAX_DEPTH + 1), "payload: is nested 501 deep; 500 can be read"),
        (nested(200_000), "payload: is nested 200000 deep; 500 can be read"),
        ('raw:{"n": ' + "9" * 5000 + "}", "payload: has a number of 5000 digits; 4000 can be read"),
        ('raw:{"n": -' + "9" * 200_000 + "}", "payload: has a number of 200001 digits; 4000 can be read"),
        ("raw:{'n': 1}", "payload: is no JSON"),
        ('raw:{"n": NaN}', "payload: is no JSON"),
        ([1], "payload: is no object"),
        ("text", "payload: is no object"),
    ],
    ids=["deep", "very deep", "digits", "many digits", "quotes", "NaN", "a list", "a text"],
)
def test_a_payload_that_cannot_be_read_spoils_no_other_job(payload: Any, reason: str) -> None:
    read = claims.read(f"[{row(id='before')}, {row(id='bad', payload=payload)}, {row(id='after')}]")
    assert [(claim.job.id, claim.fault) for claim in read] == [
        ("before", None),
        ("bad", reason),
        ("after", None),
    ]
    assert read[1].fence == {"job_id": "bad", "attempt": 1, "lease_token": "t"}


def test_what_can_be_read_is_read() -> None:
    deep, wide = nested(MAX_DEPTH), 'raw:{"n": ' + "9" * MAX_DIGITS + "}"
    read = claims.read(f"[{row(payload=deep)}, {row(payload=wide)}, {row(payload=None)}]")
    assert [claim.fault for claim in read] == [None, None, None]
    assert read[2].job.payload == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": None}, "type: is no text"),
        ({"type": 7}, "type: is no text"),
        ({"workspace_id": ["w"]}, "workspace_id: is no text"),
        ({"attempts": "1"}, "attempts: is no whole number"),
        ({"max_attempts": 2.5}, "max_attempts: is no whole number"),
        ({"checkpoint": nested(600)}, "checkpoint: is nested 600 deep; 500 can be read"),
    ],
)
def test_a_job_in_an_odd_shape_names_the_field(change: dict[str, Any], reason: str) -> None:
    odd, other = claims.read(f"[{row(**change)}, {row(id='other')}]")
    assert (odd.fault, other.fault) == (reason, None)


@pytest.mark.parametrize("change", [{"id": None}, {"lease_token": 7}, {"attempt": None}, {"attempt": True}])
def test_a_job_that_does_not_say_which_it_is_is_left_to_its_lease(
    change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (only,) = claims.read(f"[{row(**change)}, 7, {row(id='other')}, {{]")
    assert (only.job.id, only.fault) == ("other", None)
    assert "3 claimed jobs do not say which they are" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "null", "<html>", "{}", row(), "[1]", "[{}]", '["a"', "[", '{"message": "ok"}']
)
def test_what_is_no_answer_of_a_claim_is_not_taken_for_an_empty_queue(text: str) -> None:
    with pytest.raises(Unreadable):
        claims.read(text)


def test_an_empty_queue_is_no_job() -> None:
    assert claims.read(" [ ] ") == []


def test_times_are_the_database_s() -> None:
    (claim,) = claims.read(f"[{row()}]")
    assert f"{claim.job.claimed_at:%Y/%m/%d}" == "2026/03/07"
    assert (claim.job.claimed_at - claim.job.due_at).total_seconds() == 1.5
    for queue_ms in (None, -5, "soon"):
        (claim,) = claims.read(f"[{row(queue_ms=queue_ms, updated_at='odd')}]")
        assert (claim.job.due_at, claim.fault) == (claim.job.claimed_at, None)


@pytest.mark.parametrize(
    ("counts", "last"), [((3, 0, 3), True), ((3, 1, 3), False), ((4, 1, 3), True), ((1, 0, 3), False)]
)
def test_the_last_attempt_is_the_one_whose_failure_is_final(counts: tuple[int, int, int], last: bool) -> None:
    attempts, released, most = counts
    (claim,) = claims.read(f"[{row(attempts=attempts, released=released, max_attempts=most)}]")
    assert claim.job.last_attempt is last
