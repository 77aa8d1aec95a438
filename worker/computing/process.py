"""One child as the worker sees it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.computing import Broken, TooMuchMemory, TooSlow, frames

_WALL_FACTOR = 4  # by the clock a computation may take this much longer than on a processor
_START_SECONDS = 30.0  # until it says that it is ready: imports, on a machine that is busy
_PROGRAM = "worker.computing.child"
_MOST_GREETING_BYTES = 100
_END_SECONDS = 5.0
_LOOK_SECONDS = 0.002  # between looks at whether it is gone
_SLICE_BYTES = 1 << 20  # is written at once, so that the event loop goes on in between
_ROOT = Path(__file__).resolve().parents[2]  # of the packages

# What a Python program needs to start; nothing else of the worker's environment, which holds its secrets.
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")


class Child:
    """A process that computes, one request after the other."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.served = 0  # requests so far
        self.peak_bytes = 0  # the most memory that it ever had
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, memory_bytes: int, modules: Sequence[str] = ()) -> "Child":
        """Starts a child that has imported these modules. Raises Broken."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # Not asyncio's own: its `kill` takes the exit code away from the thread that waits for it.
                process = subprocess.Popen(  # noqa: ASYNC220  takes about a millisecond
                    [sys.executable, "-P", "-m", _PROGRAM, str(os.getpid()), str(memory_bytes), *modules],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    env=_environment(os.environ),
                    start_new_session=True,  # Ctrl+C is for the worker, which lets jobs end
                )  # fmt: skip
        except OSError as error:
            ours.close()
            raise Broken(f"no child can be started: {error}") from error
        reader, writer = await asyncio.open_connection(sock=ours, limit=_SLICE_BYTES)
        child = cls(process, reader, writer)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child._receive(_MOST_GREETING_BYTES)
        except BaseException as error:
            await asyncio.shield(child.end())
            if isinstance(error, TimeoutError | OSError | EOFError):
                raise Broken("a child did not start") from error
            raise
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and not self._reader.at_eof()

    async def compute(self, request: frames.Request, most_bytes: int) -> Any:
        """The function's value. Raises TooSlow, TooMuchMemory, Broken and Rejected. Of no further use is a
        child after TooSlow and TooMuchMemory, one that is not `alive`, and one whose call was cancelled."""
        self.served += 1
        parts = frames.pack_request(request)
        if sum(map(len, parts)) > request.memory_bytes // 4:
            raise TooMuchMemory("the computation's arguments take more memory than they may")
        try:
            async with asyncio.timeout(request.seconds * _WALL_FACTOR):
                await self._send(parts)
                kind, body = await self._receive(most_bytes)
        except TimeoutError as error:
            self.kill()
            raise TooSlow(f"the computation took more than {request.seconds * _WALL_FACTOR:g} s") from error
        except (OSError, EOFError) as error:
            raise await self._explain() from error
        except BaseException:
            self.kill()
            raise
        return frames.read_answer(kind, body)

    def kill(self) -> None:
        self._process.kill()  # nothing where it is gone and its number may be another's

    async def end(self) -> None:
        """Kills it and waits until it is gone."""
        self.kill()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        await self._wait()

    async def _wait(self) -> int | None:
        """Its exit code, once it is gone; none for one that the kernel does not let go."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                while self._process.poll() is None:  # noqa: ASYNC110  nothing tells of it
                    await asyncio.sleep(_LOOK_SECONDS)
        return self._process.returncode

    async def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        for part in parts:
            for at in range(0, len(part), _SLICE_BYTES):
                self._writer.write(part[at : at + _SLICE_BYTES])
                await self._writer.drain()

    async def _receive(self, most_bytes: int) -> tuple[bytes, bytes]:
        kind, peak_bytes, length = frames.HEAD.unpack(await self._reader.readexactly(frames.HEAD.size))
        self.peak_bytes = peak_bytes
        if length > most_bytes:
            self.kill()
            raise TooMuchMemory(f"the computation's answer has {length} bytes")
        return kind, await self._reader.readexactly(length)

    async def _explain(self) -> Exception:
        """Why the child is gone in the middle of a request."""
        code = await self._wait()
        self.kill()
        if code == -signal.SIGXCPU:
            return TooSlow("the computation used up its time on a processor")
        return Broken(f"the child ended in the middle of a computation ({code})")


def _environment(known: Mapping[str, str]) -> dict[str, str]:
    passed_on = {name: known[name] for name in _PASSED_ON if name in known}
    paths = [str(_ROOT), *filter(None, [known.get("PYTHONPATH")])]
    return {**passed_on, "PYTHONPATH": os.pathsep.join(paths)}
