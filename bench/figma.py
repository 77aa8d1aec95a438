"""Figma jobs on a Figma of this process: what the rate limit allows and what is used of it, the link, memory, and
what a repeated export costs. The minutes are real ones: what a picture costs in computing cannot be shortened."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from bench.stack import SUPABASE_URL, database, fetch
from local.figma.documents import Document, Layer, many_icons, page, proven_case
from local.figma.limits import Limits
from local.figma.server import serving
from local.figma.world import TOKEN, World
from worker.computing.pool import Pool
from worker.figma.client import Access
from worker.figma.download import AT_ONCE, Downloads
from worker.figma.jobs import Figma
from worker.figma.limiter import Limiter
from worker.handlers import Context, Done, File, Job, Stored

KEY = "manyiconsfile"
NODES, A_MINUTE, RENDER_SECONDS, IMAGE_SECONDS = 500, 10, 2.0, 0.1
NAIVE_NODES = 20  # of them: nobody waits for the rest, and the full bucket at the start flatters
POISON = "10:37"
LINK_BYTES_PER_SECOND, FILES, FILE_BYTES = 20e6, 120, 500_000
LARGE_BYTES = 200 * 1024 * 1024
MOST_SECONDS = 300


def measure() -> None:
    print(f"\n{NODES} nodes, {A_MINUTE} requests a minute of tier 1")
    print(
        f"{'':60}{'exported':>9}{'calls':>7}{'timeouts':>9}{'429s':>6}{'nodes/min':>11}{'of the limit':>13}"
    )
    for most_ids in (100, 25):
        asyncio.run(_compare(f"{most_ids} nodes a render at most", most_ids))
    asyncio.run(_compare("one node cannot be drawn", 100, POISON))
    asyncio.run(_link())
    _on_the_stack()


def _world(count: int = NODES) -> World:
    world = World(many_icons(KEY, count), limits=Limits({1: A_MINUTE, 2: 25, 3: 50}))
    world.render_seconds, world.image_seconds = RENDER_SECONDS, IMAGE_SECONDS
    return world


async def _compare(title: str, most_ids: int, *poison: str) -> None:
    """One Figma after the other, each with a full bucket: the worker, batches of 100, and one request a node."""
    for name, way in (
        ("sidejob", _ours),
        ("100 a request, no halving", _fixed),
        ("one request a node", _naive),
    ):
        world = _world()
        world.most_ids, world.poison = most_ids, set(poison)
        with serving(world):
            began = time.monotonic()
            exported = await way(world)
            minutes = (time.monotonic() - began) / 60
        calls, statuses = (
            len(world.requests(part="/images/")) + len(world.requests(part="/nodes")),
            world.statuses(),
        )
        share = exported / minutes / (A_MINUTE * most_ids)
        print(
            f"{title if way is _ours else '':33}{name:27}{exported:9}{calls:7}{statuses[400]:9}"
            f"{statuses[429]:6}{exported / minutes:11.0f}{share:13.2f}"
        )


async def _ours(world: World) -> int:
    limiter = Limiter(world.limits.per_minute)
    access = Access(world.api_url, TOKEN)
    with tempfile.TemporaryDirectory() as folder:
        async with Pool.open(2) as computing, Figma.open(access, limiter, frozenset("*"), computing) as figma:
            payload = {"file": KEY, "nodeIds": [f"10:{n}" for n in range(NODES)]}
            return len((await _export(figma, payload, Path(folder))).files)


async def _fixed(world: World) -> int:
    return await _client(world, [range(at, at + 100) for at in range(0, NODES, 100)])


async def _naive(world: World) -> int:
    return await _client(world, [range(at, at + 1) for at in range(NAIVE_NODES)])


async def _client(world: World, batches: list[range]) -> int:
    """Batches in turn, each asked for again after a 429 as Retry-After says; one that times out is lost."""
    exported = 0
    async with httpx.AsyncClient(headers={"X-Figma-Token": TOKEN}) as http:
        for batch in batches:
            ids = ",".join(f"10:{number}" for number in batch)
            while True:
                answer = await http.get(f"{world.api_url}/v1/images/{KEY}?ids={ids}")
                if answer.status_code != 429:
                    break
                await asyncio.sleep(float(answer.headers["retry-after"]))
            if answer.status_code == 200:
                urls = answer.json()["images"].values()
                exported += len(await asyncio.gather(*(http.get(url) for url in urls)))
    return exported


async def _link() -> None:
    """Downloads alone, over a link of known width."""
    print(
        f"\n{FILES} files of {FILE_BYTES:,} bytes, 100 ms each, a link of {LINK_BYTES_PER_SECOND / 1e6:.0f} MB/s"
    )
    best = FILES * FILE_BYTES / LINK_BYTES_PER_SECOND
    for name, at_once in (("one after the other", 1), (f"{AT_ONCE} at once, the worker's way", FILES)):
        world = _world(FILES)
        world.link_bytes_per_second, world.large_bytes = LINK_BYTES_PER_SECOND, FILE_BYTES
        with serving(world), tempfile.TemporaryDirectory() as folder:
            async with Pool.open(2) as computing, Downloads.open(world.api_url, computing) as downloads:
                few = asyncio.Semaphore(at_once)

                async def one(
                    number: int,
                    few: asyncio.Semaphore = few,
                    world: World = world,
                    downloads: Downloads = downloads,
                    folder: str = folder,
                ) -> None:
                    url = f"{world.images_url}/render/{KEY}/1/10%3A{number}/1.pdf"
                    async with few:
                        await downloads.fetch(url, Path(folder) / str(number), "pdf")

                began = time.monotonic()
                await asyncio.gather(*(one(number) for number in range(FILES)))
                seconds = time.monotonic() - began
        print(f"{name:36}{seconds:6.2f} s   {best / seconds:.2f} of the link   {world.most_running} at once")


async def _export(figma: Figma, payload: dict[str, Any], folder: Path) -> Done:
    """The handler alone: what it stores is forgotten."""
    now = datetime.now(UTC)

    async def store(file: File) -> Stored:
        return Stored(file.name, file.mime, 1, "00" * 32, f"x/{file.name}", file.width, file.height)

    async def ignore(*_: object, **__: object) -> Any:
        return ()

    context = Context(lambda: folder, ignore, store)
    outcome = await figma.handlers()["figma.export"](
        Job("j", "figma.export", payload, "w", 1, True, now, now), context
    )
    if not isinstance(outcome, Done):
        raise SystemExit(f"the export ended in {outcome}")
    return outcome


def _on_the_stack() -> None:
    """A worker of its own on the running stack: repeated exports, and memory while a large file goes through."""
    large = Document("onelargefile1", "Large", [page("P", Layer("1:1", "Large"))], version=_fresh())
    icons, proven = many_icons(KEY, NODES), proven_case()
    icons.version, proven.version = _fresh(), _fresh()
    world = World(large, icons, proven, limits=Limits({1: 100, 2: 100, 3: 100}))
    print()
    with serving(world), _worker(world) as (worker, executor):
        for name, payload in (
            ("the proven case", {"file": proven.key, "nodeIds": ["1:8", "1:2", "1:4"]}),
            (f"{NODES} nodes", {"file": KEY, "select": {"components": ["*"]}}),
        ):
            first, _ = _run(world, executor, payload)
            again, requests = _run(world, executor, payload)
            print(f"{name}: {first:.2f} s, and again, unchanged: {again:.2f} s, {requests} request to Figma")
        before = _peak(worker.pid)
        world.large_bytes = LARGE_BYTES
        seconds, _ = _run(world, executor, {"file": large.key, "nodeIds": ["1:1"], "formats": ["pdf"]})
        after = _peak(worker.pid)
    print(
        f"a file of {LARGE_BYTES >> 20} MiB in {seconds:.1f} s: the worker's peak went from {before >> 20} to"
        f" {after >> 20} MiB"
    )


def _fresh() -> str:
    return str(uuid.uuid4().int % 10**12)


_HOW_IT_WENT = """
select status, error, (select extract(epoch from max(created_at) - min(created_at))::float8
  from public.job_events e where e.job_id = j.id and event_type in ('job.claimed', 'job.succeeded'))
  from public.jobs j where id = %s
