"""Replay: the newest private broadcasts of a topic that the database kept, given to who joins."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.realtime.authorization import Pool
from local.realtime.frames import JSON, RAW, dumps
from local.realtime.topics import Broadcast

_MOST, _USUAL = 25, 10
_NEWEST = """
select id::text, event, payload::text, binary_payload from realtime.messages
where topic = %s and private and extension = 'broadcast' and inserted_at >= %s
  and (expires_at is null or expires_at > now() at time zone 'utc') order by inserted_at desc, id limit %s"""


class BadReplay(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Wish:
    since: datetime
    limit: int


async def read(pool: Pool, topic: str, wish: Any) -> list[Broadcast]:
    """Oldest first. Raises BadReplay, psycopg.Error."""
    asked = _wish(wish)
    async with pool.connection() as connection:
        rows = await (await connection.execute(_NEWEST, (topic, asked.since, asked.limit))).fetchall()
    return [
        from_row(row_id, event, payload, binary, replayed=True)
        for row_id, event, payload, binary in reversed(rows)
    ]


def from_row(
    id: str | None, event: str | None, payload: str | None, binary: bytes | None, *, replayed: bool = False
) -> Broadcast:
    """A row of realtime.messages as the broadcast that it is."""
    meta = dumps({"replayed": True, "id": id} if replayed else {"id": id})
    body = binary if binary is not None else (payload or "{}").encode()
    return Broadcast(event=event or "", body=body, encoding=JSON if binary is None else RAW, meta=meta, id=id)


def _wish(wish: Any) -> _Wish:
    if not isinstance(wish, dict):
        raise BadReplay("Replay params are not valid")
    since, limit = wish.get("since", 0), wish.get("limit", _USUAL)
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (since, limit))
    if not whole or not 0 <= since < 2**53:
        raise BadReplay("Replay params are not valid")
    try:
        moment = datetime.fromtimestamp(since / 1000, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        raise BadReplay("Replay params are not valid") from None
    return _Wish(moment, max(1, min(_MOST, limit)))
