"""A fresh context for each job, through the guard, beside a plain Playwright loop that shares one context, the same loop
with a context a job, and other programs that take pictures.

All ways have the same slots and the same Chromium, each a browser of its own, and take turns in short rounds; a figure is
the median over the rounds, a ratio that of the ratios within each, with the interval that holds the true median in 95 of
100 runs. Beside the plain loop and past the guard each round has new browsers: two of the same kind differ by up to
4 % for as long as they live. The pictures are compared pixel by pixel first.
"""

import asyncio
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from bench import cpu
from bench.browser_ways import (
    Unguarded,
    UnguardedLaunch,
    Way,
    difference,
    ours,
    pages,
    peers,
    plain,
    plain_and_clean,
    plain_context,
)
from worker.browser.engine import Engine
from worker.browser.launching import Launch
from worker.computing.pool import Pool

ROUND_SECONDS = 1.5
ROUNDS = 9  # with new browsers each
GUARD_ROUNDS = 2  # in each of them
SLOTS = (2, 3)
PEER_SLOTS = 2
PEER_ROUNDS, PEER_SECONDS = 4, 5.0  # some of them start a browser in each round

# What a job asks for, the same for the plain loop, and the page.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "viewport png": ({}, {}, "/text"),
    "viewport png, 30 requests": ({}, {}, "/many"),
    "viewport jpeg": ({"format": "jpeg"}, {"type": "jpeg", "quality": 80}, "/text"),
    "full page png": ({"fullPage": True, "scroll": False}, {"full_page": True}, "/text"),
    "element png": ({"selector": "p"}, {"selector": "p"}, "/text"),
    "pdf": ({}, {"pdf": True}, "/text"),
}


@dataclass
class Turns:
    """What one way did, an entry a round: shots a second, and shots a second of the processor, of all
    processes together."""

    rates: list[float] = field(default_factory=list)
    per_cpu: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


async def take_turns(
    ways: Mapping[str, Way],
    slots: int,
    turns: Mapping[str, Turns],
    rounds: int = 1,
    seconds: float = ROUND_SECONDS,
) -> None:
    """Each way once a round, in an order drawn anew, after a round that does not count."""
    for way in ways.values():
        await way.drive(slots, 0.5)
    for _ in range(rounds):
        for name in random.sample(list(ways), len(ways)):
            used, began = cpu.seconds_of_tree(os.getpid()), time.perf_counter()
            rate = await ways[name].drive(slots, seconds)
            shots = rate * (time.perf_counter() - began)
            turns[name].rates.append(rate)
            turns[name].per_cpu.append(shots / (cpu.seconds_of_tree(os.getpid()) - used))


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and the interval of its order statistics: nothing is assumed of how they are
    distributed. Few rounds give all that there was."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, one: Sequence[float], other: Sequence[float]) -> "Ratio":
        ratios = sorted(a / b for a, b in zip(one, other, strict=True))
        count = len(ratios)
        fewer = accumulate(math.comb(count, heads) / 2**count for heads in range(count))
        skipped = max(0, sum(chance <= 0.025 for chance in fewer) - 1)
        return cls(statistics.median(ratios), ratios[skipped], ratios[-1 - skipped])

    def __str__(self) -> str:
        return f"{self.median:6.2f} ({self.low:.2f}–{self.high:.2f})"


def heads(one: str, other: str) -> str:
    return f"\n{'':28}{'slots':>6}{one:>9}{other:>9}{'ratio':>19}{'for the same CPU':>19}"


def beside(one: Turns, other: Turns) -> str:
    rates, per_cpu = Ratio.of(one.rates, other.rates), Ratio.of(one.per_cpu, other.per_cpu)
    return f"{one.rate:9.1f}{other.rate:9.1f}{rates!s:>19}{per_cpu!s:>19}"


