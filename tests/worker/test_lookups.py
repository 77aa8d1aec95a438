"""Names are looked up in threads of their own: hung ones hold up nobody else."""

import asyncio
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.worker.jobs import eventually
from worker.browser.lookups import Lookups
from worker.browser.targets import Targets


class Resolver:
    """The system's, which hangs for names that begin with `hung` until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hung = 0
        self._go = threading.Event()
        self._lock = threading.Lock()

    def ask(self, host: str, *_: object, **__: object) -> list[Any]:
        self.asked.append(host)
        if host.startswith("hung"):
            with self._lock:
                self.hung += 1
            self._go.wait()
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 0))]

    def let_go(self) -> None:
        self._go.set()


async def test_a_name_has_its_addresses_or_the_resolvers_error() -> None:
    resolve = Lookups(ask=Resolver().ask).share()
    assert [str(address) for address in await resolve("a.example")] == ["93.184.216.34"]
    with pytest.raises(socket.gaierror):
        await resolve("nowhere")
    assert [str(address) for address in await Lookups().share()("localhost")]


async def test_a_job_whose_names_hang_does_not_hold_up_another_nor_the_default_threads() -> None:
    resolver = Resolver()
    lookups = Lookups(ask=resolver.ask)
    hostile, honest = lookups.share(4), lookups.share(4)
    hanging = [asyncio.create_task(hostile(f"hung{number}.example")) for number in range(1000)]
    try:
        await eventually(lambda: resolver.hung == 4)
        assert await honest("a.example")
        assert await asyncio.to_thread(lambda: 7) == 7
        for task in hanging:  # nobody waits any more, and the threads still hang
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        late = asyncio.create_task(hostile("b.example"))
        assert await honest("c.example")
        assert "b.example" not in resolver.asked, "places are free when threads have ended"
    finally:
        resolver.let_go()
    assert await late


async def test_names_of_all_jobs_together_are_bounded() -> None:
    resolver = Resolver()
    lookups = Lookups(6, resolver.ask)
    shares = [lookups.share(4) for _ in range(3)]
    hanging = [asyncio.create_task(share(f"hung{n}")) for share in shares for n in range(4)]
    try:
        await eventually(lambda: resolver.hung == 6)
        assert sum(thread.name == "lookup" for thread in threading.enumerate()) == 6
    finally:
        resolver.let_go()
    await asyncio.gather(*hanging)


async def test_each_job_has_a_share_of_its_own() -> None:
    resolver = Resolver()
    targets = Targets(lookups=Lookups(ask=resolver.ask))
    hostile, honest = targets.of_one_job(), targets.of_one_job()
    hanging = [asyncio.create_task(hostile.check(f"https://hung{n}.example/")) for n in range(100)]
    try:
        await eventually(lambda: resolver.hung > 3)
        assert (await honest.check("https://a.example/")).addresses
    finally:
        resolver.let_go()
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


HUNG = """
import asyncio, time
from worker.browser.lookups import Lookups

async def main():
    asyncio.create_task(Lookups(ask=lambda *_, **__: time.sleep(3600)).share()("hung.example"))
    await asyncio.sleep(0.1)

asyncio.run(main())
"""


def test_a_hung_resolver_does_not_keep_the_worker_from_ending() -> None:
    assert subprocess.run([sys.executable, "-c", HUNG], timeout=120, check=False).returncode == 0
