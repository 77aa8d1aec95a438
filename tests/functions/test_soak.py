"""Very many requests, some of them broken off: nothing fails, and the functions are afterwards as they were before."""

import asyncio
import json
import os
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.functions.test_job_flow import assign
from tests.stack import Person, Stack

REQUESTS = int(os.environ.get("SIDEJOB_SOAK_REQUESTS", "100000"))
CONNECTIONS = 32
ABORTED = 0.05
WARM_UP = 0.1  # of the requests: by then each thread has done everything once
GROWTH_MB = 12  # of one function's process: fragments, not a leak of 100,000 requests

Request = tuple[str, str, object]  # method, path below the gateway, body


@dataclass
class Load:
    """What is sent, and what came of it."""

    host: str
    port: int
    people: list[Person]
    job_id: str
    executor: str
    left: int
    seconds: list[float] = field(default_factory=list)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    aborted: int = 0

    def request(self) -> Request:
        """The next one: half of them read, some write, some are refused."""
        functions = "/functions/v1"
        return random.choice(
            [
                ("GET", f"{functions}/jobs-recent?limit=5&executorId={self.executor}", None),
                ("GET", f"{functions}/job-status?id={self.job_id}", None),
                ("GET", f"{functions}/artifacts-list?jobId={self.job_id}", None),
                ("GET", f"{functions}/workers-active", None),
                ("GET", f"{functions}/jobs-recent?limit=0", None),
                ("GET", f"{functions}/sign-artifact?artifactId={uuid.uuid4()}", None),
                ("POST", f"{functions}/job-cancel", {"jobId": self.job_id}),
                ("POST", f"{functions}/job-cancel", {"jobId": 7}),
                ("POST", f"{functions}/task-assign", {"type": "test.soak", "executorId": self.executor, "idempotencyKey": f"soak-{random.randrange(50)}"}),
                ("POST", f"{functions}/dlq-retry", {"dlqId": 2**50}),
            ]
        )  # fmt: skip

    async def run(self) -> None:
        """One connection's share: it is kept until a request is broken off."""
        connection = None
        while self.left > 0:
            self.left -= 1
            connection = connection or await asyncio.open_connection(self.host, self.port)
            reader, writer = connection
            method, path, body = self.request()
            content = b"" if body is None else json.dumps(body).encode()
            person = random.choice(self.people)
            head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: {person.headers['Authorization']}\r\n"
            head += (
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
                if content
                else "\r\n"
            )
            began = time.perf_counter()
            if random.random() < ABORTED:
                writer.write((head.encode() + content)[: random.randrange(20, len(head) + len(content) + 1)])
                await writer.drain()
                writer.transport.abort()
                connection, self.aborted = None, self.aborted + 1
                continue
            writer.write(head.encode() + content)
            status = await _read(reader)
            self.seconds.append(time.perf_counter() - began)
            self.answers[path.split("?")[0], status] += 1
        if connection:
            connection[1].close()


async def _read(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    if "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(head[0].split()[1])


@dataclass(frozen=True)
class Process:
    """What one function's worker process holds."""

    memory_mb: float
    files: int


def functions() -> dict[str, Process]:
    """By function; the process with the most memory of each is gunicorn's worker."""
    folder, found = Path(os.environ["SIDEJOB_TEST_ENV"]).parent / "functions", dict[str, Process]()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text().split("\0")
            source = next((word for word in words if word.startswith(str(folder))), "")
            if not source:
                continue
            rollup = dict(line.split(":") for line in (path / "smaps_rollup").read_text().splitlines()[1:])
            memory = int(rollup["Private_Dirty"].split()[0]) / 1024
            process = Process(memory, len(list((path / "fd").iterdir())))
        except (OSError, ValueError):
            continue
        name = Path(source).parent.name
        if name not in found or found[name].memory_mb < memory:
            found[name] = process
    return found


def backends(stack: Stack) -> int:
    (row,) = stack.sql.execute("select count(*) as n from pg_stat_activity").fetchall()
    return int(row["n"])


@pytest.mark.soak
async def test_requests_by_the_hundred_thousand_cost_no_error_and_leave_nothing_behind(
    stack: Stack, member: Person, owner: Person, executor: str
) -> None:
    place = urlsplit(stack.env["SUPABASE_URL"])
    job_id = str(assign(member, f"{executor}-held")["jobId"])
    load = Load(
        str(place.hostname), place.port or 80, [member, owner], job_id, executor, int(REQUESTS * WARM_UP)
    )
    await asyncio.gather(*(load.run() for _ in range(CONNECTIONS)))
    before, connections = functions(), backends(stack)
    load.seconds.clear()
    load.left, began = REQUESTS - int(REQUESTS * WARM_UP), time.perf_counter()
    await asyncio.gather(*(load.run() for _ in range(CONNECTIONS)))
    seconds = time.perf_counter() - began
    after = functions()
    ordered = sorted(load.seconds)
    print(
        f"\n{len(ordered)} answered, {load.aborted} aborted, {len(ordered) / seconds:.0f}/s, "
        f"p50 {ordered[len(ordered) // 2] * 1000:.0f} ms, p99 {ordered[int(0.99 * len(ordered))] * 1000:.0f} ms"
    )
    for name, process in sorted(after.items()):
        print(
            f"{name:20}{before[name].memory_mb:8.1f} MB →{process.memory_mb:8.1f} MB, {before[name].files} → {process.files} files"
        )
    assert load.aborted > REQUESTS * ABORTED / 2
    assert {status for _, status in load.answers} == {200, 400, 404, 422}, load.answers
    for name, process in after.items():
        assert process.memory_mb < before[name].memory_mb + GROWTH_MB, name
        assert process.files <= before[name].files + CONNECTIONS, name
    assert backends(stack) <= connections + 10
