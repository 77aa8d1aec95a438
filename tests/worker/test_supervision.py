"""A task of the worker's never ends alone."""

import asyncio

import pytest

from tests.worker.jobs import eventually
from worker import supervision
from worker.supervision import supervised


class Task:
    """Runs as told: raises, returns, or waits until it is cancelled."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.runs = 0
        self._ends = list(ends)

    async def __call__(self) -> None:
        self.runs += 1
        if not self._ends:
            await asyncio.Event().wait()
        if (end := self._ends.pop(0)) is not None:
            raise end


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_LONGEST_PAUSE_SECONDS", 0.001)


async def test_a_task_that_fails_returns_or_is_cancelled_by_nobody_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = Task(KeyError("a bug"), None, asyncio.CancelledError(), RecursionError())
    supervisor = asyncio.create_task(supervised("sweeps", task))
    await eventually(lambda: task.runs == 5)
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "sweeps met a bug",
        "sweeps ended, which is a bug",
        "sweeps were cancelled by nobody",
        "sweeps met a bug",
    ]
    assert "KeyError: 'a bug'" in caplog.text
    supervisor.cancel()
    await asyncio.wait({supervisor})
    assert supervisor.cancelled()
    assert task.runs == 5
