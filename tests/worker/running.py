"""`python -m worker` as it is run: a process with its environment, its log, its signals."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.stack import Person
from tests.worker.jobs import Jobs, eventually
from tests.worker.processes import children, started_since


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
        first = await eventually(lambda: self.said("worker 0.1.0") or False)
        base = f"http://127.0.0.1:{first['healthPort']}"
        await eventually(lambda: httpx.get(f"{base}/readyz", trust_env=False, timeout=60).status_code == 200)
        return base

    async def ended(self, seconds: float = 240) -> int:
        await eventually(lambda: self.popen.poll() is not None, seconds)
        return self.popen.returncode

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


Start = Callable[..., Process]  # with changes of its settings


@contextmanager
def workers(person: Person, jobs: Jobs, folder: Path, **known: str) -> Iterator[Start]:
    """Starts workers that know these settings; none of them, and nothing that they started, may be left at the end."""
    env, before, started = person.stack.env, children(), list[Process]()

    def start(**changes: str) -> Process:
        settings = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"),
            "SUPABASE_URL": env["SUPABASE_URL"], "SUPABASE_PUBLISHABLE_KEY": env["SUPABASE_PUBLISHABLE_KEY"],
            "WORKER_EMAIL": env["WORKER2_EMAIL"], "WORKER_PASSWORD": env["WORKER2_PASSWORD"],
            "EXECUTOR_ID": jobs.executor, "HEALTH_PORT": "0", "POLL_SECONDS": "0.2", "SWEEP_SECONDS": "1",
            "LOG_LEVEL": "debug", **known, **changes,
        }  # fmt: skip
        started.append(Process(settings, folder / f"{len(started)}.log"))
        return started[-1]

    yield start
    for each in started:
        if each.popen.poll() is None:
            each.kill()
    assert not started_since(before), "a worker left processes behind"
