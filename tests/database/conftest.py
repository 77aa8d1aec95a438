"""Sessions and workspaces for the tests of the database, closed after each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.database.callers import Caller, Workspace, connect


@pytest.fixture
def sign_in() -> Iterator[Callable[[str | None], Caller]]:
    """Opens sessions: of a user, or of anon when there is none; all closed after the test."""
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


@pytest.fixture
def server() -> Iterator[Caller]:
    """The database's owner: what tests arrange by hand, and look at behind everyone's back."""
    with connect() as session:
        yield Caller(session)


@pytest.fixture
def workspace(server: Caller, sign_in: Callable[[str | None], Caller]) -> Workspace:
    (row,) = server.rows("insert into public.workspaces (name) values ('test') returning id::text")
    return Workspace(row["id"], server, sign_in)


@pytest.fixture
def other_workspace(server: Caller, sign_in: Callable[[str | None], Caller]) -> Workspace:
    (row,) = server.rows("insert into public.workspaces (name) values ('other') returning id::text")
    return Workspace(row["id"], server, sign_in)
