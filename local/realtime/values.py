"""Values of the stream, which are text, as JSON text: what to_jsonb makes of them in the column's type."""

import re
from collections.abc import Iterable

from psycopg.sql import SQL

from local.realtime.authorization import Pool
from local.realtime.catalog import ColumnType
from local.realtime.frames import dumps

_BOOL, _BYTEA = 16, 17
_NUMBERS = {20, 21, 23, 700, 701, 1700}
_JSON = {114, 3802}
_TIMESTAMPS = {1114, 1184}
# "char", name, text, bpchar, varchar, uuid, date, time, timetz, interval, inet, cidr, money, oid
_TEXTS = {18, 19, 25, 1042, 1043, 2950, 1082, 1083, 1266, 1186, 869, 650, 790, 26}
_TIMESTAMP = re.compile(r"(\d+-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)([+-]\d\d(?::\d\d)*)?( BC)?")
_MOST_AT_ONCE = 500


def to_json(kind: ColumnType, text: str | None) -> str | None:
    """None when only Postgres knows."""
    if text is None:
        return "null"
    if kind.id in _TEXTS or kind.kind in ("e", "r", "m"):
        return dumps(text)
    if kind.id in _NUMBERS:
        return "null" if text[-1] in "yN" else text  # Infinity and NaN, which JSON does not have
    if kind.id == _BOOL:
        return "true" if text == "t" else "false"
    if kind.id in _JSON:
        return text
    if kind.id in _TIMESTAMPS and (match := _TIMESTAMP.fullmatch(text)):
        day, clock, zone, era = match.groups(default="")
        return f'"{day}T{clock}{zone + ":00" if len(zone) == 3 else zone}{era}"'
    if kind.id == _BYTEA:
        return dumps(text.removeprefix("\\x"))
    return None


async def ask_json(pool: Pool, values: Iterable[tuple[ColumnType, str]]) -> dict[tuple[ColumnType, str], str]:
    """What Postgres makes of arrays, composites, domains and other types."""
    wanted = list(dict.fromkeys(values))
    known: dict[tuple[ColumnType, str], str] = {}
    for start in range(0, len(wanted), _MOST_AT_ONCE):
        part = wanted[start : start + _MOST_AT_ONCE]
        casts = [f"to_jsonb(%s::text::{kind.exact_cast.replace('%', '%%')})::text" for kind, _ in part]
        query = SQL("select ") + SQL(", ").join(SQL(cast) for cast in casts)
        async with pool.connection() as connection:
            row = await (await connection.execute(query, [text for _, text in part])).fetchone()
        known.update(zip(part, row or (), strict=True))
    return known
