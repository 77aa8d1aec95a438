"""test and bench: a stack of their own, its env file in the environment, the exit code of what ran."""

import contextlib
import os
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


def test(arguments: Sequence[str]) -> int:
    """`--soak` anywhere adds the long tests; a -m of the caller's own has the last word, as pytest has it."""
    marks = "soak or not soak" if "--soak" in arguments else "not soak"
    rest = [word for word in arguments if word != "--soak"]
    with _own_stack("test") as env:
        command = [sys.executable, "-m", "pytest", "-m", marks, *rest]
        return subprocess.run(command, cwd=REPOSITORY, env=env, check=False).returncode


def bench(layout: Layout, arguments: Sequence[str]) -> int:
    with contextlib.ExitStack() as stack:
        env = _environment(layout) if is_up(layout) else stack.enter_context(_own_stack("bench"))
        command = [sys.executable, "-m", "bench", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=env, check=False).returncode


@contextlib.contextmanager
def _own_stack(kind: str) -> Iterator[dict[str, str]]:
    """A fresh stack with one worker; removed afterwards unless it could not be started or stopped."""
    with free_layout(kind) as layout:
        os.environ |= {
            "SIDEJOB_HOME": str(layout.home),
            "SIDEJOB_PORT_OFFSET": str(layout.offset),
            "SIDEJOB_WORKERS": "1",
        }
        try:
            commands.up_detached(layout)
        except StackError as error:
            raise StackError(f"{error}\n(kept: {layout.home})") from error
        try:
            yield _environment(layout)
        finally:
            commands.stop(layout)
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


def _environment(layout: Layout) -> dict[str, str]:
    env = credentials.load(layout.env_file)
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    return {
        **os.environ,
        **env,
        **path,
        "SIDEJOB_TEST_ENV": str(layout.env_file),
        "PYTHONPATH": str(REPOSITORY),
    }
