"""test and bench: a stack of their own, its env file in the environment, the exit code of what ran."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
    layout = free_layout(kind)
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


def free_layout(kind: str) -> Layout:
    """The first offset from 1000 on whose ports are free; making the folder keeps other runs away."""
    for offset in range(1000, 2000, 100):
        layout = Layout(
            TOOLS / f"{kind}-{offset}",
            offset,
            os.environ.get("SIDEJOB_POSTGRES") or "18",
            1,
            Layout.read().default_grants,
        )
        ports = [
            layout.gateway_port,
            layout.postgres_port,
            layout.objects_port,
            layout.demo_port,
            layout.figma_port,
            layout.figma_port + 1,
            layout.collab_port,
            layout.health_port(0),
        ]
        if not all(
            port_is_free(port) for port in [*ports, *(layout.function_port(index) for index in range(30))]
        ):
            continue
        if layout.home.exists() and not is_up(layout):
            shutil.rmtree(layout.home, ignore_errors=True)  # of a run that was killed
        try:
            layout.home.mkdir(parents=True)
        except FileExistsError:
            continue
        return layout
    raise StackError("No hundred of ports from 1000 to 1900 above the usual ones is free. Stop another run.")


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
