"""`sidejob.cron_next`: what a cron line means, in every time zone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.database import cron_model
from tests.database.callers import Caller, connect

# (zone, a day near which its clock is changed)
CLOCK_CHANGES = [
    ("UTC", "2026-03-29"),
    ("Asia/Kathmandu", "2026-03-29"),  # +05:45, never changed
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-10-04"),  # by half an hour
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Antarctica/Troll", "2026-03-29"),  # by two hours
    ("Antarctica/Troll", "2026-10-25"),
    ("America/Santiago", "2024-09-08"),  # midnight is left out
    ("America/Santiago", "2024-04-07"),  # and comes twice
    ("America/St_Johns", "2010-11-07"),  # at one minute past midnight
    ("Asia/Pyongyang", "2018-05-05"),  # for good
    ("America/Caracas", "2016-05-01"),
    ("Pacific/Apia", "2011-12-30"),  # a whole day is left out
]


@pytest.fixture(scope="module")
def database() -> Iterator[Caller]:
    with connect() as session:
        session.execute("set timezone = 'Pacific/Apia'")  # which must make no difference
        yield Caller(session)


def cron_next(database: Caller, line: str, zone: str, after: datetime) -> datetime | None:
    (row,) = database.rows("select sidejob.cron_next(%s, %s, %s) as slot", line, zone, after)
    slot: datetime | None = row["slot"]
    return slot and slot.astimezone(UTC)


def following(
    database: Caller, line: str, zone: str, after: datetime, until: datetime, most: int
) -> list[datetime]:
    """The slots in (after, until], each asked for from the one before."""
    found = database.rows(
        "with recursive slots (slot) as (select sidejob.cron_next(%s, %s, %s) union all"
        " select sidejob.cron_next(%s, %s, slot) from slots where slot <= %s) select slot from slots where slot <= %s limit %s",
        *(line, zone, after, line, zone, until, until, most),
    )
    return [row["slot"].astimezone(UTC) for row in found]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@settings(max_examples=100, deadline=None)
@given(
    line=cron_model.FREQUENT,
    change=st.sampled_from(CLOCK_CHANGES),
    seconds=st.integers(-36 * 3600, 36 * 3600),
)
def test_around_a_change_of_the_clock_it_fires_when_the_model_does(
    database: Caller, line: cron_model.Line, change: tuple[str, str], seconds: int
) -> None:
    zone, day = change
    after = utc(day) + timedelta(seconds=seconds)
    until = after + timedelta(days=2)
    expected = list(islice(line.slots(zone, after, until), 60))
    assert following(database, line.text, zone, after, until, 60) == expected


@settings(max_examples=100, deadline=None)
@given(
    line=cron_model.RARE,
    after=st.datetimes(datetime(2020, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
)
@example(
    line=cron_model.Line(
        cron_model.Field("0", frozenset({0})),
        cron_model.Field("0", frozenset({0})),
        cron_model.Field("29", frozenset({29})),
        cron_model.Field("2", frozenset({2})),
        cron_model.Field("*/7", frozenset({0, 7})),  # leap days that are Sundays
    ),
    after=datetime(2088, 3, 1, tzinfo=UTC),
)
def test_years_ahead_it_fires_when_the_model_does(
    database: Caller, line: cron_model.Line, after: datetime
) -> None:
    assert cron_next(database, line.text, "UTC", after) == cron_model.first_day(line, after, 45)


@pytest.mark.parametrize(
    ("line", "after", "expected"),
    [
        ("@hourly", "2026-01-01 10:30", "2026-01-01 11:00"),
        ("@daily", "2026-01-01 10:30", "2026-01-02 00:00"),
        ("@weekly", "2026-01-01 10:30", "2026-01-04 00:00"),
        ("@monthly", "2026-01-01 10:30", "2026-02-01 00:00"),
        ("@Yearly", "2026-01-01 10:30", "2027-01-01 00:00"),
        ("@midnight", "2026-01-01 10:30", "2026-01-02 00:00"),
        ("@annually", "2026-01-01 10:30", "2027-01-01 00:00"),
        ("0 0 L * *", "2026-01-31", "2026-02-28"),
        ("0 0 l 2 *", "2027-02-28 00:00", "2028-02-29"),
        ("0 0 15,L * *", "2026-04-15", "2026-04-30"),
        ("0 0 * * 5L", "2026-01-01", "2026-01-30"),  # the last Friday of January
        ("0 0 * * sunL", "2026-02-22", "2026-03-29"),
        ("0 0 * * mon,friL", "2026-01-19", "2026-01-26"),  # each Monday, and the last Friday
        ("0 0 * * 7l", "2026-05-01", "2026-05-31"),
        ("0 0 L * 5L", "2026-01-01", "2026-01-30"),  # either will do
        ("0 0 L * 5L", "2026-01-30", "2026-01-31"),
        ("  0  12\t*  *  * \n", "2026-01-01 10:30", "2026-01-01 12:00"),
        ("0 12 * * *", "2026-01-01 12:00", "2026-01-02 12:00"),  # later than, never the same
        ("0 12 * * *", "2026-01-01 11:59:59.999999", "2026-01-01 12:00"),
        ("0 0 * * 7", "2026-01-01", "2026-01-04"),
        ("0 0 * * fri-sun", "2026-01-03", "2026-01-04"),
        ("0 0 * * Sun-Tue", "2026-01-04", "2026-01-05"),
        ("0 0 13 * fri", "2026-01-01", "2026-01-02"),  # the 13th, and every Friday
        ("0 0 13 * fri", "2026-01-09", "2026-01-13"),
        ("0 0 */2 * mon", "2026-01-01", "2026-01-05"),  # an odd day that is a Monday
        ("0 0 29 2 *", "2096-02-29", "2104-02-29"),  # 2100 is no leap year
        ("0 0 30 2 *", "2026-01-01", None),
        ("0 0 31 4,6,9,11 *", "2026-01-01", None),
    ],
)
def test_what_a_line_means(database: Caller, line: str, after: str, expected: str | None) -> None:
    assert cron_next(database, line, "UTC", utc(after)) == (expected and utc(expected))


@pytest.mark.parametrize(
    ("line", "day", "expected"),
    [
        ("30 2 * * *", "2026-03-29", ["01:00"]),  # 02:30 is left out: at 03:00, the end of the gap
        ("0,30 2 * * *", "2026-03-29", ["01:00"]),  # once, however many were left out
        ("30 2,3 * * *", "2026-03-29", ["01:00", "01:30"]),
        ("*/30 2 * * *", "2026-03-29", []),  # real time knows no such hour
        ("30 2 * * *", "2026-10-25", ["00:30"]),  # 02:30 comes twice: the first
        ("*/30 2 * * *", "2026-10-25", ["00:00", "00:30", "01:00", "01:30"]),
        ("30 * * * *", "2026-10-25", ["00:30", "01:30", "02:30"]),
    ],
)
def test_when_the_clock_is_changed_in_berlin(
    database: Caller, line: str, day: str, expected: list[str]
) -> None:
    after, until = utc(f"{day} 00:00") - timedelta(seconds=1), utc(f"{day} 02:59")
    slots = following(database, line, "Europe/Berlin", after, until, 10)
    assert [f"{slot:%H:%M}" for slot in slots] == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "neither five fields nor a nickname"),
        (None, "neither five fields nor a nickname"),
        ("* * * *", "neither five fields nor a nickname"),
        ("0 * * * * *", "neither five fields nor a nickname"),
        ("@reboot", "neither five fields nor a nickname"),
        ("60 * * * *", 'minute: "60" is not within 0 to 59'),
        ("0 24 * * *", 'hour: "24" is not within 0 to 23'),
        ("0 0 0 * *", 'day of month: "0" is not within 1 to 31'),
        ("0 0 * 13 *", 'month: "13" is not within 1 to 12'),
        ("0 0 * january *", 'month: "january" is not within 1 to 12'),
        ("0 0 * * 8", 'day of week: "8" is not within 0 to 7'),
        ("0 0 * * jan", 'day of week: "jan" is not within 0 to 7'),
        ("0 mon * * *", 'hour: "mon" is not within 0 to 23'),
        ("0 22-2 * * *", 'hour: "22-2" runs backwards'),
        ("0 0 * * fri-mon", 'day of week: "fri-mon" runs backwards'),
        ("*/0 * * * *", 'minute: the step of "*/0" is not within 1 to 59'),
        ("*/90 * * * *", 'minute: the step of "*/90" is not within 1 to 59'),
        ("5/10 * * * *", 'minute: "5/10" is a step without a range'),
        ("0 0 ? * *", 'day of month: "?" cannot be read'),
        ("0 0 L-3 * *", 'day of month: "l-3" cannot be read'),
        ("0 0 5L * *", 'day of month: "5l" cannot be read'),
        ("0 0 LW * *", 'day of month: "lw" is not within 1 to 31'),
        ("0 0 L/2 * *", 'day of month: "l/2" cannot be read'),
        ("0 0 * * L", 'day of week: "l" cannot be read'),
        ("0 0 * * 8L", 'day of week: "8l" cannot be read'),
        ("0 L * * *", 'hour: "l" is not within 0 to 23'),
        ("0 0 * * mon#1", 'day of week: "mon#1" cannot be read'),
        ("1,,2 * * * *", 'minute: "" cannot be read'),
        ("-1 * * * *", 'minute: "-1" cannot be read'),
        ("99999999999999999999 * * * *", "cannot be read"),
        ("0," * 100 + "0 * * * *", "longer than 200 characters"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_the_field_and_a_hint(
    database: Caller, line: str | None, says: str
) -> None:
    with pytest.raises(psycopg.Error) as error:
        database.rows("select sidejob.cron_next(%s, 'UTC', now())", line)
    diagnosis = error.value.diag
    assert (error.value.sqlstate, bool(diagnosis.message_hint)) == ("SJ100", True)
    assert (diagnosis.message_primary or "").startswith("cron: ")
    assert says in (diagnosis.message_primary or "")


@pytest.mark.parametrize(
    "zone",
    [
        *("", None, "Europe/Berlim", "Europe", "Europe/", "../UTC"),
        "CEST",  # an abbreviation: no daylight saving
        *("BERLIN+5", "Europe/Berlim3", "Etc/GMT+99"),  # AT TIME ZONE takes them as POSIX does
    ],
)
def test_a_zone_that_is_not_in_the_database_is_refused(database: Caller, zone: str | None) -> None:
    with pytest.raises(psycopg.Error, match=r"^timezone: ") as error:
        database.rows("select sidejob.cron_next('@daily', %s, now())", zone)
    assert error.value.sqlstate == "SJ100"


def test_every_zone_that_postgres_lists_is_taken(database: Caller) -> None:
    """Of names without a city, for which the whole list is read again each time, a few stand for all."""
    (row,) = database.rows(
        "select count(*) as zones, count(sidejob.cron_next('@daily', name, now())) as taken from pg_timezone_names"
        " where name !~ '^(posix|right)/' and (name ~ '^[A-Za-z]+/[A-Za-z/_-]+$' or name in ('Etc/GMT+5', 'Cuba', 'W-SU', 'EST5EDT'))"
    )
    assert row["zones"] == row["taken"] > 300
    assert cron_next(database, "@daily", "europe/berlin", utc("2026-01-01")) == utc("2026-01-01 23:00")


def test_an_instant_without_end_or_none_at_all_has_no_next(database: Caller) -> None:
    for after in ("infinity", "-infinity", None):
        (row,) = database.rows(
            "select sidejob.cron_next('@daily', 'UTC', %s::timestamptz) is null as none", after
        )
        assert row["none"]


def test_a_line_that_never_fires_is_known_at_once(database: Caller) -> None:
    """Forty-five years are 24 million minutes: walking them would take minutes of its own."""
    with database.session.transaction():
        database.run("set local statement_timeout = '2s'")
        database.rows(
            "select sidejob.cron_next('* * 30 2 *', 'Europe/Berlin', now()) from generate_series(1, 20)"
        )
