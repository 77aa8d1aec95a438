"""procrastinate: its own worker and its own deferrals, asynchronous, as its documents recommend."""

import asyncio
import json
import os
import sys
import time
from typing import Any

import procrastinate  # type: ignore[import-not-found] # in the peers' own environment


async def main() -> None:
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(
            conninfo=os.environ["BENCH_DATABASE"], min_size=4, max_size=26
        )
    )
    first = 0.0

    @app.task(name="noop")  # type: ignore[untyped-decorator]
    async def noop(n: int) -> None:  # noqa: ARG001 - what a job is sent with
        nonlocal first
        first = first or time.perf_counter()

    async def bulk(jobs: int, concurrency: int = 1) -> None:
        starts = iter(range(0, jobs, 500))

        async def one() -> None:
            for start in starts:
                await noop.batch_defer_async(*[{"n": n} for n in range(start, min(jobs, start + 500))])

        await asyncio.gather(*[one() for _ in range(concurrency)])

    async def enqueue(command: dict[str, Any]) -> float:
        began = time.perf_counter()
        if command["bulk"]:
            await bulk(command["jobs"], command["concurrency"])
        else:
            left = iter(range(command["jobs"]))

            async def one() -> None:
                for n in left:
                    await noop.defer_async(n=n)

            await asyncio.gather(*[one() for _ in range(command["concurrency"])])
        return time.perf_counter() - began

    async def drain(command: dict[str, Any]) -> float:
        nonlocal first
        first = 0.0
        await app.run_worker_async(
            concurrency=command["concurrency"], wait=False, install_signal_handlers=False, listen_notify=False
        )
        return time.perf_counter() - first

    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        for line in sys.stdin:
            command = json.loads(line)
            seconds = 0.0
            if command["do"] == "fill":
                await bulk(command["jobs"])
            elif command["do"] == "enqueue":
                seconds = await enqueue(command)
            else:
                seconds = await drain(command)
            print(json.dumps({"seconds": seconds}), flush=True)


asyncio.run(main())
