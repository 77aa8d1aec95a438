"""The processes below this one."""

import os
from pathlib import Path


def command(pid: int) -> str:
    """Empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text().replace("\0", "\n")


def children(of: int | None = None) -> set[int]:
    """All descendants by number, from /proc; where there is none, nothing can be said."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name_end = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if name_end[0] != "Z":
            parents[int(entry.parent.name)] = int(name_end[1])
    found: set[int] = set()
    edge = {of or os.getpid()}
    while edge:
        edge = {pid for pid, parent in parents.items() if parent in edge} - found
        found |= edge
    return found


def started_since(before: set[int]) -> set[int]:
    """What was started and is still there, but for what those of `before` start and end: a browser that all tests
    share has processes of its own, which come and go."""
    return children() - before - {below for pid in before for below in children(pid)}
