"""test and bench: a stack of their own, its env file in the environment, the exit code of what ran."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from local import commands, credentials
from local.layout import Layout, StackError, port_is_free
from local.setup import REPOSITORY, TOOLS
from local.supervisor import is_up

PROCESSES = 3  # of the whole suite, which waits more than it works; each has a stack to itself
_ABOUT_OUTPUT = re.compile(r"-[qvx]+|-r\w+|--(durations|tb|maxfail|junitxml|color)=.+")


def test(arguments: Sequence[str]) -> int:
    """`--soak` anywhere adds the long tests; a -m of the caller's own has the last word, as pytest has it."""
    marks = "soak or not soak" if "--soak" in arguments else "not soak"
    rest = [word for word in arguments if word != "--soak"]
    processes = processes_for(arguments)
    spread = ["-n", str(processes), "--dist", "loadfile"] if processes > 1 else []
    with _own_stacks("test", processes) as variables:
        env = {**os.environ, **variables[0], "SIDEJOB_TEST_STACKS": json.dumps(variables)}
        command = [sys.executable, "-m", "pytest", "-m", marks, *spread, *rest]
        return subprocess.run(command, cwd=REPOSITORY, env=env, check=False).returncode


def processes_for(arguments: Sequence[str]) -> int:
    """One for chosen tests, and for the long ones, which want the machine to themselves."""
    return PROCESSES if all(map(_ABOUT_OUTPUT.fullmatch, arguments)) else 1


def bench(layout: Layout, arguments: Sequence[str]) -> int:
    with contextlib.ExitStack() as stack:
        variables = _variables(layout) if is_up(layout) else stack.enter_context(_own_stacks("bench", 1))[0]
        command = [sys.executable, "-m", "bench", *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, env={**os.environ, **variables}, check=False
        ).returncode


@contextlib.contextmanager
def _own_stacks(kind: str, number: int) -> Iterator[list[dict[str, str]]]:
    """The variables of fresh stacks with one worker each. Nothing is left of them, but of one that failed."""
    with contextlib.ExitStack() as ends:
        layouts = [ends.enter_context(free_layout(kind)) for _ in range(number)]
        ready: list[Layout] = []
        launches = []
        for layout in layouts:
            launches.append(commands.Launch(layout, tied=True))
            ends.callback(_end, layout, ready)
        for layout, launch in zip(layouts, launches, strict=True):
            try:
                launch.finish()
            except StackError as error:
                raise StackError(f"{error}\n(kept: {layout.home})") from error
            ready.append(layout)
        yield [_variables(layout) for layout in layouts]


def _end(layout: Layout, ready: Sequence[Layout]) -> None:
    if is_up(layout):
        commands.stop(layout)
    if layout in ready:
        shutil.rmtree(layout.home, ignore_errors=True)


# Above what Linux hands out to outgoing connections, and so far apart that no two stacks share a port.
_OFFSETS = range(7000, 10_000, 200)


@contextlib.contextmanager
def free_layout(kind: str) -> Iterator[Layout]:
    """An empty folder, and ports that nobody uses and no other run takes until the end.

    A socket keeps them: only one process of a machine can listen on its port, whichever checkout it runs
    from, and the kernel takes it back from one that was killed.
    """
    for offset in _OFFSETS:
        layout = replace(Layout.read(), home=TOOLS / f"{kind}-{offset}", offset=offset, workers=1)
        with socket.socket() as keeper:
            try:
                keeper.bind(("127.0.0.1", layout.keeper_port))
                keeper.listen()
            except OSError:
                continue
            if is_up(layout) or not all(map(port_is_free, layout.ports - {layout.keeper_port})):
                continue
            shutil.rmtree(layout.home, ignore_errors=True)  # of a run that was killed
            layout.home.mkdir(parents=True)
            yield layout
            return
    raise StackError(
        f"{len(_OFFSETS)} stacks of tests run already, or other programs hold ports of theirs. Stop one."
    )


def _variables(layout: Layout) -> dict[str, str]:
    return {
        **layout.variables,
        **credentials.load(layout.env_file),
        "SIDEJOB_TEST_ENV": str(layout.env_file),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(REPOSITORY),
    }
