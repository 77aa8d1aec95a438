"""Filters of postgres_changes: `column=op.value`, several with commas, compared in the column's type."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL

from local.realtime.authorization import Pool
from local.realtime.catalog import ColumnType

_OPERATORS = {
    "eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=",
    "like": "like", "ilike": "ilike", "match": "~", "imatch": "~*", "isdistinct": "is distinct from",
}  # fmt: skip
_IS = ("null", "true", "false", "unknown")
_MOST_VALUES = 100  # of `in`

# Types whose text says all: two values are equal when their texts are.
_PLAIN = {16: "bool", 20: "int8", 21: "int2", 23: "int4", 25: "text", 1043: "varchar", 2950: "uuid"}


class BadFilter(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Condition:
    column: str
    operator: str
    negated: bool
    value: str
    values: tuple[str, ...] = ()  # of `in`

    def told(self) -> str:
        """As upstream's messages show it."""
        return f'{{"{self.column}", "{"not." if self.negated else ""}{self.operator}", "{self.value}"}}'


@dataclass(frozen=True, slots=True, eq=False)
class Test:
    """A condition on a column of one type. Without a quick way, Postgres compares."""

    sql: str  # an expression with a %s for the row's value
    constants: tuple[Any, ...]  # for the %s after it
    quick: Callable[[str], bool] | None = None  # never asked about NULL
    null: bool | None = None  # the answer for NULL, where it is known


def parse(text: str) -> tuple[Condition, ...]:
    """Raises BadFilter with upstream's message."""
    if not text.strip():
        return ()
    return tuple(_condition(part) for part in _split(text))


def _condition(text: str) -> Condition:
    column, equals, rest = text.strip().partition("=")
    if not equals or not column:
        raise BadFilter(f'Error parsing `filter` params: ["{text}"]')
    negated = rest.startswith("not.")
    operator, dot, value = rest.removeprefix("not.").partition(".")
    if not dot or (operator not in _OPERATORS and operator not in ("in", "is")):
        raise BadFilter(f'Error parsing `filter` params: ["{operator}", "{value}"]')
    if operator == "in":
        if not (value.startswith("(") and value.endswith(")")):
            raise BadFilter(f"`in` filter value must be wrapped by parentheses: {value}")
        values = tuple(_unquoted(part) for part in _split(value[1:-1]))
        if len(values) > _MOST_VALUES:
            raise BadFilter(f"`in` filter has more than {_MOST_VALUES} values")
        return Condition(column, operator, negated, value, values)
    if operator == "is" and value.lower() not in _IS:
        raise BadFilter(f'Error parsing `filter` params: ["{operator}", "{value}"]')
    return Condition(column, operator, negated, _unquoted(value))


def _split(text: str) -> list[str]:
    """At commas that stand outside parentheses and double quotes; a backslash hides what follows."""
    parts, start, depth, quoted, escaped = [], 0, 0, False, False
    for at, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif not quoted:
            depth += (character == "(") - (character == ")")
            if character == "," and depth <= 0:
                parts.append(text[start:at])
                start = at + 1
    return [*parts, text[start:]]


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


class Tests:
    """Makes tests of conditions, once for each type and condition."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._made: dict[tuple[str, Condition], Test] = {}

    async def make(self, condition: Condition, kind: ColumnType) -> Test:
        """Raises psycopg.Error for a value or an operator that the type does not have."""
        name = (kind.cast, condition)
        if name not in self._made:
            if len(self._made) > 10_000:
                self._made.clear()
            self._made[name] = await self._new(condition, kind)
        return self._made[name]

    async def _new(self, condition: Condition, kind: ColumnType) -> Test:
        no = "not " if condition.negated else ""
        left = f"(%s::text::{_escaped(kind.cast)})"
        if condition.operator == "is":
            word = condition.value.lower()
            holds = (word in ("null", "unknown")) is not condition.negated
            told = {"true": "t", "false": "f"}.get(word)  # as the stream says it; null is no text
            quick = lambda value: (value == told) is not condition.negated  # noqa: E731
            test = Test(f"{no}({left} is {word})", (), quick, holds)
        elif condition.operator == "in":
            sql = f"{no}({left} = any(%s::text[]::{_escaped(kind.cast)}[]))"
            test = Test(sql, ([*condition.values],), None, False)
        else:
            right = f"%s::text{'' if _on_text(condition) else '::' + _escaped(kind.cast)}"
            sql = f"{no}({left} {_OPERATORS[condition.operator]} {right})"
            null = (not condition.negated) if condition.operator == "isdistinct" else False
            test = Test(sql, (condition.value,), None, null)
        # Tried once, so that a mistake shows now; a regular expression is only compiled when there is a text.
        await ask(self._pool, [(test, "" if _on_text(condition) else None)])
        if kind.id in _PLAIN and condition.operator in ("eq", "neq", "in", "isdistinct"):
            return Test(test.sql, test.constants, await self._comparison(condition, kind), test.null)
        return test

    async def _comparison(self, condition: Condition, kind: ColumnType) -> Callable[[str], bool]:
        given = [*condition.values] if condition.operator == "in" else [condition.value]
        async with self._pool.connection() as connection:
            query = f"select array(select v::{kind.cast}::text from unnest(%s::text[]) v)"  # noqa: S608  a type's name
            row = await (await connection.execute(query.encode(), (given,))).fetchone()
        constants = frozenset(row[0] if row else ())
        within = (condition.operator in ("eq", "in")) is not condition.negated
        if kind.id == 16:  # the stream says t and f
            constants = frozenset(constant[0] for constant in constants)
        return lambda value: (value in constants) is within


async def ask(pool: Pool, questions: Sequence[tuple[Test, str | None]]) -> list[bool]:
    """Postgres's answers; NULL is no."""
    if not questions:
        return []
    query = SQL("select ") + SQL(", ").join(SQL(test.sql) for test, _ in questions)
    words = [word for test, value in questions for word in (value, *test.constants)]
    async with pool.connection() as connection:
        row = await (await connection.execute(query, words)).fetchone()
    return [bool(answer) for answer in row or ()]


def _on_text(condition: Condition) -> bool:
    return condition.operator in ("like", "ilike", "match", "imatch")


def _escaped(cast: str) -> str:
    return cast.replace("%", "%%")
