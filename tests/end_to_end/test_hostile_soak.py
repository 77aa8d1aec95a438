"""One job in twenty means harm: a thousand honest jobs of four workspaces on two workers all succeed."""

import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local.figma.world import TOKEN as FIGMA_TOKEN
from tests.end_to_end import hostile_server
from tests.end_to_end.own_stack import OwnStack
from tests.stack import Person, Stack
from tests.worker.processes import children, started_since
from tests.worker.running import Process
from worker.browser import memory

HONEST = 1000
WORKSPACES = 4
SECONDS = 2400.0
AT_THE_END_SECONDS = 600.0  # and nothing may be in work so long after the last honest job
MAX_LOG_CHARACTERS = 20_000_000
MAX_WORKER_BYTES = 1024**3  # of the worker's own process

pytestmark = pytest.mark.soak

Row = tuple[str, int, Any]  # the status, the attempts that were spent, the error's code

Kind = tuple[str, dict[str, Any], set[str | None]]  # type, payload, and how it may end


def shot(url: str, *codes: str | None, **options: Any) -> Kind:
    """A screenshot that may fail with these codes; None among them: it may succeed."""
    return "browser.screenshot", {"url": url, **options}, set(codes)


def content(url: str, *codes: str | None, **options: Any) -> Kind:
    """The same of what a page says."""
    return "browser.content", {"url": url, **options}, set(codes)


BAD_HTTP = ("empty_response", "connection_reset", "traffic_limit")
LINKED = "<link rel=stylesheet href=http://127.0.0.1:9/>"

HOSTILE: dict[str, Kind] = {
    "equal names": shot("/honest", "invalid_payload", shots=[{"name": "a"}, {"name": "a"}]),
    "console": shot("/console", "page_error", "browser_crashed", None),
    "console of a worker": shot("/console-worker", "page_error", "browser_crashed", None, delayMs=2000),
    "title": shot("/title", "page_error", "browser_crashed", None),
    "memory": shot("/memory", "memory_limit", "page_crashed", delayMs=5000, timeoutMs=60_000),
    "items": content("/items", "page_too_large", "page_hung", None, format="markdown", timeoutMs=60_000),
    "deep": content(
        "/deep", "page_too_large", "page_crashed", "page_hung", None, format=["html", "markdown"]
    ),
    "nul": shot("/nul", "page_error", failOnConsoleError=True),
    "nul in a script": shot("/honest", "script_error", js="throw new Error('a\\u0000b\\ud800')"),
    "globs": shot("/addresses", "page_error", None, blockUrls=["*a*a*a*a*a*a*a*b"] * 20),
    "negative chunk": shot("/negative-chunk", *BAD_HTTP),
    "interim": shot("/endless-interim", *BAD_HTTP),
    "extensions": shot("/long-extensions", *BAD_HTTP),
    "length": shot("/huge-length", *BAD_HTTP),
    "slow head": shot("/slow-head", "navigation_timeout", *BAD_HTTP, timeoutMs=4000),
    "silence": shot("/silence", "navigation_timeout", timeoutMs=4000),
    "user agent": shot("/honest", "invalid_payload", userAgent="a\r\nb: c"),
    "header template": (
        "browser.pdf",
        {"url": "/honest", "pdf": {"headerTemplate": LINKED}},
        {"invalid_payload"},
    ),
    "busy": shot("/busy", "page_hung", "navigation_timeout", delayMs=100, timeoutMs=4000),
    "dialogs": shot("/dialogs", "navigation_timeout", timeoutMs=4000),
    "windows": shot("/windows", "page_error", None, delayMs=10_000),  # in time, on a machine that is not busy
    "later": shot("/later", "http_status"),
    "an unknown type": ("browser.unheard-of", {}, set()),
}

HONEST_KINDS: list[tuple[str, dict[str, Any]]] = [
    ("browser.screenshot", {"html": "<h1>Hello</h1>", "viewport": {"width": 400, "height": 300}}),
    ("browser.screenshot", {"url": "/honest", "format": "jpeg", "viewport": {"width": 400, "height": 300}}),
    ("browser.content", {"url": "/honest", "format": ["text", "markdown"]}),
    ("browser.pdf", {"html": "<h1>Hello</h1>"}),
    ("figma.export", {"file": "u9VG9NhC6C8hVJYx8o9rpS", "nodeIds": ["1:8"]}),
]

