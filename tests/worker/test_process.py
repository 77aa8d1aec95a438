"""`python -m worker` as it is run: a process with its environment, its log, its signals."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack import Person
from tests.worker.jobs import Jobs, eventually
from tests.worker.processes import children
from tests.worker.site import Site


class Process:
    """A running worker: its log lines and its health port."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "worker"], env=env, stdout=output, stderr=output
            )

    def text(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines() if line.endswith("}")]

    def said(self, message: str) -> dict[str, Any] | None:
        return next((line for line in self.lines() if line["message"] == message), None)

    async def ready(self) -> str:
        """Returns the health port's address."""
        first = await eventually(lambda: self.said("worker 0.1.0") or False, 60)
        base = f"http://127.0.0.1:{first['healthPort']}"
        await eventually(lambda: httpx.get(f"{base}/readyz", trust_env=False).status_code == 200, 60)
        return base

    async def ended(self, seconds: float = 20) -> int:
        await eventually(lambda: self.popen.poll() is not None, seconds)
        return self.popen.returncode


@pytest.fixture
def jobs(member: Person) -> Jobs:
    return Jobs(member)


@pytest.fixture
def start(member: Person, jobs: Jobs, site: Site, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts workers; none of them, and nothing that they started, may be left at the end."""
    env, before = member.stack.env, children()
    started: list[Process] = []

    def process(**changes: str) -> Process:
        settings = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"),
            "SUPABASE_URL": env["SUPABASE_URL"], "SUPABASE_PUBLISHABLE_KEY": env["SUPABASE_PUBLISHABLE_KEY"],
            "WORKER_EMAIL": env["WORKER2_EMAIL"], "WORKER_PASSWORD": env["WORKER2_PASSWORD"],
            "EXECUTOR_ID": jobs.executor, "BROWSER_ALLOW_ORIGINS": site.origin, "HEALTH_PORT": "0",
            "POLL_SECONDS": "0.2", "SWEEP_SECONDS": "1", "LOG_LEVEL": "debug", **changes,
        }  # fmt: skip
        started.append(Process(settings, tmp_path / f"{len(started)}.log"))
        return started[-1]

    yield process
    for each in started:
        if each.popen.poll() is None:
            each.popen.kill()
            each.popen.wait()
    assert children() <= before, "a worker left processes behind"


async def test_a_screenshot_from_the_queue_to_the_signed_url(
    start: Callable[..., Process], jobs: Jobs, site: Site, member: Person
) -> None:
    worker = start(BROWSER_FORCE_SUCCESS="true")
    job_id = jobs.ask(
        "browser.screenshot",
        {
            "url": site.url("/squares"), "name": "시안.png", "headers": {"X-Token": "header-secret"},
            "cookies": [{"name": "c", "value": "cookie-secret", "url": site.origin}],
        },
    )  # fmt: skip
    row = await jobs.until(job_id, "succeeded", "failed")
    assert row["status"] == "succeeded", row["error"]
    assert jobs.events(job_id) == ["queued", "claimed", "started", "succeeded"]
    (artifact,) = jobs.artifacts(job_id)
    assert (artifact["name"], artifact["width"], artifact["height"]) == ("시안.png", 1280, 720)
    assert artifact["path"].endswith(f"/{job_id}/1/__.png")
    data = jobs.bytes_of(artifact["id"])
    assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["size"], artifact["sha256"])
    assert (row["result"]["action"], row["result"]["fallback"]) == ("screenshot", False)
    assert {"queueMs", "navigateMs", "captureMs", "uploadMs", "totalMs"} <= row["result"]["timings"].keys()

    refused = jobs.ask("browser.screenshot", {"url": "http://169.254.169.254/latest/meta-data/"})
    assert (await jobs.until(refused, "failed"))["error"]["code"] == "blocked_address"

    base = await worker.ready()
    async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
        metrics = (await http.get("/metrics")).text
        assert 'sidejob_worker_jobs_total{outcome="succeeded",type="browser.screenshot"} 1' in metrics
        assert "sidejob_worker_browser_starts_total 1" in metrics
        assert (await http.get("/healthz")).status_code == 200

    forced = jobs.ask("browser.screenshot", {"url": site.url("/status/404")})
    told = (await jobs.until(forced, "succeeded", "failed"))["result"]
    assert told["fallback"] is True, "what is no success does not look like one"
    assert (told["error"]["code"], told["error"]["status"]) == ("http_status", 404)
    (artifact,) = jobs.artifacts(forced)
    assert (artifact["name"], artifact["width"], artifact["height"]) == ("fallback.png", 1, 1)

    worker.popen.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0
    lines = worker.lines()
    assert len(lines) == len(worker.text().splitlines()), "every line is JSON"
    assert {line["jobId"] for line in lines if line["message"] == "claimed"} == {job_id, refused, forced}
    env = member.stack.env
    secrets = [
        env["WORKER2_PASSWORD"],
        env["SUPABASE_PUBLISHABLE_KEY"],
        "header-secret",
        "cookie-secret",
        "eyJ",
    ]
    assert not [secret for secret in secrets if secret in worker.text()]
    assert "lease_token" not in worker.text()


async def test_a_worker_that_is_killed_loses_nothing(
    start: Callable[..., Process], jobs: Jobs, site: Site
) -> None:
    first = start()
    payload = {"url": site.url("/squares"), "delayMs": 2000}
    job_id = jobs.ask("browser.screenshot", payload, backoff_seconds=0)
    await jobs.until(job_id, "running")
    below = children(first.popen.pid)
    assert below
    first.popen.kill()
    first.popen.wait()
    await eventually(lambda: not below & children())
    jobs.expire(job_id)
    start()
    row = await jobs.until(job_id, "succeeded")
    assert row["attempts"] == 2
    assert jobs.events(job_id)[3] == "lease_expired"


async def test_sigterm_hands_a_long_job_back(start: Callable[..., Process], jobs: Jobs, site: Site) -> None:
    worker = start(DRAIN_SECONDS="0.5")
    job_id = jobs.ask("browser.screenshot", {"url": site.url("/squares"), "delayMs": 10_000})
    await jobs.until(job_id, "running")
    worker.popen.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0
    assert (jobs.row(job_id)["status"], jobs.row(job_id)["released"]) == ("queued", 1)
    assert worker.said("drained")


async def test_a_start_that_cannot_work_says_why(start: Callable[..., Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker, blind, late = (
            start(WORKER_PASSWORD="wrong-password"),
            start(BROWSER_EXECUTABLE="/bin/false"),
            start(HEALTH_PORT=str(port)),
        )
        assert [await each.ended(60) for each in (worker, blind, late)] == [2, 1, 1]
    assert "WORKER_PASSWORD" in worker.text()
    assert "wrong-password" not in worker.text()
    assert "BROWSER_EXECUTABLE" in blind.text()
    assert f"HEALTH_PORT {port}" in late.text()
    for each in (worker, blind, late):
        assert "Traceback" not in each.text().replace('"traceback"', "")


async def test_a_project_that_does_not_answer_is_waited_for_until_a_signal_comes(
    start: Callable[..., Process],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        worker = start(SUPABASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
        first = await eventually(lambda: worker.said("worker 0.1.0") or False, 60)
        base = f"http://127.0.0.1:{first['healthPort']}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
            assert (await http.get("/healthz")).status_code == 200
            state = await http.get("/readyz")
            assert (state.status_code, state.json()["browser"], state.json()["queue"]) == (503, True, False)
            assert "sidejob_worker_ready 0" in (await http.get("/metrics")).text
        silent.close()
        await eventually(lambda: "the project does not answer yet" in worker.text(), 30)
        worker.popen.send_signal(signal.SIGTERM)
        assert await worker.ended() == 0


async def test_a_signal_while_the_browser_starts_ends_the_worker_and_the_browser(
    start: Callable[..., Process],
) -> None:
    worker = start()
    await eventually(lambda: children(worker.popen.pid), 20)
    worker.popen.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0
    assert "Traceback" not in worker.text()


async def test_a_worker_whose_membership_is_taken_away_waits_for_it_to_come_back(
    start: Callable[..., Process], jobs: Jobs, member: Person
) -> None:
    worker = start()
    base = await worker.ready()

    def ready() -> bool:
        return httpx.get(f"{base}/readyz", trust_env=False).status_code == 200

    change = "update public.workspace_members set role = %s, worker_id = %s where user_id = (select id from auth.users where email = %s)"
    email = member.stack.env["WORKER2_EMAIL"]
    member.stack.sql.execute(change, ["viewer", None, email])
    try:
        await eventually(lambda: not ready(), 20)
    finally:
        member.stack.sql.execute(change, ["worker", "local-worker-2", email])
    await eventually(ready, 60)
    assert worker.popen.poll() is None
    job_id = jobs.ask("browser.screenshot", {"html": "<p>back</p>"})
    await jobs.until(job_id, "succeeded", seconds=40)
