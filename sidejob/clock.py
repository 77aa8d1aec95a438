"""Instants as Sidejob writes them: ISO 8601, UTC, microseconds and `Z`; no `+` that a URL could lose."""

import re
from datetime import UTC, datetime

# RFC 3339 with three liberties: seconds may be left out, and so may the offset's colon; a space may stand for
# the `+` of an offset, because that is what an unencoded `+` in a URL becomes. No offset at all means UTC.
# Days that no calendar has do not match; the years are 1000 to 8999.
_YEAR = "[1-8][0-9]"
_LEAP = "(?:[1-8][0-9](?:0[48]|[2468][048]|[13579][26])|(?:1[26]|[2468][048]|[357][26])00)"
_DAY = (
    f"{_YEAR}[0-9][0-9]-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,9})?)?"
_OFFSET = "(?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"
INSTANT = f"(?:{_DAY})[Tt ]{_TIME}(?:[Zz]|[-+ ]{_OFFSET})?"  # as JSON Schema writes patterns, too
_INSTANT = f"({_DAY})[Tt ]({_TIME})(?:[Zz]|([-+ ])([0-9]{{2}}):?([0-9]{{2}})?)?"


def now() -> str:
    """The present instant."""
    return written(datetime.now(UTC))


def written(instant: datetime) -> str:
    """`2026-11-23T18:13:31.078735Z`"""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parsed(text: str) -> datetime:
    """The instant that a text names, in UTC. Raises ValueError where it names none."""
    match = re.fullmatch(_INSTANT, text, re.ASCII)
    if match is None:
        raise ValueError("not an ISO 8601 timestamp")
    day, time, sign, hours, minutes = match.groups()
    offset = f"{'-' if sign == '-' else '+'}{hours}:{minutes or '00'}" if sign else "+00:00"
    return datetime.fromisoformat(f"{day}T{time}{offset}").astimezone(UTC)
