"""Callers of the database as PostgREST makes them: a role and a user id for the session, nothing else.

Each test has a workspace of its own, so tests share one database without seeing each other.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

Row = dict[str, Any]


def connect() -> psycopg.Connection[DictRow]:
    return psycopg.connect(os.environ["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row)


@dataclass(frozen=True)
class Caller:
    """One session in one role. `rpc` calls a public function by name with named arguments, as a client does."""

    session: psycopg.Connection[DictRow]
    user_id: str | None = None

    def rows(self, query: str, *values: Any) -> list[Row]:
        return self.session.execute(query, values).fetchall()

    def run(self, query: str, *values: Any) -> int:
        return self.session.execute(query, values).rowcount

    def rpc(self, name: str, **arguments: Any) -> list[Row]:
        listed = ", ".join(f"{key} => %({key})s" for key in arguments)
        sent = {key: _sent(value) for key, value in arguments.items()}
        return self.session.execute(f"select * from public.{name}({listed})", sent).fetchall()

    def call(self, name: str, **arguments: Any) -> Row:
        """The one row of a function that answers with one."""
        (row,) = self.rpc(name, **arguments)
        return row

    def claim(self, **arguments: Any) -> Row:
        """Claims one job that must be there."""
        (job,) = self.rpc("claim_one_job", **arguments)
        return job


def _sent(value: Any) -> Any:
    """JSON for jsonb; a tuple of ids is a uuid[]."""
    if isinstance(value, tuple):
        return [uuid.UUID(item) for item in value]
    return Jsonb(value) if isinstance(value, dict | list) else value


def lease(job: Row) -> Row:
    """The three arguments that every write after a claim carries."""
    return {"job_id": job["id"], "attempt": job["attempt"], "lease_token": job["lease_token"]}


@contextmanager
def signing_in() -> Iterator[Callable[[str | None], Caller]]:
    """Opens sessions: of a user, or of anon when there is none; all closed at the end."""
    with ExitStack() as sessions:

        def open_session(user_id: str | None) -> Caller:
            session = sessions.enter_context(connect())
            role = "authenticated" if user_id else "anon"
            claims = f'{{"role": "{role}"' + (f', "sub": "{user_id}"' if user_id else "") + "}"
            session.execute(
                "select set_config('request.jwt.claim.sub', %s, false), set_config('request.jwt.claim.role', %s, false),"
                " set_config('request.jwt.claims', %s, false)",
                (user_id or "", role, claims),
            )
            session.execute(f"set role {role}")
            return Caller(session, user_id)

        yield open_session


def new_workspace(server: Caller, sign_in: Callable[[str | None], Caller], name: str = "test") -> "Workspace":
    (row,) = server.rows("insert into public.workspaces (name) values (%s) returning id::text", name)
    return Workspace(row["id"], server, sign_in)


@dataclass
class Workspace:
    """A workspace with one caller of each kind, all signed in."""

    id: str
    server: Caller
    sign_in: Callable[[str | None], Caller]
    people: dict[str, Caller] = field(default_factory=dict)

    def add(self, name: str, role: str | None) -> Caller:
        user_id = str(uuid.uuid4())
        self.server.run(
            "insert into auth.users (id, email) values (%s, %s)", user_id, f"{user_id}@example.com"
        )
        if role:
            self.server.run(
                "insert into public.workspace_members (workspace_id, user_id, role, is_default, worker_id) values (%s, %s, %s, true, %s)",
                self.id,
                user_id,
                role,
                f"w-{user_id}" if role == "worker" else None,
            )
        self.people[name] = self.sign_in(user_id)
        return self.people[name]

    def __getattr__(self, name: str) -> Caller:
        """`workspace.member` is the caller of that name, added with the role of that name when there is none yet."""
        if name.startswith("_"):
            raise AttributeError(name)
        role = name.rstrip("0123456789")
        return self.people.get(name) or self.add(name, None if role == "stranger" else role)

    def enqueue(self, type: str = "test.job", **arguments: Any) -> str:
        return str(self.member.call("enqueue_job", type=type, **arguments)["job_id"])

    def events(self, job_id: str) -> list[str]:
        found = self.server.rows(
            "select seq, event_type from public.job_events where job_id = %s order by seq", job_id
        )
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1)), "seq has a gap"
        return [event["event_type"].removeprefix("job.") for event in found]

    def job(self, job_id: str) -> Row:
        (row,) = self.server.rows("select * from public.jobs where id = %s", job_id)
        return row

    def expire(self, job_id: str) -> None:
        """Puts a lease's end into the past, as if its holder had slept."""
        self.server.run(
            "update public.jobs set lease_until = clock_timestamp() - interval '1 second' where id = %s",
            job_id,
        )