"""


def _run(world: World, executor: str, payload: dict[str, Any]) -> tuple[float, int]:
    """Seconds from claim to end, and how many requests Figma got."""
    world.asked.clear()
    body = {"type": "figma.export", "payload": payload, "executor_id": executor}
    job_id = fetch("POST", f"{SUPABASE_URL}/rest/v1/rpc/enqueue_job", json=body).json()["job_id"]
    deadline = time.monotonic() + MOST_SECONDS
    with database() as sql:
        while time.monotonic() < deadline:
            row = sql.execute(_HOW_IT_WENT, (job_id,)).fetchone()
            status, error, seconds = row or ("gone", None, None)
            if status == "succeeded" and isinstance(seconds, float):
                return seconds, len(world.requests())
            if status not in ("queued", "assigned", "running"):
                raise SystemExit(f"the job {status}: {error}")
            time.sleep(0.05)
    raise SystemExit("the job did not end")


@contextmanager
def _worker(world: World) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    executor = f"bench-{uuid.uuid4().hex[:12]}"
    env = os.environ
    settings = {
        **{name: env[name] for name in ("PATH", "SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "FUNCTIONS_URL")},
        "HOME": env.get("HOME", "/"),
        "WORKER_EMAIL": env["WORKER2_EMAIL"],
        "WORKER_PASSWORD": env["WORKER2_PASSWORD"],
        "EXECUTOR_ID": executor,
        "HEALTH_PORT": "0",
        "FIGMA_API_URL": world.api_url,
        "FIGMA_API_TOKEN": TOKEN,
        "FIGMA_TIER1_PER_MINUTE": "100",
    }
    worker = subprocess.Popen([sys.executable, "-m", "worker"], env=settings, stdout=subprocess.DEVNULL)
    try:
        yield worker, executor
    finally:
        worker.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(20)


def _peak(pid: int) -> int:
    """The most memory that a process has had, in bytes (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
