"""demo: one job from end to end, as a client of the stack lives it."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from local import commands, credentials
from local.layout import Layout, StackError
from local.supervisor import is_up

JOB_SECONDS = 90  # for the job to end
PICTURE = Path("sidejob-demo.png")
_FINAL = ("job.succeeded", "job.dead_lettered", "job.cancelled")


def run(layout: Layout, url: str | None) -> int:
    """Exit code 1 with the job's error when it failed."""
    with _stack(layout) as env:
        target = url or f"{layout.demo_origin}/"
        with httpx.Client(
            headers={"apikey": env["SUPABASE_PUBLISHABLE_KEY"]}, timeout=30, trust_env=False
        ) as http:
            return _take(http, env, target)


def _take(http: httpx.Client, env: Mapping[str, str], target: str) -> int:
    session = _ask(
        http,
        "POST",
        f"{env['SUPABASE_URL']}/auth/v1/token?grant_type=password",
        {"email": env["DEMO_EMAIL"], "password": env["DEMO_PASSWORD"]},
    )
    http.headers["authorization"] = f"Bearer {session['access_token']}"
    functions, rest = env["FUNCTIONS_URL"], f"{env['SUPABASE_URL']}/rest/v1"
    began = time.monotonic()
    job_id = _ask(
        http, "POST", f"{functions}/task-assign", {"type": "browser.screenshot", "payload": {"url": target}}
    )["jobId"]
    print(f"job        {job_id}  browser.screenshot {target}")
    last = ""
    for event in _events(http, rest, job_id):
        detail = event["payload"]
        note = " ".join(
            str(detail[name]) for name in ("step", "message", "reason") if isinstance(detail.get(name), str)
        )
        print(f"  {time.monotonic() - began:5.2f} s  {event['event_type']} {note}".rstrip(), flush=True)
        last = event["event_type"]
    if last != "job.succeeded":
        (job,) = _ask(http, "GET", f"{rest}/jobs?select=status,error&id=eq.{job_id}")
        print(f"The job {job['status']}: {job['error']}", file=sys.stderr)
        return 1
    artifact = _ask(http, "GET", f"{functions}/artifacts-list?jobId={job_id}")["items"][0]
    print(f"artifact   {artifact['path']}")
    signed = _ask(http, "POST", f"{functions}/sign-artifact", {"artifactId": artifact["id"]})
    print(f"signed     {signed['url']}  (for {signed['expires']} s)")
    answer = httpx.get(signed["url"], timeout=30, trust_env=False)  # whoever has the URL needs nothing else
    if answer.is_error:
        raise StackError(f"The signed URL answers {answer.status_code}: {answer.text[:300]}")
    PICTURE.write_bytes(answer.content)
    width, height = (int.from_bytes(answer.content[at : at + 4]) for at in (16, 20))  # a PNG begins so
    print(f"picture    {PICTURE.absolute()}  {len(answer.content):,} bytes  {width} × {height}")
    return 0


def _events(http: httpx.Client, rest: str, job_id: str) -> Iterator[dict[str, Any]]:
    """The job's events in order until the last. Raises StackError when it does not end in time."""
    seen, deadline = 0, time.monotonic() + JOB_SECONDS
    while time.monotonic() < deadline:
        query = f"select=seq,event_type,payload&job_id=eq.{job_id}&seq=gt.{seen}&order=seq"
        for event in _ask(http, "GET", f"{rest}/job_events?{query}"):
            seen = event["seq"]
            yield event
            if event["event_type"] in _FINAL:
                return
        time.sleep(0.1)
    raise StackError(
        f"The job did not end within {JOB_SECONDS} s. Does a worker run? See ./local.sh status, logs worker-0"
    )


def _ask(http: httpx.Client, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
    try:
        answer = http.request(method, url, json=body)
    except httpx.HTTPError as error:
        raise StackError(f"{method} {url}: {str(error) or type(error).__name__}") from error
    if answer.is_error:
        raise StackError(f"{method} {answer.url.path} answers {answer.status_code}: {answer.text[:500]}")
    return answer.json()


@contextlib.contextmanager
def _stack(layout: Layout) -> Iterator[dict[str, str]]:
    """The running stack; else one that is stopped at the end."""
    if is_up(layout):
        yield credentials.load(layout.env_file)
        return
    print("starting the stack …", flush=True)
    commands.up_detached(layout)
    try:
        yield credentials.load(layout.env_file)
    finally:
        commands.stop(layout)
