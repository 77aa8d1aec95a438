"""Time that passes only when everybody waits for it: a test of clocks and pauses need not last, nor hurry."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Passes over a wait instead of sitting it out."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "all wait for each other"
        self.now += max(timeout, 0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        self._passed = selector
        super().__init__(selector)

    def time(self) -> float:
        return self._passed.now


class VirtualTime:
    """Runs coroutines in it; `time.monotonic` tells it, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._selector = _Selector()
        self._monkeypatch = monkeypatch

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._selector.now

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: self.now)
            with asyncio.Runner(loop_factory=lambda: _Loop(self._selector)) as runner:
                return runner.run(coroutine)
