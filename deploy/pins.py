"""Pinned requirements as uv compiles them: the version, its files' hashes, and who asked for it.

The list is all that is read, so the answer is the same on every machine, whatever is installed there.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What two groups of pyproject.toml come to. After a change of requirements.txt, for each of them:
# uv pip compile --universal --python-version 3.11 --group functions --generate-hashes -c requirements.txt \
#   -o deploy/functions.lock
FUNCTIONS = ROOT / "deploy" / "functions.lock"
WORKER = ROOT / "deploy" / "worker.lock"


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of a list."""

    name: str  # as PEP 503 compares names
    line: str  # `cffi==2.1.1 ; platform_python_implementation != 'PyPy'`
    hashes: tuple[str, ...]  # `sha256:…`, one a file; empty where the list has none
    via: frozenset[str]  # the packages that require it

    def text(self) -> str:
        """The entry as pip reads it."""
        return " \\\n    ".join([self.line, *(f"--hash={digest}" for digest in self.hashes)]) + "\n"


def read(file: Path) -> dict[str, Pin]:
    """Name -> pin, in the list's order."""
    # An entry begins at the margin; its hashes and the names of who asked are indented.
    entries = re.findall(r"^[A-Za-z0-9].*(?:\n[ \t].*)*", file.read_text(), re.MULTILINE)
    return {pin.name: pin for pin in map(_parsed, entries)}


def closure(names: Iterable[str], pins: dict[str, Pin]) -> list[Pin]:
    """The pins of these packages and of all that they require, by name.

    Raises ValueError for a package that the list does not have.
    """
    required: dict[str, set[str]] = {}
    for pin in pins.values():
        for who in pin.via:
            required.setdefault(who, set()).add(pin.name)
    waiting, found = set(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in pins:
            raise ValueError(f"{name} is not pinned")
        found.add(name)
        waiting |= required.get(name, set()) - found
    return [pins[name] for name in sorted(found)]


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _parsed(entry: str) -> Pin:
    line, *rest = entry.splitlines()
    comments = [text.strip(" #") for text in rest if text.lstrip().startswith("#")]
    asked = [word for word in " ".join(comments).removeprefix("via").split() if re.match(r"\w", word)]
    return Pin(
        name=normalised(line.partition("==")[0]),
        line=line.rstrip(" \\"),
        hashes=tuple(re.findall(r"--hash=(\S+)", entry)),
        via=frozenset(map(normalised, asked)),
    )
