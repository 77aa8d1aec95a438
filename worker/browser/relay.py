"""Stands between the browser and the driver, and lets no message through that is too large for the driver.

A page chooses how long many of the browser's messages are: what it logs, throws, names and sends. The driver
reads each of them whole, and ends with all of its pages when one is longer than a string of Node.js may be,
0x1fffffe8 characters; long before that it answers nobody for half a minute. So:

- an event of more than `MAX_EVENT` bytes has its strings cut,
- what a page logs or throws beyond that is replaced by a short exception that says how long it was,
- an answer beyond `MAX_ANSWER` (a picture or a PDF: `MAX_FILE`) is replaced by an error.

The browser's program is started with its messages (file descriptor 4 of `--remote-debugging-pipe`: JSON, each
ended by NUL) going to this program's input; its output is the driver's. Standard library only, and no import
of the project: it starts with each browser.
"""

import json
import os
import re
import sys
from typing import Any

MAX_EVENT = 1024 * 1024
MAX_CUT = 64 * 1024 * 1024  # beyond, an event is not even read
MAX_ANSWER = 128 * 1024 * 1024
MAX_FILE = 344 * 1024 * 1024  # 256 MiB, the largest artifact, in base64
TOO_LARGE = "The answer is too large"
LEFT_OUT = "sidejob left out"  # begins the exception that stands for what a page logged or threw

_LONGEST_STRING = 4000  # characters that are left of a string
_MOST_ITEMS = 100  # that are left of a list
_READ_BYTES = MAX_EVENT
_HEAD_BYTES = _TAIL_BYTES = 300  # of a message that is not kept: its ends say what it is, and of which page

_ANSWER = re.compile(rb'\{"id":(\d{1,18}),')
_FILE = re.compile(rb'\{"id":\d{1,18},"result":\{"data":"')
_METHOD = re.compile(rb'\{"method":"([A-Za-z.]{1,100})"')
_SESSION = re.compile(rb'"sessionId":"([0-9A-Za-z-]{1,64})"\}$')
_LOGGED_AS = re.compile(rb'\{"method":"Runtime\.consoleAPICalled","params":\{"type":"([A-Za-z]{1,20})"')
_PAGE_SPEAKS = (b"Runtime.consoleAPICalled", b"Runtime.exceptionThrown")
_NEVER_CUT = (b"Runtime.bindingCalled",)  # JSON within JSON: the driver would not survive half of it


class Message:
    """One message as it comes in, piece by piece. Beyond the size that it may have only its ends are kept."""

    def __init__(self) -> None:
        self.size = 0
        self._kept = bytearray()
        self._head = b""
        self._tail = b""  # only of a message that is not kept

    def add(self, piece: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head += piece[: _HEAD_BYTES - len(self._head)]
        self.size += len(piece)
        if self.size <= self._limit:
            self._kept += piece
        else:
            self._tail = (self._tail or bytes(self._kept[-_TAIL_BYTES:])) + piece[-_TAIL_BYTES:]
            self._tail = self._tail[-_TAIL_BYTES:]
            self._kept.clear()

    @property
    def _limit(self) -> int:
        """Bytes that are kept at most."""
        if self.size <= MAX_CUT:
            return MAX_CUT
        if not _ANSWER.match(self._head):
            return MAX_CUT
        return MAX_FILE if _FILE.match(self._head) else MAX_ANSWER

    def words(self) -> bytes | bytearray | None:
        """What the driver is told; None: nothing."""
        answer = _ANSWER.match(self._head)
        if self.size <= (self._limit if answer else MAX_EVENT):
            return self._kept
        whole = len(self._kept) == self.size
        session = _SESSION.search(self._kept[-_TAIL_BYTES:] if whole else self._tail)
        owner = {"sessionId": session[1].decode()} if session else {}
        if answer:
            error = {"code": -32000, "message": TOO_LARGE}
            return _dump({"id": int(answer[1]), "error": error, **owner})
        method = _METHOD.match(self._head)
        if method and method[1] in _PAGE_SPEAKS:
            return _dump({"method": "Runtime.exceptionThrown", "params": self._stand_in(), **owner})
        if whole and method and method[1] not in _NEVER_CUT:
            return _cut_event(bytes(self._kept))
        return None

    def _stand_in(self) -> dict[str, Any]:
        logged = _LOGGED_AS.match(self._head)
        kind = logged[1].decode() if logged else "exception"
        text = f"{LEFT_OUT} {kind} {self.size}"
        details = {"exceptionId": 0, "text": text, "lineNumber": 0, "columnNumber": 0}
        return {"timestamp": 0, "exceptionDetails": details}


def _cut_event(words: bytes) -> bytes | None:
    try:
        event = _dump(_cut(json.loads(words)))
    except (ValueError, RecursionError):
        return None
    return event if len(event) <= MAX_EVENT else None


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_STRING else value[:_LONGEST_STRING] + "…"
    if isinstance(value, list):
        return [_cut(item) for item in value[:_MOST_ITEMS]]
    if isinstance(value, dict):
        return {name: _cut(item) for name, item in [*value.items()][: 10 * _MOST_ITEMS]}
    return value


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def relay(source: int, target: int) -> None:
    """Until either side closes."""
    unfinished: Message | None = None
    while piece := os.read(source, _READ_BYTES):
        if unfinished is None and piece.endswith(b"\0"):
            _write(target, piece)  # whole messages, and none of them longer than an event may be
            continue
        *ended, rest = piece.split(b"\0")
        for part in ended:
            message, unfinished = unfinished or Message(), None
            message.add(part)
            if (words := message.words()) is not None:
                _write(target, words)
                _write(target, b"\0")
        if rest:
            unfinished = unfinished or Message()
            unfinished.add(rest)


def _write(target: int, words: bytes | bytearray) -> None:
    left = memoryview(words)
    while left:
        left = left[os.write(target, left) :]


def main() -> None:
    try:
        import fcntl

        # As much as a page's picture has, so that it comes in one piece and not in twenty (Linux 2.6.35).
        fcntl.fcntl(0, fcntl.F_SETPIPE_SZ, _READ_BYTES)
    except (ImportError, AttributeError, OSError):
        pass
    try:
        relay(0, 1)
    except (BrokenPipeError, ConnectionError):
        sys.exit(0)  # the driver is gone, and the browser will be too


if __name__ == "__main__":
    main()