async def beside_the_plain_loop(origin: str, cases: Sequence[str]) -> None:
    rows = {
        (name, slots): {way: Turns() for way in ("ours", "plain", "clean")}
        for name in cases
        for slots in SLOTS
    }
    pixels = {}
    for _ in range(ROUNDS):
        async with (
            Pool.open(2) as computing,
            Engine.running(Launch()) as engine,
            plain_context(Launch()) as context,
        ):
            for (name, slots), turns in rows.items():
                payload, options, path = CASES[name]
                printed = options.get("pdf")
                kind = "browser.pdf" if printed else "browser.screenshot"
                one = ours(engine, computing, origin + path, payload, kind)
                other = plain(context, origin + path, options)
                clean = plain_and_clean(context, origin + path, options)
                if name not in pixels:
                    pixels[name] = "-" if printed else difference(await one.picture(), await other.picture())
                await take_turns({"ours": one, "plain": other, "clean": clean}, slots, turns)
    for way in ("plain", "clean"):
        print(f"{heads('ours/s', f'{way}/s')}   pixels differ by")
        for (name, slots), turns in rows.items():
            print(f"{name:28}{slots:6}{beside(turns['ours'], turns[way])}   {pixels[name]}", flush=True)


async def through_the_guard_and_past_it(origin: str) -> None:
    rows = {
        name: {"ours": Turns(), "past": Turns()} for name in ("viewport png", "viewport png, 30 requests")
    }
    for _ in range(ROUNDS):
        async with (
            Pool.open(2) as computing,
            Engine.running(Launch()) as engine,
            Unguarded.running(UnguardedLaunch()) as unguarded,
        ):
            for name, turns in rows.items():
                payload, _, path = CASES[name]
                ways = {
                    "ours": ours(engine, computing, origin + path, payload),
                    "past": ours(unguarded, computing, origin + path, payload),
                }
                await take_turns(ways, PEER_SLOTS, turns, GUARD_ROUNDS)
    print(heads("guarded", "past it"))
    for name, turns in rows.items():
        print(f"{name:28}{PEER_SLOTS:6}{beside(turns['ours'], turns['past'])}", flush=True)


async def beside_the_peers(origin: str) -> None:
    url = origin + "/text"
    # Their browsers end, and nobody counts what those took.
    print(
        f"\n{'viewport png, beside':28}{'slots':>6}{'ours/s':>9}{'theirs':>9}{'ratio':>19}   pixels differ by"
    )
    async with (
        Pool.open(2) as computing,
        Engine.running(Launch()) as engine,
        plain_context(Launch()) as context,
    ):
        with peers(url) as programs:
            ways: dict[str, Way] = {
                "ours": ours(engine, computing, url, {}),
                "plain loop": plain(context, url, {}),
                **programs,
            }
            first = await ways["ours"].picture()
            pixels = {name: difference(first, await way.picture()) for name, way in ways.items()}
            turns = {name: Turns() for name in ways}
            await take_turns(ways, PEER_SLOTS, turns, PEER_ROUNDS, PEER_SECONDS)
    one = turns.pop("ours")
    for name, other in turns.items():
        ratio = Ratio.of(one.rates, other.rates)
        print(
            f"{name:28}{PEER_SLOTS:6}{one.rate:9.1f}{other.rate:9.1f}{ratio!s:>19}   {pixels[name]}",
            flush=True,
        )


async def _measure(cases: Sequence[str]) -> None:
    from bench import browser_queue  # it needs the stack; single cases do not

    with pages() as origin:
        await beside_the_plain_loop(origin, cases)
        await through_the_guard_and_past_it(origin)
        await beside_the_peers(origin)
        await browser_queue.whole_path(origin)


def measure() -> None:
    asyncio.run(_measure(list(CASES)))


async def _try(cases: Sequence[str]) -> None:
    with pages() as origin:
        await beside_the_plain_loop(origin, cases)


if __name__ == "__main__":  # without a stack: `python -m bench.browser "viewport png"`
    asyncio.run(_try(sys.argv[1:] or list(CASES)))
