"""Decoding of pgoutput, protocol 1 (PostgreSQL documentation: Logical Replication Message Formats)."""

import struct
from dataclasses import dataclass
from typing import Literal

Kind = Literal["INSERT", "UPDATE", "DELETE"]
_EPOCH = 946_684_800  # 2000-01-01 in Unix seconds


class Unchanged:
    """In place of a value that was stored out of line and did not change: the stream does not carry it."""


UNCHANGED = Unchanged()
Value = str | None | Unchanged


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type_id: int
    identity: bool  # part of the replica identity


@dataclass(frozen=True)
class Relation:
    """A table as the stream describes it, anew after each change of its definition or rights."""

    id: int
    schema: str
    name: str
    full_identity: bool
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Change:
    kind: Kind
    relation: Relation
    xid: int  # the transaction's, without its epoch
    committed: float  # Unix seconds
    new: tuple[Value, ...] | None  # None for DELETE
    old: (
        tuple[Value, ...] | None
    )  # what the stream has of it; columns outside the identity are None unless it is full


class Decoder:
    """Feeds on messages in their order; remembers relations and the open transaction's time."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._xid, self._committed = 0, 0.0

    def decode(self, message: bytes) -> Change | None:
        """The change that a message is; None for one that only tells about others."""
        kind = message[:1]
        if kind == b"B":
            micros, self._xid = struct.unpack_from("!qI", message, 9)
            self._committed = _EPOCH + micros / 1e6
        elif kind == b"R":
            relation = _relation(message)
            self._relations[relation.id] = relation
        elif kind in (b"I", b"U", b"D"):
            return self._change(kind, message)
        return None

    def _change(self, kind: bytes, message: bytes) -> Change:
        relation = self._relations[struct.unpack_from("!I", message, 1)[0]]
        new = old = None
        at = 5
        while at < len(message):
            mark, at = message[at : at + 1], at + 1
            values, at = _tuple(message, at)
            if mark == b"N":
                new = values
            else:
                old = values
        names: dict[bytes, Kind] = {b"I": "INSERT", b"U": "UPDATE", b"D": "DELETE"}
        return Change(names[kind], relation, self._xid, self._committed, new, old)


def _relation(message: bytes) -> Relation:
    (oid,) = struct.unpack_from("!I", message, 1)
    schema, at = _text(message, 5)
    name, at = _text(message, at)
    identity, count = struct.unpack_from("!cH", message, at)
    at += 3
    columns = []
    for _ in range(count):
        flags = message[at]
        column, at = _text(message, at + 1)
        (type_id,) = struct.unpack_from("!I", message, at)
        at += 8
        columns.append(Column(column, type_id, bool(flags & 1)))
    return Relation(oid, schema or "pg_catalog", name, identity == b"f", tuple(columns))


def _text(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode(), end + 1


def _tuple(message: bytes, at: int) -> tuple[tuple[Value, ...], int]:
    (count,) = struct.unpack_from("!H", message, at)
    at += 2
    values: list[Value] = []
    for _ in range(count):
        mark = message[at]
        at += 1
        if mark == 0x74:  # t
            (length,) = struct.unpack_from("!I", message, at)
            at += 4
            values.append(message[at : at + length].decode())
            at += length
        else:
            values.append(UNCHANGED if mark == 0x75 else None)  # u, else n
    return tuple(values), at
