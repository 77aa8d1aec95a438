"""Instants as Sidejob writes them: ISO 8601, UTC, microseconds and `Z`; no `+` that a URL could lose."""

import re
from datetime import UTC, datetime

# RFC 3339 with three liberties: seconds may be left out, and so may the offset's colon; a space may stand for
# the `+` of an offset, because that is what an unencoded `+` in a URL becomes. No offset at all means UTC.
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(?:([Zz])|([-+ ])(\d\d):?(\d\d)?)?", re.ASCII
)


def now() -> str:
    """The present instant."""
    return written(datetime.now(UTC))


def written(instant: datetime) -> str:
    """`2026-11-23T18:13:31.078735Z`"""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parsed(text: str) -> datetime:
    """The instant that a text names, in UTC. Raises ValueError where it names none."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("not an ISO 8601 timestamp")
    day, time, _, sign, hours, minutes = match.groups()
    offset = f"{'-' if sign == '-' else '+'}{hours}:{minutes or '00'}" if sign else "+00:00"
    try:
        return datetime.fromisoformat(f"{day}T{time}{offset}").astimezone(UTC)
    except OverflowError as error:
        raise ValueError("outside of the calendar") from error
