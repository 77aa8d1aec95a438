"""What a cron line means, minute by minute and without a parser: the model that `sidejob.cron_next` is held against.

A line is made together with the numbers that each of its fields stands for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

MINUTE = timedelta(minutes=1)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True)
class Field:
    """What is written, the numbers that match, and those of which only the last in the month matches: the day
    of the week, or any number at all for a day of the month."""

    text: str
    numbers: frozenset[int]
    last: frozenset[int] = frozenset()

    @property
    def starred(self) -> bool:
        return self.text.startswith("*")


@dataclass(frozen=True)
class Line:
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def text(self) -> str:
        return " ".join(field.text for field in (self.minute, self.hour, self.day, self.month, self.weekday))

    def has_day(self, day: datetime) -> bool:
        in_days = day.day in self.day.numbers or (bool(self.day.last) and (day + timedelta(days=1)).day == 1)
        weekday, last_week = day.isoweekday() % 7, (day + timedelta(days=7)).month != day.month
        in_weekdays = weekday in {n % 7 for n in self.weekday.numbers} or (
            last_week and weekday in {n % 7 for n in self.weekday.last}
        )
        both_restricted = not self.day.starred and not self.weekday.starred
        right_day = in_days or in_weekdays if both_restricted else in_days and in_weekdays
        return right_day and day.month in self.month.numbers

    def has(self, wall: datetime) -> bool:
        return wall.minute in self.minute.numbers and wall.hour in self.hour.numbers and self.has_day(wall)

    def slots(self, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
        """Every instant in (after, until] at which the line fires, in UTC."""
        instant = after.replace(second=0, microsecond=0) + MINUTE
        while instant <= until:
            wall = _wall(instant, zone)
            if self.minute.starred or self.hour.starred:
                if self.has(wall):
                    yield instant
            elif not wall.fold:
                # One minute, or all that the clock has just left out as well.
                passed = (wall - _wall(instant - MINUTE, zone)) // MINUTE
                if any(self.has(wall - n * MINUTE) for n in range(passed)):
                    yield instant
            instant += MINUTE


def _wall(instant: datetime, zone: str) -> datetime:
    return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def fields(
    low: int, high: int, names: tuple[str, ...] = (), *, last: st.SearchStrategy[Field] | None = None
) -> st.SearchStrategy[Field]:
    """One to three items of every kind that may stand in this field."""

    def written(number: int) -> st.SearchStrategy[str]:
        spellings = [str(number)]
        if number - low < len(names):
            spellings += [names[number - low], names[number - low].upper()]
        return st.sampled_from(spellings)

    @st.composite
    def item(draw: st.DrawFn) -> Field:
        first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
        match draw(st.sampled_from(("one", "range", "stepped range", "stepped star"))):
            case "one":
                return Field(draw(written(first)), frozenset({first}))
            case "range":
                return Field(
                    f"{draw(written(first))}-{draw(written(last))}", frozenset(range(first, last + 1))
                )
            case "stepped range":
                step = draw(st.integers(1, high))
                return Field(f"{first}-{last}/{step}", frozenset(range(first, last + 1, step)))
            case _:
                step = draw(st.integers(1, high))
                return Field(f"*/{step}", frozenset(range(low, high + 1, step)))

    def joined(items: list[Field]) -> Field:
        return Field(
            ",".join(item.text for item in items),
            frozenset().union(*(item.numbers for item in items)),
            frozenset().union(*(item.last for item in items)),
        )

    any_item = item() if last is None else item() | item() | last
    return st.lists(any_item, min_size=1, max_size=3).map(joined)


def last_weekday(number: int) -> st.SearchStrategy[Field]:
    spellings = (f"{number}L", f"{WEEKDAYS[number % 7]}l", f"{WEEKDAYS[number % 7].upper()}L")
    return st.sampled_from(spellings).map(lambda text: Field(text, frozenset(), frozenset({number})))


LAST_DAY = st.sampled_from(("L", "l")).map(lambda text: Field(text, frozenset(), frozenset({31})))
LAST_WEEKDAY = st.integers(0, 7).flatmap(last_weekday)


def star(low: int, high: int) -> st.SearchStrategy[Field]:
    return st.just(Field("*", frozenset(range(low, high + 1))))


def number(*among: int) -> st.SearchStrategy[Field]:
    return st.sampled_from(among).map(lambda n: Field(str(n), frozenset({n})))


MINUTES, HOURS, DAYS = fields(0, 59), fields(0, 23), fields(1, 31, last=LAST_DAY)
MONTHS_OF_YEAR, DAYS_OF_WEEK = fields(1, 12, MONTHS), fields(0, 7, WEEKDAYS, last=LAST_WEEKDAY)

# Lines that fire on most days, often in the small hours, when clocks are changed.
FREQUENT = st.builds(
    Line,
    star(0, 59) | number(0, 15, 30, 59) | MINUTES,
    star(0, 23) | number(0, 1, 2, 3, 23) | HOURS,
    star(1, 31) | star(1, 31) | DAYS,
    star(1, 12) | star(1, 12) | MONTHS_OF_YEAR,
    star(0, 7) | star(0, 7) | DAYS_OF_WEEK,
)
# Lines that may not fire for years, or never.
RARE = st.builds(
    Line,
    number(0, 59),
    number(0, 23),
    number(1, 29, 30, 31) | DAYS | star(1, 31),
    number(2, 4, 12) | MONTHS_OF_YEAR,
    star(0, 7) | DAYS_OF_WEEK,
)


def first_day(line: Line, after: datetime, years: int) -> datetime | None:
    """For a line with one hour and one minute, in UTC: its first slot after `after`, day by day."""
    (hour,), (minute,) = line.hour.numbers, line.minute.numbers
    day = after.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
    for _ in range(years * 366):
        slot = day.replace(hour=hour, minute=minute)
        if slot > after and line.has_day(day):
            return slot
        day += timedelta(days=1)
    return None
