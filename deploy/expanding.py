"""Does a migration only add? Code that is running while it is applied, and after a rollback, must survive it.

    python -m deploy.expanding 20261201000100_drop_status.sql …

Prints a line for each statement that takes something away; exit code 1 when there is one. A migration that
says why nobody misses it passes: a line `-- old code survives: <why>`.
"""

import re
import sys
from collections.abc import Iterator, Sequence

from deploy.pins import ROOT

MIGRATIONS = ROOT / "supabase" / "migrations"

_TAKES = re.compile(
    r"\bdrop\s+(?:table|column|view|materialized\s+view|type|schema|function|policy)\b"
    r"|\brename\s+(?:to|column)\b"
    r"|\balter\s+column\s+\S+\s+(?:set\s+data\s+)?type\b"
    r"|\balter\s+column\s+\S+\s+set\s+not\s+null\b"
    r"|(?:\A|;)\s*truncate\b",
    re.IGNORECASE,
)
_SURVIVES = re.compile(r"^--\s*old code survives:\s*\S", re.IGNORECASE | re.MULTILINE)
# Bodies of functions act when they are called, not when they are created; comments and strings never do.
_NO_STATEMENT = re.compile(r"--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'", re.DOTALL)


def taken(sql: str) -> list[str]:
    """The words with which it takes something away; none when it says that old code survives."""
    if _SURVIVES.search(sql):
        return []
    return [" ".join(match.group().split()) for match in _TAKES.finditer(_NO_STATEMENT.sub(" ", sql))]


def problems(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield from (f"{name}: {words}" for words in taken((MIGRATIONS / name).read_text()))


if __name__ == "__main__":
    found = list(problems(sys.argv[1:]))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
