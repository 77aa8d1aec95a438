"""The bounds of the database's types, as a model: what Postgres would say to a value of JSON.

It knows nothing of the worker. `supabase/migrations/…_create_domains.sql` has the bounds, and
`test_reports_on_the_stack.py` compares the two on a running stack.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

MAX_DEPTH = 100
MAX_DIGITS = 400  # before the point, and behind it


def faults_of(value: Any, max_bytes: int) -> list[str]:
    """Why Postgres would refuse the value as jsonb of so many bytes; empty when it would not."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        return [f"cannot be sent: {type(error).__name__}"]
    faults = []
    for depth, part in _parts(value, 1):
        if depth > MAX_DEPTH:
            faults.append("nested too deep")
        if isinstance(part, str) and "\0" in part:
            faults.append("has NUL")
        if isinstance(part, int | float) and not isinstance(part, bool):
            before, _, behind = _digits(part).partition(".")
            if max(len(before), len(behind)) > MAX_DIGITS:
                faults.append("has too many digits")
    if size_of(value) > max_bytes:
        faults.append(f"has {size_of(value)} bytes")
    return sorted(set(faults))


def size_of(value: Any) -> int:
    """Bytes of `value::text`: a space behind commas and colons, numbers with all their digits."""
    if isinstance(value, dict):
        inside = sum(size_of(name) + 2 + size_of(entry) for name, entry in value.items())
        return 2 + inside + 2 * max(0, len(value) - 1)
    if isinstance(value, list):
        return 2 + sum(map(size_of, value)) + 2 * max(0, len(value) - 1)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return len(_digits(value)) + 1
    return len(json.dumps(value, ensure_ascii=False).encode())


def _digits(number: float) -> str:
    return re.sub(r"^-", "", f"{Decimal(repr(number)):f}")


def _parts(value: Any, depth: int) -> Iterator[tuple[int, Any]]:
    waiting = [(depth, value)]
    while waiting:
        level, part = waiting.pop()
        yield level, part
        if isinstance(part, dict):
            waiting += [(level, name) for name in part] + [(level + 1, entry) for entry in part.values()]
        elif isinstance(part, list):
            waiting += [(level + 1, entry) for entry in part]
