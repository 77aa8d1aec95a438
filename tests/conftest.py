"""Fixtures for all tests: the running stack, and the people who use it."""

import json
import os
import uuid
from collections.abc import Iterator

import pytest

from tests.stack import Person, Stack, load
from tests.virtual_time import VirtualTime


def pytest_configure() -> None:
    """Each process of pytest-xdist has the stack of its number, before any test asks for one."""
    if process := os.environ.get("PYTEST_XDIST_WORKER"):
        stacks = json.loads(os.environ.get("SIDEJOB_TEST_STACKS", "[]"))
        number = int(process.removeprefix("gw"))
        if number >= len(stacks):
            pytest.exit(
                f"{number + 1} processes, and {len(stacks)} stacks; run ./local.sh test without -n", 2
            )
        os.environ |= stacks[number]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    stack = load()
    yield stack
    stack.close()


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    """For what is about clocks and pauses alone."""
    return VirtualTime(monkeypatch)


@pytest.fixture
def executor() -> str:
    """An executor id of this test's own, so that no other test and no running worker takes its jobs."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def member(stack: Stack) -> Person:
    return stack.sign_in("DEMO")


@pytest.fixture
def owner(stack: Stack) -> Person:
    return stack.sign_in("OWNER")


@pytest.fixture
def viewer(stack: Stack) -> Person:
    return stack.sign_in("VIEWER")


@pytest.fixture
def worker(stack: Stack) -> Person:
    """The second worker of the member's workspace: its user is there, its process is not."""
    return stack.sign_in("WORKER2")


@pytest.fixture
def other_worker(stack: Stack) -> Person:
    """The user of the worker that may be running."""
    return stack.sign_in("WORKER")


@pytest.fixture
def stranger(stack: Stack) -> Person:
    """A user with a workspace of his own, not the member's."""
    return stack.sign_in("OTHER")


@pytest.fixture
def nobody(stack: Stack) -> Person:
    """No token at all."""
    return Person(stack, {})
