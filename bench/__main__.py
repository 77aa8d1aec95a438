"""`python -m bench [name …]`: runs the named measurements, or all, against the stack in the environment."""

import sys
from collections.abc import Callable

from bench import browser, cold_start, figma, functions, paging, queue, realtime, scaling, streams, wake

MEASUREMENTS: dict[str, Callable[[], None]] = {
    "paging": paging.measure,
    "functions": functions.measure,
    "cold_start": cold_start.measure,
    "streams": streams.measure,
    "wake": wake.measure,
    "realtime": realtime.measure,
    "queue": queue.measure,
    "figma": figma.measure,
    "browser": browser.measure,
    "scaling": scaling.measure,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        sys.stderr.write(f"no such measurement: {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}\n")
        return 2
    for name in names or MEASUREMENTS:
        MEASUREMENTS[name]()
    return 0


sys.exit(main(sys.argv[1:]))
