"""What a function adds to the same request sent straight to the REST endpoint, for one caller and for 16.

Through the local gateway a request to a function passes that one process twice, on its way in and on its way
to the database, where a cloud has a front of its own for functions. So it is asked at its own port, too.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from bench.rounds import Times, alternate, table
from bench.stack import FUNCTIONS_URL, SUPABASE_URL, fetch
from deploy.stage import functions_in_repository
from local.layout import Layout
from local.programs import function_ports

AT_ONCE = 16
IN_A_BATCH = 320
BATCHES = 5


def measure() -> None:
    executor_id = f"bench-{uuid.uuid4().hex[:12]}"
    rpc = f"{SUPABASE_URL}/rest/v1/rpc"
    job = {"type": "bench.overhead", "executorId": executor_id, "payload": {"n": 1}}
    row = {"type": "bench.overhead", "executor_id": executor_id, "payload": {"n": 1}}
    ports = function_ports(Layout.read(), functions_in_repository())
    query = f"executorId={executor_id}"
    at_recent, at_assign = (f"http://127.0.0.1:{ports[name]}" for name in ("jobs-recent", "task-assign"))
    reading: dict[str, Callable[[], object]] = {
        "rpc recent_jobs": lambda: fetch("POST", f"{rpc}/recent_jobs", json={"executor_id": executor_id}),
        "jobs-recent at its own port": lambda: fetch("GET", f"{at_recent}/?{query}"),
        "jobs-recent behind the gateway": lambda: fetch("GET", f"{FUNCTIONS_URL}/jobs-recent?{query}"),
    }
    writing: dict[str, Callable[[], object]] = {
        "rpc enqueue_job": lambda: fetch("POST", f"{rpc}/enqueue_job", json=row),
        "task-assign at its own port": lambda: fetch("POST", f"{at_assign}/", json=job),
        "task-assign behind the gateway": lambda: fetch("POST", f"{FUNCTIONS_URL}/task-assign", json=job),
    }
    for ways in (writing, reading):
        yardstick = next(iter(ways))
        print(table(f"overhead over {yardstick}, one caller", alternate(ways, rounds=300), yardstick))
    for ways in (writing, reading):
        yardstick = next(iter(ways))
        times, rates = _at_once(ways)
        print(table(f"overhead over {yardstick}, {AT_ONCE} callers at once", times, yardstick))
        print("requests a second: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))


def _at_once(ways: Mapping[str, Callable[[], object]]) -> tuple[dict[str, Times], dict[str, float]]:
    """Batches of each way in turns. Times of all calls, and calls a second."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    whole = dict.fromkeys(ways, 0.0)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(BATCHES):
            for name, way in ways.items():
                began = time.perf_counter()
                taken[name] += pool.map(_timed, repeat(way, IN_A_BATCH))
                whole[name] += time.perf_counter() - began
    return (
        {name: Times(tuple(seconds)) for name, seconds in taken.items()},
        {name: len(taken[name]) / seconds for name, seconds in whole.items()},
    )


def _timed(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began
