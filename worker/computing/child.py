"""`python -m worker.computing.child`: computes what the worker asks over its standard input, a socket.

It has nothing that is secret, and ends when the worker closes the socket or dies. Its arguments: the worker's
process id, the most memory in bytes, and modules to be imported before the first request.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path

from worker.computing import Rejected, frames

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_TRACEBACK = 4000  # characters
_MOST_FRAMES = sys.getrecursionlimit()


def main() -> None:
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    _end_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold what pages and files said
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for name in sys.argv[3:]:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=sys.stdin.fileno()) as line:
        _send(line, frames.JSON, b"null")  # ready
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                kind, body = _answer(_read_request(line))
                _send(line, kind, body)
                if kind == frames.MEMORY:
                    return  # what is left of such a heap would count against the next one


def _end_with(parent: int) -> None:
    """A child that computes does not see that its socket closed: Linux ends it with its parent."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before
        os._exit(1)


def _answer(request: frames.Request) -> tuple[bytes, bytes]:
    _limit(request)
    try:
        return frames.pack_value(request.function(*request.arguments))
    except Rejected as rejected:
        said = {"reason": rejected.reason, "message": rejected.message}
        return frames.REJECTED, json.dumps(said).encode()
    except MemoryError:
        return frames.MEMORY, b""
    except Exception:  # noqa: BLE001  whatever it is, it is told
        told = traceback.format_exc(limit=-8, chain=False)[-_MOST_TRACEBACK:]
        return frames.BUG, told.encode("utf-8", "replace")


def _limit(request: frames.Request) -> None:
    """Time on a processor is what counts, and the kernel ends a child that has used it up: on a busy machine
    an honest computation takes longer, and no more of that."""
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (min(request.memory_bytes, most), most))
    sys.setrecursionlimit(_MOST_FRAMES)  # another function may have raised it, for frames that need less
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + request.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _read_request(line: socket.socket) -> frames.Request:
    (count,) = frames.COUNT.unpack(_read(line, frames.COUNT.size))
    parts = []
    for _ in range(count):
        (length,) = frames.LENGTH.unpack(_read(line, frames.LENGTH.size))
        parts.append(_read(line, length))
    return frames.unpack_request(parts)


def _read(line: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view, at = memoryview(data), 0
    while at < length:
        got = line.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    view.release()
    return bytes(data)


def _peak_bytes() -> int:
    """The most memory that this program ever had. `getrusage` knows it too, but counts that of the worker,
    which forked."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return 0


def _send(line: socket.socket, kind: bytes, body: bytes) -> None:
    line.sendall(frames.HEAD.pack(kind, _peak_bytes(), len(body)))
    line.sendall(body)


if __name__ == "__main__":
    main()
