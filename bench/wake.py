"""How long an idle worker takes to begin a job, by the database's clock: from the insert to `job.started`."""

import statistics
import time

from bench.rounds import Times
from bench.stack import SUPABASE_URL, database, fetch

JOBS = 60
POLL_SECONDS = 2.0  # the worker's default without Realtime


def measure() -> None:
    seconds = []
    with database() as sql:
        for _ in range(JOBS):
            time.sleep(0.3)  # idle again, and past the pause between two wake-ups
            job = {"type": "browser.screenshot", "payload": {"html": "<p>wake</p>"}}
            job_id = fetch("POST", f"{SUPABASE_URL}/rest/v1/rpc/enqueue_job", json=job).json()["job_id"]
            while not (row := sql.execute(STARTED, (job_id,)).fetchone()):
                time.sleep(0.05)
            seconds.append(float(str(row[0])))
    times = Times(tuple(seconds))
    print(
        f"\nfrom insert to job.started on an idle worker, {JOBS} jobs\n"
        f"p50 {times.median:.1f} ms   p90 {times.percentile(0.9):.1f} ms   "
        f"p99 {times.percentile(0.99):.1f} ms   "
        f"polling alone every {POLL_SECONDS:.0f} s: {POLL_SECONDS / 2 * 1000:.0f} ms in the mean   "
        f"ratio {statistics.mean(seconds) / (POLL_SECONDS / 2):.3f}"
    )


STARTED = (
    "select extract(epoch from s.created_at - q.created_at) from public.job_events q join public.job_events s"
    " on s.job_id = q.job_id and s.event_type = 'job.started' join public.jobs j on j.id = q.job_id"
    " where q.job_id = %s and q.event_type = 'job.queued' and j.finished_at is not null"
)
