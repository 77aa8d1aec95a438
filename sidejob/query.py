"""Values of a URL's query, read by small typed functions: what only reads needs no pydantic at its start."""

import re
from collections.abc import Iterable, Sequence
from uuid import UUID

from sidejob.cursor import Cursor
from sidejob.cursor import read as read_cursor
from sidejob.errors import Refused

JOB_TYPE = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # of an executor, an agent, a worker
STATES = ("queued", "assigned", "running", "succeeded", "failed", "cancelled")

# Supabase's own clients add it when a region is chosen.
_NOT_OURS = frozenset({"forceFunctionRegion"})
_UUID = r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}"


def refusal(name: str, sentence: str) -> Refused:
    """400 that names the parameter."""
    return Refused("invalid_parameter", f"`{name}` {sentence}", details={"field": name})


class Query:
    """The query of one request. Every method raises Refused (400) and names the parameter."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        self._repeated: list[str] = []
        for name, value in pairs:
            if name in _NOT_OURS:
                continue
            if name in self._values:
                self._repeated.append(name)
            self._values[name] = value

    def only(self, *names: str) -> None:
        """Refuse parameters that are not named here, or that came twice."""
        for name in self._values:
            if name not in names:
                known = f"Known: {', '.join(names)}." if names else "There are none here."
                raise refusal(name[:100], f"is not a parameter. {known}")
        for name in self._repeated:
            raise refusal(name, "may be given once only.")

    def text(self, name: str) -> str | None:
        """The value as it came."""
        return self._values.get(name)

    def matching(self, name: str, pattern: str) -> str | None:
        """A value that the pattern matches whole."""
        value = self._values.get(name)
        if value is not None and not re.fullmatch(pattern, value, re.ASCII):
            raise refusal(name, f"must match {pattern}")
        return value

    def one_of(self, name: str, choices: Sequence[str]) -> str | None:
        """One of a few words."""
        value = self._values.get(name)
        if value is not None and value not in choices:
            raise refusal(name, f"must be one of: {', '.join(choices)}.")
        return value

    def number(self, name: str, default: int, low: int, high: int, *, clamped: bool = False) -> int:
        """A whole number from low to high. clamped: one outside is moved to the nearer end."""
        value = self._values.get(name)
        if value is None:
            return default
        wanted = f"must be a whole number from {low} to {high}."
        if not re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
            raise refusal(name, wanted)
        number = int(value)
        if clamped:
            return min(max(number, low), high)
        if not low <= number <= high:
            raise refusal(name, wanted)
        return number

    def uuid(self, name: str) -> str | None:
        """A UUID, in lower case with hyphens."""
        value = self._values.get(name)
        if value is None:
            return None
        if not re.fullmatch(_UUID, value):
            raise refusal(name, "must be a UUID.")
        return str(UUID(value))

    def needed_uuid(self, name: str) -> str:
        """As `uuid`, but it has to be there."""
        value = self.uuid(name)
        if value is None:
            raise refusal(name, "is missing.")
        return value

    def cursor(self, name: str = "cursor", *, numbered: bool = False) -> Cursor | None:
        """A cursor of `sidejob.cursor`."""
        value = self._values.get(name)
        return None if value is None else read_cursor(value, numbered=numbered, name=name)
