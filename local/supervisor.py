"""`up`: one process that owns all the others, keeps them running and stops them in order."""

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psycopg

from deploy.stage import compile_bytecode, functions_in_repository, stage
from local import credentials, migrations, postgres, programs, provision
from local.children import Child, Program, end_leftovers
from local.layout import Layout, StackError, refuse_taken_ports
from local.setup import REPOSITORY

START_SECONDS = 180  # for one group of programs to answer, on a machine that has much else to do
_SQL = Path(__file__).parent / "sql"


class Stopped(Exception):
    """SIGTERM or Ctrl-C came while the stack was starting."""


class Supervisor:
    """`tied`: also stops when its standard input ends, as a pipe does with the process at its other end."""

    def __init__(self, layout: Layout, *, tied: bool = False) -> None:
        self.layout = layout
        self._tied = tied
        self.children: list[Child] = []  # in starting order
        self.ready = False
        self._told = False  # to stop

    def run(self) -> int:
        """Starts everything, stays until told to stop. Raises StackError when it cannot start."""
        self.layout.logs.mkdir(parents=True, exist_ok=True)
        with _OnlyOne(self.layout):
            for name in end_leftovers(read_state(self.layout).get("children", [])):
                self.say(f"ended {name}, left behind by an earlier stack")
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
            began = time.monotonic()
            try:
                self._start_all()
                self.ready = True
                self.say(
                    f"ready in {time.monotonic() - began:.1f} s: {self.layout.url}"
                    f" (sign-ins: {self.layout.env_file})"
                )
                self._note()  # whoever waits for it shows what was said
                while not self.stopping:
                    self._tend()
                    time.sleep(0.2)
            except Stopped:
                pass
            finally:
                self._stop_all()
        return 0

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    @property
    def stopping(self) -> bool:
        return self._told or (self._tied and bool(select.select([sys.stdin], [], [], 0)[0]))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True

    def _start_all(self) -> None:
        layout = self.layout
        names = functions_in_repository()
        ports = programs.function_ports(layout, names)
        env = credentials.prepare(layout)
        groups = [
            [
                programs.objects(layout),
                programs.figma(layout),
                programs.realtime(layout, env),
                programs.gateway(layout, env, ports),
            ]
        ]
        folders = _staged(names, layout.home / "functions")
        groups.append([programs.function(env, name, port, folders[name]) for name, port in ports.items()])
        groups.append([programs.worker(layout, env, index) for index in range(layout.workers)])
        database = programs.database(layout, env)
        every = [database, *(program for group in groups for program in group)]
        refuse_taken_ports((program.name, port) for program in every for port in program.ports)

        postgres.initialise(layout, env["POSTGRES_PASSWORD"])
        self._start([database])
        _prepare_database(env["SUPABASE_DB_URL"], layout.default_grants)
        # The gateway makes the schemas auth and storage, which migrations refer to.
        serving, functions, workers = groups
        self._start(serving)
        for name in migrations.apply(env["SUPABASE_DB_URL"], REPOSITORY / "supabase" / "migrations"):
            self.say(f"applied {name}")
        self._start(functions, wait=False)
        provision.people_and_workspaces(env)
        self._wait(functions)
        self._start(workers)

    def _start(self, wanted: Sequence[Program], *, wait: bool = True) -> None:
        for program in wanted:
            child = Child(program, self.layout.logs / f"{program.name}.log")
            self.children.append(child)
            child.start()
            self._note()
        if wait:
            self._wait(wanted)

    def _wait(self, wanted: Sequence[Program]) -> None:
        """Until each answers. Raises StackError with the log's end of the first that does not."""
        waiting = [child for child in self.children if child.program in wanted]
        deadline = time.monotonic() + START_SECONDS
        while waiting:
            if self.stopping:
                raise Stopped
            self._tend()
            waiting = [child for child in waiting if not (child.alive and child.program.is_ready())]
            hopeless = next((child for child in waiting if child.failures >= 3), None)
            if hopeless or (waiting and time.monotonic() > deadline):
                child = hopeless or waiting[0]
                raise StackError(
                    f"{child.program.name} does not come up. {child.log} ends with:\n{tail(child.log, 20)}"
                )
            if waiting:
                time.sleep(0.05)

    def _tend(self) -> None:
        """Starts again what has ended."""
        for child in self.children:
            if child.alive:
                continue
            if child.process is not None:
                code = child.process.returncode
                pause = child.note_end()
                child.stop()
                self.say(
                    f"{child.program.name} ended ({_reason(code)}), starting it again in {pause:g} s;"
                    f" see {child.log}"
                )
                self._note()
            elif time.monotonic() >= child.again_at:
                child.start()
                self._note()

    def _stop_all(self) -> None:
        """Workers first, so that they can hand back their jobs; Postgres last."""
        self._told, self.ready = True, False
        self._note()
        workers = [child for child in self.children if child.program.name.startswith("worker-")]
        functions = [child for child in self.children if child.program.name.startswith("function-")]
        rest = [child for child in reversed(self.children) if child not in workers and child not in functions]
        for group in (workers, functions, *([child] for child in rest)):
            for child in group:
                if child.process and child.alive:
                    child.process.send_signal(
                        child.program.stop_signal
                    )  # all at once; stop() then waits for each
            for child in group:
                child.stop()
        self._note()
        if self.children:
            self.say("stopped")

    def _note(self) -> None:
        """state.json: what `status`, `down` and the next `up` need to know."""
        state = {
            "supervisor": os.getpid(),
            "ready": self.ready,
            "url": self.layout.url,
            "children": [child.noted() for child in self.children],
        }
        fresh = self.layout.state_file.with_suffix(".new")
        fresh.write_text(json.dumps(state, indent=1))
        fresh.replace(self.layout.state_file)


