"""What the tests have children compute: good and hostile functions."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from worker.computing import Rejected


def give_back(value: Any) -> Any:
    return value


def measure_bytes(*values: bytes) -> list[int]:
    return [len(value) + value.count(b"x") for value in values]


def tell_pid() -> int:
    return os.getpid()


def tell_environment() -> dict[str, str]:
    return dict(os.environ)


def tell_limits() -> str:
    return Path("/proc/self/limits").read_text()


def loop_for_ever(started: str = "") -> None:
    if started:
        Path(started).write_text(str(os.getpid()))
    while True:
        pass


def sleep_for_ever(started: str) -> None:
    Path(started).write_text(str(os.getpid()))
    time.sleep(3600)


def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.01)
    return path


def take_memory(size: int) -> int:
    return len(bytearray(size))


def answer_with(size: int) -> bytes:
    return bytes(size)


def nest(depth: int) -> Any:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def recurse() -> None:
    recurse()


def refuse(reason: str) -> None:
    raise Rejected(reason, "It is not as it should be.")


def fail() -> None:
    raise KeyError("a bug")


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def exit_quietly() -> None:
    os._exit(0)


def die_of(_: object) -> None:
    die()


def take_all_memory(_: object) -> int:
    return take_memory(1 << 40)


def loop_over(_path: Path, _kind: str | None) -> None:
    loop_for_ever()


def take_all_memory_of(_path: Path, _kind: str | None) -> int:
    return take_memory(1 << 40)


def die_over(_path: Path, _kind: str | None) -> None:
    die()


def deepen(frames: int) -> None:
    sys.setrecursionlimit(frames)
