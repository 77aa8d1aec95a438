"""How many streams one instance of job-events holds, and what they cost while nothing happens and when something does."""

import asyncio
import os
import statistics
import time
import uuid
from pathlib import Path

import httpx

from bench.stack import FUNCTIONS_URL, fetch, member_headers

MOST = int(os.environ.get("STREAMS_PER_CALLER", "100"))
COUNTS = [count for count in (25, 50, 100, 200, 400, 800) if count <= MOST]
QUIET_SECONDS = 8


def measure() -> None:
    print(
        f"\nstreams of job-events, one instance\n{'streams':>8}{'open p99 ms':>13}{'CPU %':>8}{'MB':>8}{'event p50 ms':>14}{'p99':>8}"
    )
    for count in COUNTS:
        print(asyncio.run(_held(count)))


async def _held(count: int) -> str:
    job = fetch(
        "POST",
        f"{FUNCTIONS_URL}/task-assign",
        json={"type": "bench.stream", "executorId": f"bench-{uuid.uuid4()}"},
    )
    job_id = job.json()["jobId"]
    pids = _processes()
    limits = httpx.Limits(max_connections=count + 5)
    async with httpx.AsyncClient(timeout=60, limits=limits, headers=member_headers()) as http:
        opened: list[float] = []
        quiet = asyncio.Event()
        streams = [asyncio.create_task(_follow(http, job_id, opened, count, quiet)) for _ in range(count)]
        await quiet.wait()
        before, began = _cpu(pids), time.perf_counter()
        await asyncio.sleep(QUIET_SECONDS)
        busy = (_cpu(pids) - before) / (time.perf_counter() - began) * 100
        memory = sum(_memory(pid) for pid in pids)
        cancelled = time.time()
        await http.post(f"{FUNCTIONS_URL}/job-cancel", json={"jobId": job_id})
        heard = sorted(at - cancelled for at in await asyncio.gather(*streams))
    opened.sort()
    return (
        f"{count:8}{opened[int(0.99 * (count - 1))] * 1000:13.0f}{busy:8.1f}{memory:8.0f}"
        f"{statistics.median(heard) * 1000:14.0f}{heard[int(0.99 * (count - 1))] * 1000:8.0f}"
    )


async def _follow(
    http: httpx.AsyncClient, job_id: str, opened: list[float], count: int, quiet: asyncio.Event
) -> float:
    began = time.perf_counter()
    async with http.stream("GET", f"{FUNCTIONS_URL}/job-events?id={job_id}") as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line == "event: job.queued":
                opened.append(time.perf_counter() - began)
                if len(opened) == count:
                    quiet.set()
            if line == "event: job.cancelled":
                return time.time()
    raise AssertionError("the stream ended early")


def _processes() -> list[int]:
    """gunicorn's master and worker of job-events, in this machine's list."""
    state = Path(os.environ["SIDEJOB_TEST_ENV"]).parent / "functions" / "job-events" / "main.py"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if str(state) in words:
            found.append(int(path.parent.name))
    assert found, "job-events does not run on this machine"
    return found


def _cpu(pids: list[int]) -> float:
    ticks = os.sysconf("SC_CLK_TCK")
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / ticks


def _memory(pid: int) -> float:
    """Megabytes that are this process's own (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