class _OnlyOne:
    """Holds the home's lock for as long as the supervisor lives. Raises StackError when another holds it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.file: IO[str] | None = None

    def __enter__(self) -> None:
        self.file = self.layout.lock_file.open("a")
        if not wait_for(self._taken, 0.5):  # `status` holds it for a moment when it asks
            url = read_state(self.layout).get("url", self.layout.url)
            raise StackError(f"The stack in {self.layout.home} is already up: {url}")
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()

    def _taken(self) -> bool:
        try:
            fcntl.flock(self.file or -1, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()


def supervisor_pid(layout: Layout) -> int:
    """The process that holds, or last held, the home's lock."""
    return int(layout.lock_file.read_text() or 0)


def is_up(layout: Layout) -> bool:
    """Does a living supervisor hold the home's lock?"""
    if not layout.lock_file.exists():
        return False
    with layout.lock_file.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_state(layout: Layout) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(layout.state_file.read_text())
        return state
    except (FileNotFoundError, ValueError):
        return {}


def tail(path: Path, lines: int) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _prepare_database(url: str, default_grants: bool) -> None:
    grants = "default_grants.sql" if default_grants else "no_default_grants.sql"
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("roles.sql", "realtime.sql", grants):
            connection.execute((_SQL / name).read_bytes())


def _staged(names: list[str], into: Path) -> dict[str, Path]:
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    try:
        folders = {name: stage(name, into) for name in names}
    except (OSError, ValueError, SyntaxError) as error:
        raise StackError(f"A function cannot be staged: {error}") from error
    compile_bytecode(into)
    return folders


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def follow(paths: Sequence[Path]) -> Iterator[str]:
    """Lines of log files as they are written, the present ones first."""
    files = {path: path.open(errors="replace") for path in paths}
    while True:
        fresh = [(path, line) for path, file in files.items() for line in file]
        yield from (
            f"{path.stem}: {line.rstrip()}" if len(files) > 1 else line.rstrip() for path, line in fresh
        )
        if not fresh:
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(Supervisor(Layout.read()).run())
