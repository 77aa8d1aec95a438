"""A worker that does nothing but claim, take its time, and finish: what the chaos tests kill.

`python -m tests.end_to_end.chaos_claimer <user id> <agent id>`, with the database in SUPABASE_DB_URL.
It ends when no job of the executor is open. It knows nothing of what happens to it: it connects again when
the database went away, and drops a job whose lease it lost.
"""

import json
import os
import random
import sys
import time
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

EXECUTOR = "chaos"
LEASE_SECONDS = 15  # the shortest there is
WORK_SECONDS = 0.25
SWEEP_SECONDS = 1.0


def connect(user_id: str) -> psycopg.Connection[DictRow]:
    session = psycopg.connect(
        os.environ["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row, connect_timeout=5
    )
    session.execute(
        "select set_config('request.jwt.claim.sub', %s, false), set_config('request.jwt.claims', %s, false)",
        (user_id, json.dumps({"sub": user_id, "role": "authenticated"})),
    )
    session.execute("set role authenticated")
    return session


def work(session: psycopg.Connection[DictRow], agent_id: str) -> None:
    """Until nothing is open. Raises psycopg.OperationalError when the database goes away."""
    swept = 0.0
    while True:
        if time.monotonic() - swept > SWEEP_SECONDS:
            session.execute("select public.release_expired_leases(100)")
            swept = time.monotonic()
        jobs = session.execute(
            "select * from public.claim_jobs(%s, 3, %s, agent_id => %s)", (EXECUTOR, LEASE_SECONDS, agent_id)
        ).fetchall()
        for job in jobs:
            handle(session, job, agent_id)
        if not jobs:
            left = session.execute(
                "select from public.jobs where executor_id = %s and finished_at is null limit 1", (EXECUTOR,)
            )
            if not left.fetchall():
                return
            time.sleep(0.1)


def handle(session: psycopg.Connection[DictRow], job: dict[str, Any], agent_id: str) -> None:
    fence = (job["id"], job["attempt"], job["lease_token"])
    try:
        session.execute("select public.start_job(%s, %s, %s)", fence)
        time.sleep(random.uniform(0, WORK_SECONDS))
        with session.transaction():  # the effect and the fence stand or fall together
            session.execute("select public.finish_job(%s, %s, %s, ok => true)", fence)
            session.execute(
                "insert into chaos.effects (job_id, attempt, agent_id) values (%s, %s, %s)",
                (job["id"], job["attempt"], agent_id),
            )
    except psycopg.Error as error:
        if error.sqlstate != "SJ300":
            raise
        session.execute("insert into chaos.late (job_id, attempt) values (%s, %s)", fence[:2])


def main(user_id: str, agent_id: str) -> None:
    while True:
        try:
            with connect(user_id) as session:
                work(session, agent_id)
                return
        except psycopg.OperationalError:  # the database is away; AdminShutdown is one of these too
            time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
