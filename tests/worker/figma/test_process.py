"""Figma jobs as they are run: a worker's process, the queue, Storage and signed URLs of the running stack."""

import asyncio
import hashlib
import io
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from local.figma import pictures
from local.figma.documents import many_icons, proven_case
from local.figma.server import serving
from local.figma.world import TOKEN, Answer, World
from tests.functions.test_dead_letters import sweep
from tests.stack import Person, Stack
from tests.worker.figma.conftest import KEY
from tests.worker.gate import Gate, gate_to
from tests.worker.jobs import Jobs, eventually
from tests.worker.running import Start, workers

LARGE = "threehundredicons"
PROVEN = {"file": KEY, "nodeIds": ["1:8", "1:2", "1:4"]}


@pytest.fixture
def own_world() -> Iterator[World]:
    """A Figma in real minutes, with room for the tests' requests."""
    world = World(proven_case(), many_icons("manyiconsfile", 150), many_icons(LARGE, 300))
    world.limits.per_minute = {1: 100, 2: 100, 3: 100}
    for document in world.documents.values():  # what earlier tests have exported is in the workspace's cache
        document.version = str(uuid.uuid4().int % 10**12)
    with serving(world):
        yield world


@pytest.fixture
def start(member: Person, jobs: Jobs, own_world: World, tmp_path: Path) -> Iterator[Start]:
    """Starts workers that know `FIGMA_API_URL` and the token."""
    with workers(
        member,
        jobs,
        tmp_path,
        LEASE_SECONDS="15",
        FIGMA_API_URL=own_world.api_url,
        FIGMA_API_TOKEN=TOKEN,
        FIGMA_TIER1_PER_MINUTE="100",
    ) as start:
        yield start


async def finished(jobs: Jobs, job_id: str) -> dict[str, Any]:
    row = await jobs.until(job_id, "succeeded", "failed")
    assert row["status"] == "succeeded", row["error"]
    return row


