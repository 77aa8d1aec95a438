"""Bindings: the entries of a join's `postgres_changes`."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from local.realtime.filters import BadFilter, Condition, parse


@dataclass(frozen=True, eq=False)
class Binding:
    """One entry of a join's `postgres_changes`."""

    id: int
    event: str  # INSERT, UPDATE, DELETE or *
    schema: str | None  # None: any
    table: str | None  # None: any
    conditions: tuple[Condition, ...]
    select: tuple[str, ...] | None
    told: dict[str, Any]  # what the client sent, and the id: the reply
    error: str | None = None  # why it can never match

    def described(self) -> str:
        """As upstream's messages show it."""
        filters = ", ".join(condition.told() for condition in self.conditions)
        select = f"[{', '.join(self.select)}]" if self.select else "nil"
        return (
            f"[event: {self.event}, schema: {self.schema or '*'}, table: {self.table or '*'},"
            f" filters: [{filters}], select: {select}]"
        )


def bind(entries: Iterable[dict[str, Any]]) -> list[Binding]:
    """The bindings of a join, in the order in which they came; each with an id of its own in the channel."""
    bindings: list[Binding] = []
    for entry in entries:
        number = 1 + zlib.crc32(json.dumps(entry, sort_keys=True).encode()) % (2**27 - 1)
        while any(number == other.id for other in bindings):
            number += 1
        schema, table, select = entry.get("schema"), entry.get("table"), entry.get("select")
        conditions: tuple[Condition, ...] = ()
        error = None
        try:
            conditions = parse(entry.get("filter") or "")
        except (BadFilter, AttributeError) as problem:
            error = str(problem)
        if schema is None and table is None:
            hint = "No subscription params provided. Please provide at least a `schema` or `table`"
            error = f"{hint} to subscribe to: {entry}"
        bindings.append(
            Binding(
                number,
                str(entry.get("event") or "*").upper(),
                None if schema == "*" else str(schema or "public"),
                None if table in (None, "*") else str(table),
                conditions,
                tuple(map(str, select)) if isinstance(select, list) and select else None,
                {**entry, "id": number},
                error,
            )
        )
    return bindings
