"""How much memory a process and all below it take, from Linux's /proc."""

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def of_tree(pid: int) -> int:
    """Bytes that these processes have to themselves (resident, not shared); 0 where there is no /proc."""
    return sum(_own(member) for member in tree(pid))


def tree(pid: int) -> set[int]:
    """The process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended while we looked
    found, below = set[int](), {pid}
    while below:
        found |= below
        below = {child for child, parent in parents.items() if parent in found} - found
    return found


def _own(pid: int) -> int:
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES
