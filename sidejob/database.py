"""The project's tables and transitions over PostgREST, with the rights of one caller.

There is no SQL here: reads name a table and filters, writes name a transition of supabase/migrations.
"""

from collections.abc import Mapping

from sidejob import config, secret_key, upstream
from sidejob.errors import JSON, Refused, SidejobError, Unavailable, from_upstream

Row = dict[str, JSON]
LOST_RACES = ("40001", "40P01")  # serialization failure, deadlock: a second try mostly wins


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

    def row(self, table: str, filters: Mapping[str, str]) -> Row:
        """The one row. Raises Refused 404 where the caller can see none."""
        found = self.rows(table, {**filters, "limit": "1"})
        if not found:
            raise Refused("not_found")
        return found[0]

    def call(self, transition: str, arguments: Mapping[str, JSON], *, repeatable: bool = False) -> JSON:
        """What a database function returns. repeatable: it only reads, or a key or lease guards it."""
        try:
            return self._send("POST", f"rpc/{transition}", body=arguments, repeatable=repeatable)
        except SidejobError as failure:
            if not (repeatable and failure.upstream in LOST_RACES):
                raise
            return self._send("POST", f"rpc/{transition}", body=arguments)

    def call_for_row(
        self, transition: str, arguments: Mapping[str, JSON], *, repeatable: bool = False
    ) -> Row:
        """As `call`, for functions that return one row: PostgREST sends an object or a list of one."""
        answer = self.call(transition, arguments, repeatable=repeatable)
        rows = _rows(answer if isinstance(answer, list) else [answer])
        if len(rows) != 1:
            raise Unavailable("database_error", cause=f"{transition} gave {len(rows)} rows")
        return rows[0]

    def call_for_rows(
        self, transition: str, arguments: Mapping[str, JSON], *, repeatable: bool = False
    ) -> list[Row]:
        """As `call`, for functions that return any number of rows."""
        return _rows(self.call(transition, arguments, repeatable=repeatable))

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, JSON] | None = None,
        repeatable: bool = False,
    ) -> JSON:
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
        )
        try:
            found: JSON = answer.json() if answer.content else None
        except ValueError:
            if answer.ok:
                raise Unavailable("database_error", cause="an answer that is not JSON") from None
            found = None
        if not answer.ok:
            raise from_upstream(answer.status, found)
        return found


def _rows(answer: JSON) -> list[Row]:
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise Unavailable("database_error", cause="an answer that is not a list of rows")
    return [row for row in answer if isinstance(row, dict)]
