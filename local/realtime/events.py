"""A change on its way to its subscribers, and the JSON that it is for those who may read the same columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from local.realtime.bindings import Binding
from local.realtime.catalog import ColumnType, Table
from local.realtime.frames import dumps
from local.realtime.values import to_json
from local.realtime.wal import Change, Unchanged, Value

if TYPE_CHECKING:
    from local.realtime.channel import Channel

_MOST_BYTES = 1_048_576  # of one change; long values are left out of a larger one
_LONG_BYTES = 64

Subscriber = tuple["Channel", Binding]
Texts = dict[str, str | None]  # values by column, as the stream has them


@dataclass
class Event:
    change: Change
    table: Table
    wanted: list[Subscriber]
    barred: list[Subscriber] = field(default_factory=list)  # may not even read the key: told so, and no more
    _new: dict[str, str] = field(default_factory=dict)  # JSON by column
    _old: dict[str, str] = field(default_factory=dict)
    _bodies: dict[object, str] = field(default_factory=dict)

    @cached_property
    def new(self) -> Texts:
        """The new row; with a full identity the old one fills in what did not change and was not sent."""
        change = self.change
        new, old = self._texts(change.new), self._texts(change.old) if change.relation.full_identity else {}
        return {
            name: (new if name in new else old)[name] for name in self._names if name in new or name in old
        }

    @cached_property
    def identity(self) -> Texts:
        """The old row as the stream has it: its identity, or all of it with a full one."""
        change = self.change
        if change.relation.full_identity:
            return self._texts(change.old)
        row = self._texts(change.old) or self.new  # an identity that did not change is not sent again
        return {column.name: row[column.name] for column in change.relation.columns if column.identity}

    @cached_property
    def old(self) -> Texts:
        """What clients are told of the old row: no more of a deleted one than its key, if RLS is on."""
        hidden = self._gone and self.table.secured
        return {name: text for name, text in self.identity.items() if not hidden or name in self.table.key}

    @property
    def filtered(self) -> Texts:
        """The values that filters look at."""
        return self.identity if self._gone else self.new

    @property
    def checked(self) -> bool:
        """Is it for the row's policies to say who sees it? There is no row to ask about after a DELETE."""
        return self.table.secured and not self._gone

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(text for name in self.table.key if (text := self.new.get(name)) is not None)

    def bars(self, readable: frozenset[str]) -> bool:
        return not self._gone and (not self.table.key or not readable.issuperset(self.table.key))

    def open_values(self) -> Iterable[tuple[dict[str, str], str, tuple[ColumnType, str]]]:
        """Makes JSON of the values; yields where to put those that only Postgres can make."""
        for texts, target in ((self.new if not self._gone else {}, self._new), (self.old, self._old)):
            for name, text in texts.items():
                if not (kind := self.table.types.get(name)):
                    continue
                target[name] = to_json(kind, text) or ""
                if not target[name] and text is not None:
                    yield target, name, (kind, text)

    def data(self, readable: frozenset[str], select: tuple[str, ...] | None) -> str:
        """The `data` of a change for those who may read these columns."""
        name = (readable, select)
        if name not in self._bodies:
            self._bodies[name] = self._encoded(readable, select)
        return self._bodies[name]

    def _encoded(self, readable: frozenset[str], select: tuple[str, ...] | None) -> str:
        change, table, new, old, errors = self.change, self.table, self._new, self._old, "null"
        shown = readable if select is None else readable & {*select, *table.key}
        columns = [name for name in self._names if name in table.types and name in shown]
        if self.bars(readable):
            columns = []
            errors = (
                '["Error 401: Unauthorized"]' if table.key else '["Error 400: Bad Request, no primary key"]'
            )
        elif sum(map(len, new.values())) + sum(map(len, old.values())) > _MOST_BYTES:
            new, old = (
                {name: text for name, text in row.items() if len(text) <= _LONG_BYTES} for row in (new, old)
            )
            errors = '["Error 413: Payload Too Large"]'
        listed = [{"name": name, "type": table.types[name].name} for name in columns]
        parts = [
            f'"schema":{dumps(change.relation.schema)},"table":{dumps(change.relation.name)}',
            f'"type":"{change.kind}","commit_timestamp":"{_timestamp(change.committed)}"',
            f'"columns":{dumps(listed)}',
            *([] if self._gone else [f'"record":{_object(new, columns)}']),
            *([] if change.kind == "INSERT" else [f'"old_record":{_object(old, columns)}']),
        ]
        return f'{{{",".join(parts)},"errors":{errors}}}'

    @property
    def _gone(self) -> bool:
        return self.change.kind == "DELETE"

    @property
    def _names(self) -> list[str]:
        return [column.name for column in self.change.relation.columns]

    def _texts(self, values: Sequence[Value] | None) -> Texts:
        pairs = zip(self._names, values or (), strict=False)
        return {name: value for name, value in pairs if not isinstance(value, Unchanged)}


def _object(fields: dict[str, str], columns: Iterable[str]) -> str:
    return f"{{{','.join(f'{dumps(name)}:{fields[name]}' for name in columns if name in fields)}}}"


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
