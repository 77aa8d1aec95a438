"""Timing of several ways to do the same thing, in alternating order, so that a busy minute hits all alike."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    seconds: tuple[float, ...]

    def percentile(self, part: float) -> float:
        """The value in milliseconds that `part` (0–1) of the calls did not exceed."""
        ordered = sorted(self.seconds)
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)] * 1000

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) * 1000


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 20) -> dict[str, Times]:
    """Calls each way once a round, in an order drawn anew each time."""
    for way in ways.values():
        for _ in range(warm_up):
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name in random.sample(list(ways), len(ways)):
            began = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


def table(title: str, times: Mapping[str, Times], yardstick: str) -> str:
    """Each way's least, p50 and p99 in milliseconds, and its p50 as a multiple of the yardstick's. The least
    is what a busy machine spoils least."""
    base = times[yardstick].median
    lines = [f"\n{title}", f"{'':44}{'least ms':>9}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}"]
    for name, taken in times.items():
        milliseconds = (taken.percentile(0), taken.median, taken.percentile(0.99))
        figures = "".join(f"{figure:9.2f}" for figure in milliseconds)
        lines.append(f"{name:44}{figures}{taken.median / base:8.2f}")
    return "\n".join(lines)
