"""The processes of a stack: started with a log, noted with their start time, ended when their parent is."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Program:
    """What to start and how to know that it is up."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]  # all of it: nothing is inherited
    folder: Path
    is_ready: Callable[[], bool]
    ports: Sequence[int] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 5
    death_signal: signal.Signals | None = (
        signal.SIGKILL
    )  # sent when the supervisor dies; None: the command arranges it


@dataclass(slots=True)
class Child:
    """One program's process, started again when it ends."""

    program: Program
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0  # monotonic seconds
    again_at: float = 0  # monotonic seconds, when it is down
    failures: int = 0  # in a row
    born: str = ""  # when it started, in the system's words; tells it from a later process of the same id

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > 20_000_000:
            self.log.replace(self.log.with_suffix(".old.log"))
        parent, death = os.getpid(), self.program.death_signal

        def in_child() -> None:
            if _libc and death:
                _libc.prctl(_PR_SET_PDEATHSIG, int(death))
                if os.getppid() != parent:  # it died before prctl
                    os._exit(1)

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.program.command),
                cwd=self.program.folder,
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is the supervisor's; and its whole group can be ended
                preexec_fn=in_child,  # noqa: PLW1509 - the supervisor has one thread
            )
        self.started = time.monotonic()
        self.born = _start_time(self.process.pid)

    def note_end(self) -> float:
        """Seconds until it is started again: half a second, doubling to ten; a calm minute forgets."""
        self.failures = 1 if time.monotonic() - self.started > 60 else self.failures + 1
        pause = min(10.0, 0.25 * 2.0**self.failures)
        self.again_at = time.monotonic() + pause
        return pause

    def stop(self) -> None:
        """Asks, waits, then ends its whole group."""
        if self.process is None:
            return
        if self.alive:
            self.process.send_signal(self.program.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.program.stop_seconds)
        _end_group(self.process.pid)
        self.process.wait()
        self.process = None

    def noted(self) -> dict[str, str | int]:
        pid = self.process.pid if self.process and self.alive else 0
        return {
            "name": self.program.name,
            "pid": pid,
            "born": self.born,
            "ports": ",".join(map(str, self.program.ports)),
        }


def _start_time(pid: int) -> str:
    """Empty for no such process, and for one that has ended and was not yet waited for."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]  # state, starttime: proc(5)
    asked = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def is_same(pid: int, born: str) -> bool:
    """Is this process id still the process that was noted?"""
    return pid > 0 and born != "" and _start_time(pid) == born


def end_leftovers(noted: Sequence[Mapping[str, object]], seconds: float = 10) -> list[str]:
    """Ends what an earlier, killed supervisor left behind, last started first, and returns their names."""
    left = [(str(note["name"]), int(str(note["pid"])), str(note["born"])) for note in reversed(noted)]
    left = [(name, pid, born) for name, pid, born in left if is_same(pid, born)]
    for name, pid, _ in left:
        os.kill(pid, signal.SIGINT if name == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(is_same(pid, born) for _, pid, born in left):
        time.sleep(0.05)
    for _, pid, _ in left:
        _end_group(pid)
    return [name for name, _, _ in left]
