"""Tables as the database knows them: columns with types, the primary key, who may read what."""

from dataclasses import dataclass, field

import psycopg

from local.realtime.authorization import Pool
from local.realtime.wal import Relation

_PUBLISHED = """
select c.oid from pg_publication_tables p
join pg_namespace n on n.nspname = p.schemaname
join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
where p.pubname = 'supabase_realtime' and p.schemaname <> 'realtime'
  and (%(schema)s::text is null or p.schemaname = %(schema)s)
  and (%(table)s::text is null or p.tablename = %(table)s)"""

_COLUMNS = """
select a.attname, a.atttypid, t.typname, format_type(a.atttypid, -1), format_type(a.atttypid, a.atttypmod),
  t.typtype::text, coalesce(array_position(i.indkey::smallint[], a.attnum), -1), c.relrowsecurity
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_type t on t.oid = a.atttypid
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where c.oid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum"""

_READABLE = """
select attname from pg_attribute
where attrelid = %(id)s and attnum > 0 and not attisdropped
  and has_column_privilege(%(role)s, %(id)s::oid, attnum, 'select')"""


@dataclass(frozen=True, slots=True)
class ColumnType:
    id: int
    name: str  # as clients are told: int8, _text
    cast: str  # SQL, without length or precision
    exact_cast: str  # SQL, with them
    kind: str  # pg_type.typtype; e: an enum


@dataclass(frozen=True)
class Table:
    id: int
    types: dict[str, ColumnType]  # by column, in the table's order
    key: tuple[str, ...]  # columns of the primary key
    secured: bool  # row level security is on
    readable: dict[str, frozenset[str]] = field(
        default_factory=dict
    )  # columns by role, as they are asked for


class Catalog:
    """Remembers a table until the stream describes it anew, as after a change of columns or rights."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tables: dict[int, tuple[Relation, Table]] = {}

    async def of(self, relation: Relation) -> Table:
        remembered = self._tables.get(relation.id)
        if remembered and remembered[0] is relation:
            return remembered[1]
        table = await self.table(relation.id)
        self._tables[relation.id] = (relation, table)
        return table

    async def table(self, id: int) -> Table:
        """As it is now; without columns when it is gone."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_COLUMNS, (id,))).fetchall()
        key = sorted((place, name) for name, *_, place, _ in rows if place >= 0)
        return Table(
            id,
            {name: ColumnType(*words) for name, *words, _, _ in rows},
            tuple(name for _, name in key),
            any(secured for *_, secured in rows),
        )

    async def readable(self, table: Table, role: str) -> frozenset[str]:
        """The columns that a role may select; none for a role that does not exist."""
        if role not in table.readable:
            try:
                async with self._pool.connection() as connection:
                    rows = await connection.execute(_READABLE, {"id": table.id, "role": role})
                    table.readable[role] = frozenset(row[0] for row in await rows.fetchall())
            except psycopg.errors.UndefinedObject:
                table.readable[role] = frozenset()
        return table.readable[role]

    async def published(self, schema: str | None, table: str | None) -> list[int]:
        """Tables of the publication by name; None stands for any."""
        async with self._pool.connection() as connection:
            rows = await connection.execute(_PUBLISHED, {"schema": schema, "table": table})
            return [row[0] for row in await rows.fetchall()]