async def test_the_proven_case_from_the_queue_to_the_signed_urls(
    start: Start, jobs: Jobs, own_world: World
) -> None:
    worker = start()
    job_id = jobs.ask("figma.export", PROVEN)
    row = await finished(jobs, job_id)
    artifacts = {one["name"]: one for one in jobs.artifacts(job_id)}
    assert list(artifacts) == ["Footer.png", "Hero.png", "Pricing.png"]
    for item in row["result"]["items"]:
        artifact = artifacts[item["artifact"]]
        data = jobs.bytes_of(artifact["id"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["size"], artifact["sha256"])
        image = Image.open(io.BytesIO(data))
        assert image.size == (artifact["width"], artifact["height"]) == (item["width"], item["height"])
        version = own_world.documents[KEY].version
        assert image.getpixel((5, 5)) == pictures.colour(KEY, item["nodeId"], version)
    assert jobs.events(job_id)[-1] == "succeeded"

    worker.popen.send_signal(signal.SIGTERM)
    assert worker.popen.wait(60) == 0
    assert TOKEN not in worker.text()


@pytest.mark.parametrize("nodes", [4, pytest.param(300, marks=pytest.mark.soak)])
async def test_an_export_that_is_repeated_moves_no_bytes_and_keeps_its_files_when_the_first_job_goes(
    start: Start, jobs: Jobs, own_world: World, stack: Stack, worker: Person, nodes: int
) -> None:
    payload = {"file": LARGE, "nodeIds": [f"10:{number}" for number in range(nodes)]}
    with gate_to(stack.env["SUPABASE_URL"]) as gate:
        process = start(SUPABASE_URL=gate.url)
        first = jobs.ask("figma.export", payload)
        await finished(jobs, first)
        await eventually(lambda: "task-result" in requests_of_a_job(gate))
        assert len([path for path in gate.passed if path.startswith("/storage/")]) == nodes
        own_world.asked.clear()
        gate.passed.clear()
        again = jobs.ask("figma.export", payload)
        row = await finished(jobs, again)
        assert [asked.path for asked in own_world.asked] == [f"/v1/files/{LARGE}/meta"]
        await eventually(lambda: "task-result" in requests_of_a_job(gate))
        assert requests_of_a_job(gate) == ["artifacts", "jobs", "report_progress", "task-result"]
        process.kill()
    assert row["result"]["counts"] == {"exported": nodes, "skipped": 0, "fromCache": nodes}
    before = {one["name"]: one for one in jobs.artifacts(first)}
    shared = jobs.artifacts(again)
    assert [one["path"] for one in shared] == [before[one["name"]]["path"] for one in shared]

    remove(stack, worker, first)
    assert jobs.artifacts(first) == []
    sizes = {item["artifact"]: (item["width"], item["height"]) for item in row["result"]["items"]}
    for one in shared:
        data = jobs.bytes_of(one["id"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one["size"], one["sha256"])
        image = Image.open(io.BytesIO(data))
        image.load()
        assert image.size == (one["width"], one["height"]) == sizes[one["name"]]
    assert stored(stack, shared) == nodes
    remove(stack, worker, again)
    assert stored(stack, shared) == 0


def requests_of_a_job(gate: Gate) -> list[str]:
    """What the worker asked of the project, but for what it asks without a job, too."""
    names = (path.partition("?")[0].rpartition("/")[2] for path in gate.passed if "/realtime/" not in path)
    idle = (
        *("claim_jobs", "worker_heartbeat", "token", "artifacts-sweep", "renew_lease"),
        *("release_expired_leases", "settle_dependencies", "run_schedules"),
        *("remove_old_jobs", "remove_leftovers", "begin_object_sweep"),
    )
    return sorted(name for name in names if name not in idle)


def remove(stack: Stack, worker: Person, job_id: str) -> None:
    """By retention, and what it leaves in Storage by the sweep."""
    ended = "update public.jobs set finished_at = now() - interval '400 days' where id = %s"
    stack.sql.execute(ended, [job_id])
    while stack.count("public.jobs", id=job_id):
        assert worker.rest("POST", "rpc/remove_old_jobs", {}).is_success
    sweep(worker)


def stored(stack: Stack, artifacts: list[dict[str, Any]]) -> int:
    question = "select count(*) as n from storage.objects where name = any(%s)"
    (row,) = stack.sql.execute(question, [[one["path"] for one in artifacts]]).fetchall()
    return int(row["n"])


@pytest.mark.parametrize("functions", [{}, {"FUNCTIONS_URL": "http://127.0.0.1:9"}], ids=["served", "absent"])
async def test_a_file_that_was_to_be_shared_and_is_gone_is_made_anew_in_the_same_attempt(
    start: Start, jobs: Jobs, own_world: World, stack: Stack, functions: dict[str, str]
) -> None:
    worker = start(**functions)
    first = jobs.ask("figma.export", {"file": KEY, "nodeIds": ["1:2", "1:4"]})
    await finished(jobs, first)
    stack.sql.execute("set storage.allow_delete_query = 'true'")
    (hero,) = (one for one in jobs.artifacts(first) if one["name"] == "Hero.png")
    stack.sql.execute("delete from storage.objects where name = %s", [hero["path"]])
    own_world.asked.clear()
    again = jobs.ask("figma.export", PROVEN)
    row = await finished(jobs, again)
    assert (row["attempts"], row["result"]["counts"]["fromCache"]) == (1, 0)
    assert jobs.events(again)[-1] == "succeeded"
    assert "retry_scheduled" not in jobs.events(again)
    asked = [one.ids for one in own_world.requests(part="/v1/images/")]
    assert [set(ids) for ids in asked] == [{"1:8"}, {"1:2", "1:4"}], (
        "what it had stored itself is not made twice"
    )
    for one in jobs.artifacts(again):
        assert f"/{again}/" in one["path"]
        assert len(jobs.bytes_of(one["id"])) == one["size"]
    assert "artifact_gone" in worker.text()


@pytest.mark.soak
async def test_another_workspace_gets_nothing_of_this_ones(
    start: Start, jobs: Jobs, own_world: World
) -> None:
    start()
    job_id = jobs.ask("figma.export", PROVEN)
    await finished(jobs, job_id)
    jobs.move(job_id, "OTHER")
    own_world.asked.clear()
    await finished(jobs, jobs.ask("figma.export", PROVEN))
    assert len(own_world.requests(part="/v1/images/")) == 1, "rendered anew"


@pytest.mark.soak
async def test_a_killed_workers_job_goes_on_where_it_was(start: Start, jobs: Jobs, own_world: World) -> None:
    own_world.answers.append(Answer("/v1/images/", 200, b"{}", after=1, hang_seconds=600))
    first = start(FIGMA_TIMEOUT_SECONDS="600")
    job_id = jobs.ask("figma.export", {"file": "manyiconsfile", "select": {"components": ["*"]}})

    def kept() -> int:
        return len((jobs.row(job_id)["checkpoint"] or {}).get("kept", ()))

    await eventually(lambda: kept() >= 40)
    first.kill()
    stored = kept()
    own_world.answers.clear()
    own_world.asked.clear()
    jobs.expire(job_id)
    start()
    row = await finished(jobs, job_id)
    asked = [node for one in own_world.requests(part="/v1/images/") for node in one.ids]
    assert len(asked) == 150 - stored
    assert row["result"]["counts"] == {"exported": 150, "skipped": 0, "fromCache": 0, "resumed": stored}
    artifacts = jobs.artifacts(job_id)
    assert len({one["name"] for one in artifacts}) == len(artifacts) == 150
    assert {one["path"].split("/")[5] for one in artifacts} == {"1", "2"}
    assert [len(jobs.bytes_of(one["id"])) for one in artifacts[:3]] == [one["size"] for one in artifacts[:3]]


@pytest.mark.soak
async def test_a_rate_limit_hands_the_job_back_without_costing_an_attempt(
    start: Start, jobs: Jobs, own_world: World
) -> None:
    said = {"Retry-After": "90", "X-Figma-Plan-Tier": "pro"}
    own_world.answers.append(
        Answer("/v1/images/", 429, b'{"status": 429, "err": "Rate limit exceeded"}', said)
    )
    start()
    job_id = jobs.ask("figma.export", PROVEN)
    row = await eventually(lambda: (found := jobs.row(job_id))["released"] == 1 and found)
    assert (row["status"], row["attempts"]) == ("queued", 1)
    assert "released" in jobs.events(job_id)
    assert len(own_world.requests(part="/v1/images/")) == 1


@pytest.mark.soak
async def test_cancelling_stops_the_work_in_the_middle(start: Start, jobs: Jobs, own_world: World) -> None:
    own_world.image_seconds = 0.5
    worker = start()
    job_id = jobs.ask("figma.export", {"file": "manyiconsfile", "select": {"components": ["*"]}})
    await eventually(lambda: own_world.requests("images"))
    jobs.cancel(job_id)
    await eventually(lambda: '"outcome": "cancelled"' in worker.text())
    seen = len(own_world.requests("images"))
    await asyncio.sleep(0)
    assert seen < 150
    assert jobs.artifacts(job_id) == []
