"""A worker that is run with the queue, Storage and signed URLs of the running stack."""

import hashlib
import signal
import socket

import httpx
import pytest

from tests.stack import Person
from tests.worker.jobs import Jobs, eventually
from tests.worker.processes import children, command
from tests.worker.running import Start
from tests.worker.site import Site


async def test_a_screenshot_from_the_queue_to_the_signed_url(
    start: Start, jobs: Jobs, site: Site, member: Person
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
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as http:
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


async def test_a_worker_that_is_killed_loses_nothing(start: Start, jobs: Jobs, site: Site) -> None:
    first = start()
    payload = {"url": site.url("/squares"), "delayMs": 2000}
    job_id = jobs.ask("browser.screenshot", payload, backoff_seconds=0)
    await jobs.until(job_id, "running")
    below = children(first.popen.pid)
    assert below
    first.kill()
    await eventually(lambda: not below & children())
    jobs.expire(job_id)
    start()
    row = await jobs.until(job_id, "succeeded")
    assert row["attempts"] == 2
    assert jobs.events(job_id)[3] == "lease_expired"


async def test_sigterm_hands_a_long_job_back(start: Start, jobs: Jobs, site: Site) -> None:
    worker = start(DRAIN_SECONDS="0.5")
    job_id = jobs.ask("browser.screenshot", {"url": site.url("/squares"), "delayMs": 10_000})
    await jobs.until(job_id, "running")
    worker.popen.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0
    assert (jobs.row(job_id)["status"], jobs.row(job_id)["released"]) == ("queued", 1)
    assert worker.said("drained")


async def test_a_start_that_cannot_work_says_why(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker, blind, late = (
            start(WORKER_PASSWORD="wrong-password"),
            start(BROWSER_EXECUTABLE="/bin/false"),
            start(HEALTH_PORT=str(port)),
        )
        assert [await each.ended() for each in (worker, blind, late)] == [2, 1, 1]
    assert "WORKER_PASSWORD" in worker.text()
    assert "wrong-password" not in worker.text()
    assert "BROWSER_EXECUTABLE" in blind.text()
    assert f"HEALTH_PORT {port}" in late.text()
    for each in (worker, blind, late):
        assert "Traceback" not in each.text().replace('"traceback"', "")


async def test_a_project_that_does_not_answer_is_waited_for_until_a_signal_comes(
    start: Start,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        worker = start(SUPABASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
        first = await eventually(lambda: worker.said("worker 0.1.0") or False)
        base = f"http://127.0.0.1:{first['healthPort']}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as http:
            assert (await http.get("/healthz")).status_code == 200
            state = await http.get("/readyz")
            assert (state.status_code, state.json()["browser"], state.json()["queue"]) == (503, True, False)
            assert "sidejob_worker_ready 0" in (await http.get("/metrics")).text
        silent.close()
        await eventually(lambda: "the project does not answer yet" in worker.text())
        worker.popen.send_signal(signal.SIGTERM)
        assert await worker.ended() == 0


@pytest.mark.parametrize("computes", [True, False])
async def test_a_signal_while_the_browser_starts_ends_the_worker_and_the_browser(
    start: Start, computes: bool
) -> None:
    """The process that computes comes first."""
    worker = start()
    await eventually(
        lambda: [
            pid for pid in children(worker.popen.pid) if computes or "worker.computing" not in command(pid)
        ],
        60,
    )
    worker.popen.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0
    assert "Traceback" not in worker.text()


async def test_a_worker_whose_membership_is_taken_away_waits_for_it_to_come_back(
    start: Start, jobs: Jobs, member: Person
) -> None:
    worker = start()
    base = await worker.ready()

    def ready() -> bool:
        return httpx.get(f"{base}/readyz", trust_env=False, timeout=60).status_code == 200

    change = "update public.workspace_members set role = %s, worker_id = %s where user_id = (select id from auth.users where email = %s)"
    email = member.stack.env["WORKER2_EMAIL"]
    member.stack.sql.execute(change, ["viewer", None, email])
    try:
        await eventually(lambda: not ready())
    finally:
        member.stack.sql.execute(change, ["worker", "local-worker-2", email])
    await eventually(ready)
    assert worker.popen.poll() is None
    job_id = jobs.ask("browser.screenshot", {"html": "<p>back</p>"})
    await jobs.until(job_id, "succeeded")
