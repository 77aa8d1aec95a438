"""demo: one job from end to end, as a client of the stack lives it."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from local import commands, credentials
from local.layout import Layout, StackError
from local.supervisor import is_up

JOB_SECONDS = 90  # for the job to end
PICTURE = Path("sidejob-demo.png")
PICTURES = Path("sidejob-demo-figma")
PROVEN_CASE = {"file": "u9VG9NhC6C8hVJYx8o9rpS", "nodeIds": ["1:8", "1:2", "1:4"]}
_FINAL = ("job.succeeded", "job.dead_lettered", "job.cancelled")


def run(layout: Layout, url: str | None) -> int:
    """Takes a screenshot. Exit code 1 with the job's error when it failed."""
    payload = {"url": url or f"{layout.demo_origin}/"}
    with _client(layout) as client:
        return client.take("browser.screenshot", payload, lambda _: PICTURE)


def run_figma(layout: Layout, file: str | None, nodes: Sequence[str]) -> int:
    """Exports nodes: of the local Figma's file, or with FIGMA_API_TOKEN of any that the token sees."""
    payload: dict[str, Any] = {"file": file} if file else dict(PROVEN_CASE)
    if nodes:
        payload["nodeIds"] = list(nodes)
    if os.environ.get("FIGMA_API_TOKEN") and is_up(layout):
        print("The stack is up: its worker asks the Figma that was set when it started.", file=sys.stderr)
    with _client(layout) as client:
        return client.take("figma.export", payload, lambda name: PICTURES / name.replace("/", "-"))


@dataclass(frozen=True, slots=True)
class _Client:
    """A signed-in member, who asks for a job and fetches what comes of it."""

    http: httpx.Client
    env: Mapping[str, str]

    def take(self, job_type: str, payload: Mapping[str, Any], place: Callable[[str], Path]) -> int:
        http, functions, rest = self.http, self.env["FUNCTIONS_URL"], f"{self.env['SUPABASE_URL']}/rest/v1"
        began = time.monotonic()
        job_id = _ask(http, "POST", f"{functions}/task-assign", {"type": job_type, "payload": payload})[
            "jobId"
        ]
        print(f"job        {job_id}  {job_type} {' '.join(map(_words, payload.values()))}")
        last = ""
        for event in _events(http, rest, job_id):
            detail = event["payload"]
            shown = [
                detail[name] for name in ("step", "message", "reason") if isinstance(detail.get(name), str)
            ]
            if "total" in detail:
                shown.append(f"{detail['done']} of {detail['total']}")
            seconds = time.monotonic() - began
            print(f"  {seconds:5.2f} s  {event['event_type']} {' '.join(shown)}".rstrip(), flush=True)
            last = event["event_type"]
        (job,) = _ask(http, "GET", f"{rest}/jobs?select=status,result,error&id=eq.{job_id}")
        told = job["result"] or job["error"] or {}
        for skipped in told.get("skipped", ()):
            print(f"skipped    {skipped['nodeId']}  {skipped['reason']}")
        if last != "job.succeeded":
            print(f"The job {job['status']}: {_reason(told)}", file=sys.stderr)
            return 1
        for artifact in reversed(_ask(http, "GET", f"{functions}/artifacts-list?jobId={job_id}")["items"]):
            self._fetch(artifact, place(artifact["name"]))
        return 0

    def _fetch(self, artifact: Mapping[str, Any], target: Path) -> None:
        print(f"artifact   {artifact['path']}")
        url = f"{self.env['FUNCTIONS_URL']}/sign-artifact"
        signed = _ask(self.http, "POST", url, {"artifactId": artifact["id"]})
        print(f"signed     {signed['url']}  (for {signed['expires']} s)")
        answer = httpx.get(
            signed["url"], timeout=30, trust_env=False
        )  # whoever has the URL needs nothing else
        if answer.is_error:
            raise StackError(f"The signed URL answers {answer.status_code}: {answer.text[:300]}")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(answer.content)
        width, height = (int.from_bytes(answer.content[at : at + 4]) for at in (16, 20))  # a PNG begins so
        print(f"picture    {target.absolute()}  {len(answer.content):,} bytes  {width} × {height}")


@contextlib.contextmanager
def _client(layout: Layout) -> Iterator[_Client]:
    with (
        _stack(layout) as env,
        httpx.Client(
            headers={"apikey": env["SUPABASE_PUBLISHABLE_KEY"]}, timeout=30, trust_env=False
        ) as http,
    ):
        sign_in = f"{env['SUPABASE_URL']}/auth/v1/token?grant_type=password"
        session = _ask(http, "POST", sign_in, {"email": env["DEMO_EMAIL"], "password": env["DEMO_PASSWORD"]})
        http.headers["authorization"] = f"Bearer {session['access_token']}"
        yield _Client(http, env)


def _reason(error: Mapping[str, Any]) -> str:
    """The sentence, the code, and what there is besides."""
    details = {
        name: value for name, value in error.items() if name not in ("code", "message", "field", "skipped")
    }
    parts = [str(error.get("message", "")), f"({error.get('code', 'no error')})", str(details or "")]
    return " ".join(filter(None, parts))


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


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
