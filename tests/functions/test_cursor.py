"""Cursors: what is written can be read, survives a careless URL, and garbage is refused by name."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qs
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidejob import cursor
from sidejob.cursor import Cursor
from sidejob.errors import Refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTANTS = st.integers(0, 32_000_000_000_000_000).map(
    lambda microseconds: EPOCH + timedelta(microseconds=microseconds)
)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
KEY = "0f0e0d0c-0b0a-4908-8706-050403020100"
AT = datetime(2026, 11, 23, 18, 13, 31, 78735, UTC)


@given(INSTANTS, st.uuids())
def test_what_is_written_is_read(instant: datetime, key: UUID) -> None:
    assert cursor.read(str(Cursor(instant, str(key)))) == Cursor(instant, str(key))


@given(INSTANTS, st.integers(0, 10**15 - 1))
def test_numbered_keys_too(instant: datetime, key: int) -> None:
    assert cursor.read(str(Cursor(instant, str(key))), numbered=True) == Cursor(instant, str(key))


@given(INSTANTS, st.uuids())
def test_a_cursor_pasted_into_a_url_without_encoding_arrives_whole(instant: datetime, key: UUID) -> None:
    text = str(Cursor(instant, str(key)))
    assert parse_qs(f"limit=5&cursor={text}")["cursor"] == [text]
    assert "+" not in text


@given(INSTANTS, OFFSETS)
def test_any_offset_names_the_same_instant_even_when_its_plus_became_a_space(
    instant: datetime, offset: timezone
) -> None:
    text = instant.astimezone(offset).isoformat()
    assert cursor.read(text) == Cursor(instant, None)
    assert cursor.read(parse_qs(f"cursor={text}")["cursor"][0]) == Cursor(instant, None)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        assert cursor.read(text).created_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-23T18:13:31.078735Z", AT),
        ("2026-11-23T18:13:31.078735+00:00", AT),
        ("2026-11-23T18:13:31.078735 00:00", AT),
        ("2026-11-23T20:13:31.078735+02:00", AT),
        ("2026-11-23T18:13:31Z", AT.replace(microsecond=0)),
        ("2026-11-23T18:13:31.07Z", AT.replace(microsecond=70000)),
        ("2026-11-23T18:13:31", AT.replace(microsecond=0)),
        ("2026-11-23 18:13:31.078735+00", AT),
    ],
)
def test_bare_timestamps_are_cursors(text: str, instant: datetime) -> None:
    assert cursor.read(text) == Cursor(instant, None)


def test_a_row_of_postgrest_gives_the_cursor_after_it() -> None:
    row: dict[str, object] = {"created_at": "2026-11-23T18:13:31.07+00:00", "id": KEY}
    assert cursor.after(row) == f"2026-11-23T18:13:31.070000Z~{KEY}"


def test_null_is_refused_with_the_reason() -> None:
    with pytest.raises(Refused) as refused:
        cursor.read("null")
    assert "`nextCursor` was null" in refused.value.message
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "garbage", "~", f"~{KEY}", "2026-11-23", "2026-13-40T00:00:00Z", "2026-W47-1T10:00:00Z", "1700000000",
        "2026-11-23T18:13:31Z~", f"2026-11-23T18:13:31Z~{KEY}x", "2026-11-23T18:13:31Z~7",
        "2026-11-23T18:13:31Z\n",
        "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "٢٠٢٦-11-23T18:13:31Z",
        "2026-11-23T18:13:31Z~" + KEY.replace("-", ""),
    ],
)  # fmt: skip
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="`cursor` is not a cursor"):
        cursor.read(text)
