"""Sessions and workspaces for the tests of the database, closed after each test."""

from collections.abc import Callable, Iterator

import pytest

from tests.database.callers import Caller, Workspace, connect, new_workspace, signing_in


@pytest.fixture
def sign_in() -> Iterator[Callable[[str | None], Caller]]:
    with signing_in() as sign_in:
        yield sign_in


@pytest.fixture
def server() -> Iterator[Caller]:
    """The database's owner: what tests arrange by hand, and look at behind everyone's back."""
    with connect() as session:
        yield Caller(session)


@pytest.fixture
def workspace(server: Caller, sign_in: Callable[[str | None], Caller]) -> Workspace:
    return new_workspace(server, sign_in)


@pytest.fixture
def other_workspace(server: Caller, sign_in: Callable[[str | None], Caller]) -> Workspace:
    return new_workspace(server, sign_in, "other")
