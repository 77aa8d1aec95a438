"""Values that a page, a design or a bug may put into what a handler says."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


class Colour(StrEnum):
    RED = "red"


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def loop() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


# By name, since some of them cannot even be shown.
ODD: Mapping[str, Callable[[], Any]] = {
    "NUL": lambda: "a\0b",
    "half an emoji": lambda: "\ud800",
    "another half": lambda: "a\udc00b",
    "an emoji": lambda: "😀",
    "a control character": lambda: "\x1f\r\n",
    "NaN": lambda: math.nan,
    "infinity": lambda: -math.inf,
    "a large float": lambda: 1.7976931348623157e308,
    "a small float": lambda: 5e-324,
    "401 digits": lambda: 10**400,
    "5,000 digits": lambda: -(10**5000),
    "a decimal": lambda: Decimal("1e400"),
    "bytes": lambda: b"\xff",
    "a path": lambda: Path("/x"),
    "an enumeration": lambda: Colour.RED,
    "a set": lambda: {1, 2},
    "rude": Rude,
    "an object": object,
    "a complex number": lambda: 1j,
    "a time": lambda: datetime(2026, 1, 1, tzinfo=UTC),
    "deep": lambda: deep(100),
    "very deep": lambda: deep(3000),
    "a loop": loop,
    "another mapping": lambda: OrderedDict(a=(1, "\0")),
    "long": lambda: "x" * 20_000,
    "too long for an error": lambda: "😀" * 20_000,
    "too long for a result": lambda: "x" * 1_100_000,
    "nearly too long": lambda: ["x" * 1_020_000],
}
odd = st.sampled_from(sorted(ODD)).map(lambda name: ODD[name]())
small_odd = st.sampled_from([name for name in sorted(ODD) if "long" not in name]).map(
    lambda name: ODD[name]()
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
names = (
    st.text() | st.integers() | st.none() | st.sampled_from(["\0", "\ud800", "code", "message", "timings"])
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=10,
    )


values = nested(scalars | odd)
small_values = nested(scalars | small_odd)
