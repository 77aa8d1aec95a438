"""Between worker and child: requests are pickles with large parts beside them, answers JSON or bytes."""

import json
import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.computing import Broken, Rejected, TooMuchMemory

COUNT = struct.Struct("!I")  # parts of a request
LENGTH = struct.Struct("!Q")  # bytes of a part
HEAD = struct.Struct("!cQQ")  # of an answer: kind, peak of memory in bytes, length

JSON, BYTES, REJECTED, MEMORY, BUG = b"j", b"b", b"r", b"m", b"x"

_BESIDE_BYTES = 65_536  # larger arguments are not copied into the pickle


@dataclass(frozen=True, slots=True)
class Request:
    """One computation, as the child gets it. Unpickling imports the function's module."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    seconds: float
    memory_bytes: int


def pack_request(request: Request) -> list[bytes | memoryview]:
    """The parts to be sent, lengths included."""
    beside: list[pickle.PickleBuffer] = []
    arguments = tuple(
        pickle.PickleBuffer(value) if isinstance(value, bytes) and len(value) > _BESIDE_BYTES else value
        for value in request.arguments
    )
    plain = (request.function, arguments, request.seconds, request.memory_bytes)
    pickled = pickle.dumps(plain, protocol=5, buffer_callback=beside.append)
    body: list[bytes | memoryview] = [pickled, *(buffer.raw() for buffer in beside)]
    parts: list[bytes | memoryview] = [COUNT.pack(len(body))]
    for part in body:
        parts += [LENGTH.pack(len(part)), part]
    return parts


def unpack_request(parts: Sequence[bytes]) -> Request:
    return Request(*pickle.loads(parts[0], buffers=parts[1:]))  # noqa: S301  of the worker, not of a stranger


def pack_value(value: Any) -> tuple[bytes, bytes]:
    """An answer's kind and body. Raises ValueError for what JSON cannot hold, such as infinity."""
    if isinstance(value, bytes):
        return BYTES, value
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return JSON, text.encode("utf-8", "surrogatepass")


def read_answer(kind: bytes, body: bytes) -> Any:
    """The function's value. Raises what the answer says: Rejected, TooMuchMemory, Broken."""
    if kind == BYTES:
        return body
    if kind == MEMORY:
        raise TooMuchMemory("the computation took more memory than it may")
    if kind == BUG:
        raise Broken(body.decode("utf-8", "replace"))
    try:
        value = json.loads(body.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise Broken("the child's answer is no JSON") from error
    if kind != REJECTED:
        return value
    said: Mapping[str, Any] = value if isinstance(value, dict) else {}
    raise Rejected(str(said.get("reason")), str(said.get("message")))