# Payloads that the queue itself refuses, by each way in.
REFUSED: list[str] = ['{"a":' * 1500 + "1" + "}" * 1500, '{"n": ' + "9" * 5000 + "}", '{"n": [1e131071]}']


@dataclass
class Town:
    """Four workspaces with a member each, and two workers that serve all of them."""

    own: OwnStack
    stack: Stack
    origin: str
    members: dict[str, Person] = field(default_factory=dict)  # by workspace
    workers: list[Process] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)

    def settle(self, folder: Path) -> None:
        sql = self.stack.sql
        for place in range(WORKSPACES):
            workspace = str(uuid.uuid4())
            named = [workspace, f"town-{place}"]
            sql.execute("insert into public.workspaces (id, name) values (%s, %s)", named)
            self.members[workspace] = self.stack.newcomer(workspace, "member")
        for name in ("WORKER", "WORKER2"):
            for place, workspace in enumerate(self.members):
                sql.execute(
                    "insert into public.workspace_members (user_id, workspace_id, role, worker_id)"
                    " select u.id, %s, 'worker', %s from auth.users u where u.email = %s",
                    [workspace, f"{name.lower()}-{place}", self.own.env[f"{name}_EMAIL"]],
                )
            self.workers.append(self._worker(name, folder))

    def _worker(self, name: str, folder: Path) -> Process:
        env = self.own.env
        settings = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"),
            "SUPABASE_URL": env["SUPABASE_URL"], "SUPABASE_PUBLISHABLE_KEY": env["SUPABASE_PUBLISHABLE_KEY"],
            "FUNCTIONS_URL": env["FUNCTIONS_URL"],
            "WORKER_EMAIL": env[f"{name}_EMAIL"], "WORKER_PASSWORD": env[f"{name}_PASSWORD"],
            "EXECUTOR_ID": "town", "HEALTH_PORT": "0", "MAX_JOBS": "3", "LOG_LEVEL": "info",
            "BROWSER_ALLOW_ORIGINS": self.origin, "FIGMA_API_TOKEN": FIGMA_TOKEN,
            "FIGMA_API_URL": f"http://127.0.0.1:{self.own.layout.figma_port}", "FIGMA_ALLOWED_FILES": "*",
        }  # fmt: skip
        return Process(settings, folder / f"{name.lower()}.log")

    def ask(self, workspace: str, kind: str, payload: dict[str, Any], attempts: int) -> str:
        given = dict(payload)
        if str(given.get("url", "")).startswith("/"):
            given["url"] = self.origin + given["url"]
        body = {
            "type": kind,
            "payload": given,
            "executor_id": "town",
            "max_attempts": attempts,
            "backoff_seconds": 1,
        }
        answer = self.members[workspace].rest("POST", "rpc/enqueue_job", body)
        assert answer.is_success, answer.text
        row = answer.json()
        return str((row[0] if isinstance(row, list) else row)["job_id"])

    def is_refused(self, workspace: str, payload: str) -> bool:
        """By RPC and by INSERT."""
        headers = {
            "apikey": self.stack.env["SUPABASE_PUBLISHABLE_KEY"], "Content-Type": "application/json",
            **self.members[workspace].headers,
        }  # fmt: skip
        rest = f"{self.stack.env['SUPABASE_URL']}/rest/v1"
        text = '{"type": "browser.screenshot", "executor_id": "town", "payload": ' + payload + "}"
        return all(
            400 <= self.stack.http.post(f"{rest}/{way}", content=text, headers=headers).status_code < 500
            for way in ("rpc/enqueue_job", "jobs")
        )

    def look(self) -> None:
        """Reads all jobs again."""
        found = self.own.sql(
            "select id::text, status, attempts - released, error ->> 'code' from public.jobs"
            " where executor_id = 'town'"
        )
        self.rows = {job_id: (status, spent, code) for job_id, status, spent, code in found}

    def row(self, job_id: str) -> Row:
        return self.rows[job_id]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    before = children()
    with OwnStack.running("hostile", objects_bytes=200_000_000) as own, hostile_server.serving() as origin:
        town = Town(own, Stack(own.env), origin)
        try:
            town.settle(tmp_path)
            yield town
        finally:
            for worker in town.workers:
                worker.kill()
            town.stack.close()
    assert not started_since(before), "something is left"


