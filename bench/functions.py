"""What a function adds to the same request sent straight to the REST endpoint."""

import uuid

from bench.rounds import alternate, table
from bench.stack import FUNCTIONS_URL, SUPABASE_URL, fetch


def measure() -> None:
    executor_id = f"bench-{uuid.uuid4().hex[:12]}"
    rpc = f"{SUPABASE_URL}/rest/v1/rpc"
    job = {"type": "bench.overhead", "executorId": executor_id, "payload": {"n": 1}}
    row = {"type": "bench.overhead", "executor_id": executor_id, "payload": {"n": 1}}
    reading = {
        "rpc recent_jobs": lambda: fetch("POST", f"{rpc}/recent_jobs", json={"executor_id": executor_id}),
        "function jobs-recent": lambda: fetch("GET", f"{FUNCTIONS_URL}/jobs-recent?executorId={executor_id}"),
    }
    writing = {
        "rpc enqueue_job": lambda: fetch("POST", f"{rpc}/enqueue_job", json=row),
        "function task-assign": lambda: fetch("POST", f"{FUNCTIONS_URL}/task-assign", json=job),
    }
    for ways in (writing, reading):
        yardstick = next(iter(ways))
        print(table(f"overhead over {yardstick}", alternate(ways, rounds=300), yardstick))
