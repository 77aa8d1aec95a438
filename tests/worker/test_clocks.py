"""What others are shown, and how long a server asks to be left alone, does not depend on this machine's clock."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from worker.clock import DatabaseClock
from worker.figma.answers import meaning_of_429
from worker.figma.faults import Fault
from worker.retry import retry_after

FAR_OFF = datetime(2011, 5, 6, 7, 8, 9, tzinfo=UTC)  # a server's clock


def test_a_date_counts_from_the_answer_s_own_date() -> None:
    later = format_datetime(FAR_OFF + timedelta(seconds=90), usegmt=True)
    assert retry_after(later, format_datetime(FAR_OFF, usegmt=True)) == 90
    assert retry_after(later) == 0, "without one it is past by our own"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 1.5 ", 1.5),
        ("0", 0),
        ("-5", None),
        ("", None),
        (None, None),
        ("soon", None),
        ("9" * 5000, None),
        ("²", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
        ("Thu, 32 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_only_what_can_be_read_is_waited_for(text: str | None, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_the_end_of_a_quota_is_by_figma_s_clock() -> None:
    headers = {"retry-after": "396749", "date": format_datetime(FAR_OFF, usegmt=True)}
    fault = meaning_of_429(headers, str)
    assert isinstance(fault, Fault)
    assert fault.details["until"] == (FAR_OFF + timedelta(seconds=396_749)).isoformat(timespec="seconds")


def test_the_database_s_time_goes_on_by_itself() -> None:
    clock = DatabaseClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=5)
    clock.hear(FAR_OFF)
    first = clock.now()
    assert timedelta() <= first - FAR_OFF < timedelta(minutes=5)
    assert clock.now() >= first
    clock.hear(None)
    assert clock.now() >= first
