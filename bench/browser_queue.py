"""A worker of its own on a full queue, beside the plain loop: from the claim to the recorded artifact. Then what it takes
of memory after many jobs, and of the processor when there are none."""

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg

from bench.browser import Ratio
from bench.browser_ways import difference, plain, plain_context
from bench.cpu import seconds_of_tree
from bench.stack import FUNCTIONS_URL, SUPABASE_URL, client, database, fetch
from worker.browser import memory
from worker.browser.launching import Launch

SLOTS = 3  # the default on two cores
FEW, MANY = 50, 500
BATCH = 60  # of the rate: a round of each way
ROUNDS = 7
IDLE_SECONDS = 60.0  # the browser is probed with a page once a minute


@dataclass(frozen=True)
class Queue:
    executor: str
    url: str
    pid: int  # of the worker
    sql: psycopg.Connection[tuple[object, ...]]

    async def work_off(self, jobs: int) -> float:
        """Jobs a second, from the first claim to the last artifact."""
        job = {"type": "browser.screenshot", "executor_id": self.executor, "payload": {"url": self.url}}
        body = {"jobs": [job] * jobs}
        began = self.sql.execute("select clock_timestamp()").fetchone()
        fetch("POST", f"{SUPABASE_URL}/rest/v1/rpc/enqueue_jobs", json=body)
        while True:
            row = self.sql.execute(ENDED, (self.executor, began and began[0])).fetchone()
            assert row is not None
            ended, failed, seconds = int(str(row[0])), int(str(row[1])), row[2]
            assert not failed, "a job failed"
            if ended == jobs:
                return jobs / float(str(seconds))
            await asyncio.sleep(0.2)

    def picture(self) -> bytes:
        row = self.sql.execute(AN_ARTIFACT, (self.executor,)).fetchone()
        assert row is not None
        signed = fetch("POST", f"{FUNCTIONS_URL}/sign-artifact", json={"artifactId": str(row[0])}).json()
        return client().get(signed["url"]).raise_for_status().content

    def bytes(self) -> int:
        return memory.of_tree(self.pid)


@asynccontextmanager
async def _worker(url: str) -> AsyncIterator[Queue]:
    executor = f"bench-{uuid.uuid4()}"
    settings = {
        **os.environ, "WORKER_EMAIL": os.environ["WORKER2_EMAIL"], "WORKER_PASSWORD": os.environ["WORKER2_PASSWORD"],
        "EXECUTOR_ID": executor, "MAX_JOBS": str(SLOTS), "HEALTH_PORT": "0", "LOG_LEVEL": "warning",
        "BROWSER_ALLOW_ORIGINS": "/".join(url.split("/")[:3]), "BROWSER_RESTART_JOBS": "0",
    }  # fmt: skip
    with tempfile.TemporaryFile() as said, database() as sql:
        command = [sys.executable, "-m", "worker"]
        worker = await asyncio.create_subprocess_exec(*command, env=settings, stderr=said, stdout=said)
        try:
            yield Queue(executor, url, worker.pid, sql)
            assert worker.returncode is None, "the worker ended"
        finally:
            worker.send_signal(signal.SIGTERM)
            await worker.wait()


async def whole_path(origin: str) -> None:
    url = origin + "/text"
    async with _worker(url) as queue, plain_context(Launch()) as context:
        loop = plain(context, url, {})
        await queue.work_off(FEW)
        await loop.drive(SLOTS, 1)
        few = queue.bytes()
        ours, raw = [], []
        for turn in range(ROUNDS):
            if turn % 2:
                raw.append(await loop.drive(SLOTS, 5))
            ours.append(await queue.work_off(BATCH))
            if not turn % 2:
                raw.append(await loop.drive(SLOTS, 5))
        pixels = difference(queue.picture(), await loop.picture())
        print(
            f"\nfrom the queue to the recorded artifact, {SLOTS} at once, the stack on the same machine\n"
            f"ours {statistics.median(ours):.1f}/s   plain loop {statistics.median(raw):.1f}/s   "
            f"ratio {Ratio.of(ours, raw)}   pixels differ by {pixels}",
            flush=True,
        )
        await queue.work_off(MANY - FEW - ROUNDS * BATCH)
        many = queue.bytes()
        print(
            f"memory of worker and browser: {few / 2**20:.0f} MB after {FEW} jobs, {many / 2**20:.0f} MB after {MANY}"
            f"   ratio {many / few:.2f}",
            flush=True,
        )
        await asyncio.sleep(2)
        cpu, began = seconds_of_tree(queue.pid), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        part = (seconds_of_tree(queue.pid) - cpu) / (time.monotonic() - began)
        print(f"idle worker and browser: {part * 100:.2f} % of a core over {IDLE_SECONDS:.0f} s", flush=True)


ENDED = (
    "select count(*) filter (where status = 'succeeded'), count(*) filter (where status = 'failed'),"
    " extract(epoch from max(finished_at) - min(started_at)) from public.jobs"
    " where executor_id = %s and created_at >= %s"
)
AN_ARTIFACT = (
    "select a.id from public.artifacts a join public.jobs j on j.id = a.job_id where j.executor_id = %s"
    " order by a.created_at desc limit 1"
)
