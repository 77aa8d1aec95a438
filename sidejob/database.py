"""The project's tables and transitions over PostgREST, with the rights of one caller.

There is no SQL here: reads name a table and filters, writes name a transition of supabase/migrations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sidejob import config, jsontext, secret_key, upstream
from sidejob.connections import Answer
from sidejob.errors import Refused, Unavailable, from_upstream
from sidejob.jsontext import JSON

T = TypeVar("T")
NO_NAMES: Mapping[str, str] = {}


class Row(dict[str, JSON]):
    """A row's columns: texts, truth values and small numbers; all else as it was written."""

    def __missing__(self, column: str) -> JSON:
        raise _misunderstood(f"a row without {column}")


@dataclass(frozen=True, slots=True)
class Listed:
    """Rows as they were written, for passing on."""

    items: list[bytes] = field(repr=False)
    cut: bool  # there were more, for which no room was left

    def rows(self) -> "list[Row]":
        """The same, read."""
        return _understood(lambda: [Row(jsontext.read_members(item)) for item in self.items])


class Database:
    """What the bearer of a token may read and do. Every method raises SidejobError."""

    def __init__(self, request_id: str, *, token: str | None = None, as_project: bool = False) -> None:
        """token: the caller's own, sent on unchanged. as_project: the secret key was the credential."""
        self._headers = {"x-request-id": request_id}
        self._token = token
        self._as_project = as_project

    def rows(self, table: str, filters: Mapping[str, str]) -> list[Row]:
        """Rows of a table, filtered as PostgREST writes it: `{"id": "eq.…", "order": "seq.desc"}`."""
        return _rows(self._send("GET", table, params=filters, repeatable=True))

    def listed(self, table: str, filters: Mapping[str, str], *, max_bytes: int) -> Listed:
        """As `rows`, but as they are written, and only as many as have room in so many bytes."""
        return _listed(self._send("GET", table, params=filters, repeatable=True, max_bytes=max_bytes))

    def row(self, table: str, filters: Mapping[str, str], missing: str) -> Row:
        """The one row. Raises Refused 404 with the sentence `missing` where the caller can see none."""
        found = self.rows(table, {**filters, "limit": "1"})
        if not found:
            raise Refused("not_found", missing)
        return found[0]

    def call(
        self,
        transition: str,
        arguments: Mapping[str, JSON],
        *,
        repeatable: bool = False,
        names: Mapping[str, str] = NO_NAMES,
    ) -> JSON:
        """Calls a database function and returns its answer.

        repeatable: it only reads, or a key or lease guards it. names: by argument, the name of its field in
        the request, where that differs.
        """
        answer = self._send("POST", f"rpc/{transition}", body=arguments, repeatable=repeatable, names=names)
        return _understood(lambda: jsontext.read(answer.content) if answer.content else None)

    def call_for_row(
        self,
        transition: str,
        arguments: Mapping[str, JSON],
        *,
        repeatable: bool = False,
        names: Mapping[str, str] = NO_NAMES,
    ) -> Row:
        """As `call`, for functions that return one row: PostgREST sends an object or a list of one."""
        answer = self._send("POST", f"rpc/{transition}", body=arguments, repeatable=repeatable, names=names)
        if answer.content.lstrip()[:1] == b"{":
            return _understood(lambda: Row(jsontext.read_members(answer.content)))
        rows = _rows(answer)
        if len(rows) != 1:
            raise _misunderstood(f"{transition} gave {len(rows)} rows")
        return rows[0]

    def call_for_rows(
        self,
        transition: str,
        arguments: Mapping[str, JSON],
        filters: Mapping[str, str] | None = None,
        *,
        repeatable: bool = False,
        max_bytes: int = 0,
    ) -> Listed:
        """As `call`, for functions that return any number of rows. filters: `{"select": "id,…"}`. max_bytes:
        only as many rows as have room in them; 0: all."""
        return _listed(
            self._send(
                "POST",
                f"rpc/{transition}",
                params=filters,
                body=arguments,
                repeatable=repeatable,
                max_bytes=max_bytes,
            )
        )

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, JSON] | None = None,
        repeatable: bool = False,
        max_bytes: int = 0,
        names: Mapping[str, str] = NO_NAMES,
    ) -> Answer:
        """The answer, which is no failure. max_bytes: it may be cut off there; 0: it has to be whole."""
        settings = config.settings()
        headers = {**self._headers, "apikey": settings.publishable_key}
        if self._as_project:
            headers |= secret_key.headers()
        elif self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        answer = upstream.send(
            "database",
            method,
            f"/rest/v1/{path}",
            headers=headers,
            params=params,
            body=body,
            repeatable=repeatable,
            max_bytes=max_bytes or upstream.ANSWER_BYTES,
        )
        if not answer.ok:
            try:
                told = answer.json()
            except ValueError:
                told = None
            raise from_upstream(answer.status, told, names)
        if answer.cut and not max_bytes:
            raise _misunderstood(f"an answer of more than {upstream.ANSWER_BYTES} bytes")
        return answer


def _understood(reading: Callable[[], T]) -> T:
    """Returns what was read. Raises Unavailable for an answer in another shape, such as a proxy's page."""
    try:
        return reading()
    except (ValueError, RecursionError) as error:
        raise _misunderstood(f"an answer of an unexpected shape: {error}") from error


def _misunderstood(cause: str) -> Unavailable:
    return Unavailable("database_error", cause=cause)


def _listed(answer: Answer) -> Listed:
    items = _understood(lambda: jsontext.read_list(answer.content, cut=answer.cut))
    if not all(item.startswith(b"{") for item in items):
        raise _misunderstood("an answer that is not a list of rows")
    if answer.cut and not items:
        raise _misunderstood("a row without end")
    return Listed(items, answer.cut)


def _rows(answer: Answer) -> list[Row]:
    return _listed(answer).rows()
