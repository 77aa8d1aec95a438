"""up, down, status, reset, psql and logs."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from local import credentials, postgres
from local.children import is_same
from local.layout import Layout, StackError
from local.setup import REPOSITORY
from local.supervisor import Supervisor, follow, is_up, read_state, supervisor_pid, tail, wait_for


def up(layout: Layout, *, tied: bool = False) -> int:
    return Supervisor(layout, tied=tied).run()


def up_detached(layout: Layout) -> int:
    """Returns when all is ready; else shows why not."""
    Launch(layout).finish()
    return 0


class Launch:
    """A stack on its way up behind us. `tied`: it ends with us, however we end. Raises StackError when it is
    up already."""

    def __init__(self, layout: Layout, *, tied: bool = False) -> None:
        if is_up(layout):
            url = read_state(layout).get("url", layout.url)
            raise StackError(f"The stack in {layout.home} is already up: {url}")
        self.layout = layout
        self._log = layout.logs / "supervisor.log"
        layout.logs.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._begin = output.tell()
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "local", "up", *(["--tied"] if tied else [])],
                cwd=REPOSITORY,
                env={**os.environ, **layout.variables},
                stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self) -> None:
        """Waits until all is ready, and says so. Raises StackError with what went wrong."""
        try:
            ready = wait_for(self._is_ready_or_ended, 900) and self._supervisor.poll() is None
        except KeyboardInterrupt:
            self._supervisor.terminate()
            self._supervisor.wait()
            raise
        with self._log.open(errors="replace") as file:
            file.seek(self._begin)
            said = file.read().strip()
        if not ready:
            raise StackError(said or f"The stack did not start; see {self.layout.logs}")
        print(said.splitlines()[-1].partition(" ")[2], flush=True)

    def _is_ready_or_ended(self) -> bool:
        state = read_state(self.layout)
        return self._supervisor.poll() is not None or (
            state.get("supervisor") == self._supervisor.pid and state.get("ready") is True
        )


def down(layout: Layout) -> int:
    """Stops the stack; fine when there is none."""
    if not is_up(layout):
        print("The stack is not up.")
        return 0
    stop(layout)
    print("stopped")
    return 0


def stop(layout: Layout) -> None:
    """Ends the supervisor, which ends the rest. Raises StackError when it does not within 90 s."""
    pid = supervisor_pid(layout)
    if pid:
        os.kill(pid, signal.SIGTERM)
    if not wait_for(lambda: not is_up(layout), 90):
        raise StackError(f"The supervisor (process {pid}) does not stop; see {layout.logs}")


def status(layout: Layout) -> int:
    """Exit code 0 when all is ready, else 1."""
    if not is_up(layout):
        print("The stack is not up. Start it with ./local.sh up -d")
        return 1
    state = read_state(layout)
    rows = [("process", "pid", "port")]
    for child in state.get("children", []):
        alive = is_same(int(child["pid"]), child["born"])
        rows.append((child["name"], str(child["pid"]) if alive else "down", child["ports"]))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        f"{'ready' if state.get('ready') else 'starting'}: {state.get('url')}  (sign-ins: {layout.env_file})"
    )
    return 0 if state.get("ready") else 1


def reset(layout: Layout) -> int:
    """Everything of this stack goes, every Postgres version's data too; what the set-up installed stays."""
    if is_up(layout):
        stop(layout)
    for folder in (layout.objects, layout.logs, layout.home / "functions", *layout.home.glob("postgres-*")):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (layout.env_file, layout.state_file):
        file.unlink(missing_ok=True)
    print(f"Nothing is left of the stack in {layout.home}.")
    return 0


def psql(layout: Layout, arguments: Sequence[str]) -> NoReturn:
    env = credentials.load(layout.env_file)
    program = postgres.binaries("18") / "psql"
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores; psql would, too
    os.execv(program, [str(program), env["SUPABASE_DB_URL"], *arguments])  # noqa: S606


def logs(layout: Layout, name: str | None) -> int:
    paths = sorted(layout.logs.glob("*.log"))
    if name:
        wanted = [path for path in paths if path.stem in (name, f"function-{name}")]
        if not wanted:
            raise StackError(
                f"There is no log {name!r}. There are: {', '.join(path.stem for path in paths) or 'none yet'}"
            )
        paths = wanted
    if not paths:
        raise StackError("There are no logs yet. Start the stack with ./local.sh up -d")
    if not sys.stdout.isatty() or not is_up(layout):
        for path in paths:
            print(f"== {path.stem}\n{tail(path, 40)}")
        return 0
    for line in follow(paths):
        print(line, flush=True)
    return 0
