"""Does a page at the far end of 100,000 jobs cost what the first page costs?"""

import os
import uuid

from bench.rounds import alternate, table
from bench.stack import FUNCTIONS_URL, database, fetch

JOBS = 100_000


def measure() -> None:
    executor_id = f"bench-{uuid.uuid4().hex[:12]}"
    with database() as sql:
        # Older than every other job of the workspace, so that their last page is the workspace's last page.
        sql.execute(
            "insert into public.jobs (workspace_id, type, executor_id, created_at)"
            " select m.workspace_id, 'bench.page', %s, timestamptz '2001-01-01' + n * interval '1 second'"
            " from generate_series(1, %s) as n, public.workspace_members m"
            " join auth.users u on u.id = m.user_id where u.email = %s and m.is_default",
            (executor_id, JOBS, os.environ["DEMO_EMAIL"]),
        )
        sql.execute("vacuum analyze public.jobs")
        try:
            _measure(executor_id)
        finally:
            sql.execute(
                "with gone as (delete from public.jobs where executor_id = %s returning id)"
                " delete from public.job_events e using gone where e.job_id = gone.id",
                (executor_id,),
            )


def _measure(executor_id: str) -> None:
    first = f"{FUNCTIONS_URL}/jobs-recent?limit=20&executorId={executor_id}"
    far = f"{first}&cursor=2001-01-01T00:01:00Z"
    assert len(fetch("GET", first).json()["items"]) == len(fetch("GET", far).json()["items"]) == 20
    ways = {
        "first page": lambda: fetch("GET", first),
        f"page at the far end of {JOBS:,} jobs": lambda: fetch("GET", far),
    }
    print(table("jobs-recent: pages of 20", alternate(ways, rounds=200), yardstick="first page"))