@dataclass
class Asked:
    """What the soak asked for, by job id."""

    honest: list[str] = field(default_factory=list)
    hostile: dict[str, str] = field(default_factory=dict)  # the name of its kind

    @property
    def ending(self) -> list[str]:
        """All but those of a type that nobody knows, which stay in the queue."""
        known = [job_id for job_id, name in self.hostile.items() if HOSTILE[name][2]]
        return [*self.honest, *known]


def ask_for_all(town: Town) -> Asked:
    """One in twenty is hostile; at each of those the queue itself is also offered what it must refuse."""
    asked, chance, workspaces = Asked(), random.Random(1), list(town.members)
    for number in range(HONEST):
        kind, payload = HONEST_KINDS[number % len(HONEST_KINDS)]
        asked.honest.append(town.ask(workspaces[number % WORKSPACES], kind, payload, 3))
        if number % 20 == 10:
            name = [*HOSTILE][number // 20 % len(HOSTILE)]
            kind, payload, _ = HOSTILE[name]
            asked.hostile[town.ask(chance.choice(workspaces), kind, payload, 2)] = name
            assert town.is_refused(chance.choice(workspaces), REFUSED[number // 20 % len(REFUSED)])
    return asked


def wait_for_all(town: Town, asked: Asked) -> tuple[int, int]:
    """Returns the most memory in bytes that a worker's process took, and that it took with all below it."""
    own = tree = 0
    ends = time.monotonic() + SECONDS
    while waiting := [
        job_id for job_id in asked.ending if town.row(job_id)[0] not in ("succeeded", "failed")
    ]:
        assert time.monotonic() < ends, Counter(town.row(job_id)[0] for job_id in waiting)
        for worker in town.workers:
            assert worker.popen.poll() is None, "a worker ended"
            whole = memory.of_tree(worker.popen.pid)
            below = sum(memory.of_tree(child) for child in direct(worker.popen.pid))
            own, tree = max(own, whole - below), max(tree, whole)
        time.sleep(1)
        town.look()
    return own, tree


def test_a_thousand_honest_jobs_among_fifty_hostile_ones(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    asked = ask_for_all(town)
    town.look()
    own, tree = wait_for_all(town, asked)
    seconds = time.monotonic() - began
    lost = Counter(town.row(job_id)[1] - 1 for job_id in asked.honest)
    ends = Counter((name, *town.row(job_id)) for job_id, name in asked.hostile.items())
    logs = [worker.text() for worker in town.workers]
    said = Counter(line["message"] for worker in town.workers for line in worker.lines())
    with capsys.disabled():
        print(f"\nhostile soak: {HONEST} honest, {len(asked.hostile)} hostile jobs in {seconds:.0f} s")
        print(f"attempts lost by honest jobs: {dict(lost)}; hostile ones: {dict(ends)}")
        print(f"a worker took {own >> 20} MiB, with all below it {tree >> 20} MiB at most")
        print(f"logs have {sum(map(len, logs)):,} characters, most often {said.most_common(3)}")

    wrong = [row for row in map(town.row, asked.honest) if row[0] != "succeeded" or row[1] > 2]
    assert not wrong, Counter(wrong)
    for job_id, name in asked.hostile.items():
        status, _, code = town.row(job_id)
        if HOSTILE[name][2]:
            assert (None if status == "succeeded" else code) in HOSTILE[name][2], (name, status, code)
    deadline = time.monotonic() + AT_THE_END_SECONDS
    while any(status in ("assigned", "running") for status, _, _ in town.rows.values()):
        assert time.monotonic() < deadline, "something is still in work"
        time.sleep(1)
        town.look()
    left = {town.row(job_id)[0] for job_id, name in asked.hostile.items() if not HOSTILE[name][2]}
    assert left == {"queued"}
    assert own < MAX_WORKER_BYTES
    assert sum(map(len, logs)) < MAX_LOG_CHARACTERS


def direct(pid: int) -> set[int]:
    """The processes that this one started itself."""
    below = children(pid)
    return below - {further for child in below for further in children(child)}
