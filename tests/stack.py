"""The running stack as its users see it: sign-in, functions, REST, and the database behind them."""

import os
import shlex
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

NO_STACK = "These tests need the local stack. Run them with: ./local.sh test [pytest arguments]"


def load() -> "Stack":
    """The stack that SIDEJOB_TEST_ENV names. Fails, and never skips, where there is none."""
    named = os.environ.get("SIDEJOB_TEST_ENV", "")
    if not named or not Path(named).is_file():
        pytest.fail(NO_STACK, pytrace=False)
    words = shlex.split(Path(named).read_text(), comments=True)
    return Stack(dict(word.split("=", 1) for word in words if "=" in word))


@dataclass(frozen=True)
class Stack:
    """One running stack. Close it at the end."""

    env: Mapping[str, str]
    _tokens: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(timeout=60, trust_env=False)

    @cached_property
    def sql(self) -> psycopg.Connection[DictRow]:
        """The database as its superuser: what no client sees, and what none of them did."""
        return psycopg.connect(self.env["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        for name in ("http", "sql"):
            if name in self.__dict__:
                getattr(self, name).close()

    def sign_in(self, name: str) -> "Person":
        """The user of `<name>_EMAIL`: DEMO, OTHER, VIEWER, OWNER, WORKER, WORKER2. One session a run."""
        with self._lock:
            if name not in self._tokens:
                email, password = self.env[f"{name}_EMAIL"], self.env[f"{name}_PASSWORD"]
                self._tokens[name] = self._token(email, password)
        return Person(self, {"Authorization": f"Bearer {self._tokens[name]}"})

    def newcomer(self, workspace_id: str, role: str) -> "Person":
        """A new user with this role in this workspace, his only one."""
        name, password = f"{role}-{uuid.uuid4()}", str(uuid.uuid4())
        email = f"{name}@sidejob.test"
        made = self.http.post(
            f"{self.env['SUPABASE_URL']}/auth/v1/admin/users",
            headers={"apikey": self.env["SUPABASE_SECRET_KEY"]},
            json={"email": email, "password": password, "email_confirm": True},
        )
        self.sql.execute(
            "insert into public.workspace_members (workspace_id, user_id, role, is_default, worker_id)"
            " values (%s, %s, %s, true, %s)",
            [workspace_id, done(made)["id"], role, name if role == "worker" else None],
        )
        return Person(self, {"Authorization": f"Bearer {self._token(email, password)}"})

    def _token(self, email: str, password: str) -> str:
        answer = self.http.post(
            f"{self.env['SUPABASE_URL']}/auth/v1/token?grant_type=password",
            headers={"apikey": self.env["SUPABASE_PUBLISHABLE_KEY"]},
            json={"email": email, "password": password},
        )
        return str(done(answer)["access_token"])

    def count(self, table: str, **columns: str) -> int:
        """How many rows there are, whoever asks."""
        where = " and ".join(f"{column}::text = %s" for column in columns) or "true"
        question = f"select count(*) as n from {table} where {where}"  # noqa: S608  names are the tests' own
        (row,) = self.sql.execute(question, [*columns.values()]).fetchall()
        return int(row["n"])


@dataclass(frozen=True)
class Person:
    """Somebody who sends requests: the headers that say who he is."""

    stack: Stack
    headers: Mapping[str, str]

    @property
    def token(self) -> str:
        return self.headers["Authorization"].removeprefix("Bearer ")

    def adding(self, **headers: str) -> "Person":
        """The same with more headers: `adding(if_none_match="…")`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})

    def get(self, function: str, /, **query: str | int) -> httpx.Response:
        """A function through the gateway, by GET."""
        url = f"{self.stack.env['FUNCTIONS_URL']}/{function}"
        return self.stack.http.get(url, params=query, headers=self.headers)

    def post(self, function: str, body: object) -> httpx.Response:
        """A function through the gateway, by POST with JSON."""
        url = f"{self.stack.env['FUNCTIONS_URL']}/{function}"
        return self.stack.http.post(url, json=body, headers=self.headers)

    def collab(self, path: str, body: object = None) -> httpx.Response:
        """The Collab API: GET, or POST where there is a body."""
        url = f"{self.stack.env['COLLAB_URL']}/{path}"
        method = "GET" if body is None else "POST"
        return self.stack.http.request(method, url, json=body, headers=self.headers)

    def rest(self, method: str, path: str, body: object = None, **query: str) -> httpx.Response:
        """PostgREST: `rest("GET", "jobs", id="eq.…")`, `rest("POST", "rpc/claim_one_job", {})`."""
        headers = {"apikey": self.stack.env["SUPABASE_PUBLISHABLE_KEY"], **self.headers}
        url = f"{self.stack.env['SUPABASE_URL']}/rest/v1/{path}"
        return self.stack.http.request(method, url, json=body, params=query, headers=headers)

    def upload(self, path: str, content: bytes, mime: str) -> httpx.Response:
        """An object of the bucket `artifacts`."""
        headers = {"apikey": self.stack.env["SUPABASE_PUBLISHABLE_KEY"], "Content-Type": mime, **self.headers}
        url = f"{self.stack.env['SUPABASE_URL']}/storage/v1/object/artifacts/{path}"
        return self.stack.http.post(url, content=content, headers=headers)


def done(response: httpx.Response) -> dict[str, Any]:
    """The body of an answer that has to be 200."""
    assert response.status_code == 200, f"{response.status_code} {response.text}"
    body: dict[str, Any] = response.json()
    return body


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The envelope of an answer that has to be this failure."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    envelope: dict[str, Any] = response.json()
    assert set(envelope) == {"error", "code", "details", "hint", "requestId"}
    assert isinstance(envelope["error"], str)
    assert envelope["error"]
    assert envelope["requestId"] == response.headers["x-request-id"]
    return envelope
