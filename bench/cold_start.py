"""What the first answer of a function costs: the CPU time of all its processes, beside an empty function."""

import os
import random
import shlex
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.stack import FUNCTIONS_URL, SUPABASE_URL, fetch, member_headers
from deploy.stage import compile_bytecode, serving, stage, target

ROUNDS = 12
EMPTY = {
    "hello": "def hello(request):\n    return 'hello'\n",
    "hello_asgi": "from functions_framework import aio\n\n\n@aio.http\nasync def hello_asgi(request):\n    return 'hello'\n",
}


@dataclass(frozen=True)
class Start:
    """One function, and the request that needs all of it."""

    folder: Path
    name: str
    beside: str  # the empty function that it is compared with
    ask: Callable[[httpx.Client, str], httpx.Response]

    def cost(self) -> float:
        """Seconds of CPU from the start of its process to its first answer."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = serving(self.folder, self.name, port)
        env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | _settings()
        with subprocess.Popen(command, cwd=self.folder, env=env, stdout=subprocess.DEVNULL) as process:
            try:
                with httpx.Client(timeout=60, trust_env=False) as http:
                    _wait_for(port)
                    answer = self.ask(http, f"http://127.0.0.1:{port}/")
                    seconds = _spent(process.pid)
                assert answer.status_code == 200, answer.text
                return seconds
            finally:
                process.terminate()  # gunicorn takes its worker along


def measure() -> None:
    with tempfile.TemporaryDirectory() as into:
        starts = {start.name: start for start in _starts(Path(into))}
        seconds: dict[str, list[float]] = {name: [] for name in starts}
        for start in starts.values():
            start.cost()  # reads the packages into the page cache, and their bytecode onto the disk
        for _ in range(ROUNDS):
            for name in random.sample(list(starts), len(starts)):
                seconds[name].append(starts[name].cost())
    print(
        f"\nfirst answer, ms of CPU, {ROUNDS} rounds in turns\n{'':24}{'median':>9}{'least':>9}{'ratio':>9}{'of least':>10}"
    )
    for name, start in starts.items():
        mine, empty = seconds[name], seconds[start.beside]
        ratios = statistics.median(mine) / statistics.median(empty), min(mine) / min(empty)
        print(
            f"{name:24}{statistics.median(mine) * 1000:9.0f}{min(mine) * 1000:9.0f}{ratios[0]:9.2f}{ratios[1]:10.2f}"
        )


def _starts(into: Path) -> list[Start]:
    found = []
    for name, source in EMPTY.items():
        (into / name).mkdir()
        (into / name / "main.py").write_text(source)
        found.append(Start(into / name, name, name, lambda http, url: http.get(url)))
    headers = member_headers()
    job = {"type": "bench.cold", "executorId": "bench-cold"}

    def read(http: httpx.Client, url: str) -> httpx.Response:
        return http.get(url, headers=headers)

    def write(http: httpx.Client, url: str) -> httpx.Response:
        return http.post(url, headers=headers, json=job)

    def follow(http: httpx.Client, url: str) -> httpx.Response:
        return http.head(f"{url}?id={job_id}", headers=headers)

    job_id = fetch("POST", f"{FUNCTIONS_URL}/task-assign", json=job).json()["jobId"]
    asked = {"jobs-recent": read, "metrics-overview": read, "workers-active": read, "task-assign": write}
    for function, ask in asked.items():
        found.append(Start(stage(function, into), target(function), "hello", ask))
    found.append(Start(stage("job-events", into), "job_events", "hello_asgi", follow))
    for start in found:
        compile_bytecode(start.folder)
    return found


def _settings() -> dict[str, str]:
    words = shlex.split(Path(os.environ["SIDEJOB_TEST_ENV"]).read_text(), comments=True)
    env = dict(word.split("=", 1) for word in words if "=" in word)
    wanted = ("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_JWT_SECRET")
    return {"SUPABASE_URL": SUPABASE_URL, **{name: env[name] for name in wanted}, "THREADS": "16"}


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError("the function does not listen")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]


def _spent(pid: int) -> float:
    """By the scheduler's own count: /proc/<pid>/schedstat is that of the first thread alone, so all are added."""
    tasks = [task for member in _family(pid) for task in Path(f"/proc/{member}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
