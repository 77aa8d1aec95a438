"""A pooler in transaction mode gives each transaction whichever session is free: nothing of the queue may stay in one."""

import os
import re
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from local.supervisor import wait_for
from tests.database.callers import Workspace

MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"
CLIENTS, SESSIONS, JOBS = 8, 2, 100
ENVELOPE = (
    "select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true),"
    " set_config('request.jwt.claim.sub', %s, true), set_config('request.jwt.claim.role', 'authenticated', true)"
)


def test_no_statement_of_the_migrations_leaves_something_in_its_session() -> None:
    text = "\n".join(
        re.sub(r"--.*", "", path.read_text()) for path in sorted(MIGRATIONS.glob("*.sql"))
    ).lower()
    assert re.findall(r"\bpg_(?:try_)?advisory_lock\w*", text) == [], (
        "pg_advisory_xact_lock ends with its transaction"
    )
    assert set(re.findall(r"set_config\([^)]*,\s*(\w+)\)", text)) == {"true"}
    assert re.findall(r"(?m)^(?:\s*(?:listen|prepare) |set (?!local)\w+)", text) == []
    assert re.findall(r"create (?:global |local )?temp\w*", text) == []


@pytest.mark.soak
def test_jobs_are_done_once_through_a_pooler_in_transaction_mode(
    workspace: Workspace, tmp_path: Path
) -> None:
    executor = f"pooled-{uuid.uuid4()}"
    done: list[str] = []
    worker, member = workspace.worker.user_id, workspace.member.user_id
    with pooler(tmp_path) as url:

        def work() -> None:
            # A statement that the client prepared would live in a session.
            with psycopg.connect(
                url, autocommit=True, row_factory=dict_row, prepare_threshold=None
            ) as session:

                def call(user: str | None, function: str, **arguments: Any) -> list[dict[str, Any]]:
                    named = ", ".join(f"{name} => %({name})s" for name in arguments)
                    with session.transaction():
                        session.execute(ENVELOPE, (f'{{"sub": "{user}", "role": "authenticated"}}', user))
                        return session.execute(
                            f"select * from public.{function}({named})", arguments
                        ).fetchall()

                for _ in range(JOBS // CLIENTS + 1):
                    call(member, "enqueue_job", type="test.job", executor_id=executor)
                while jobs := call(worker, "claim_jobs", executor_id=executor, max_jobs=2):
                    for job in jobs:
                        fence = {
                            "job_id": job["id"],
                            "attempt": job["attempt"],
                            "lease_token": job["lease_token"],
                        }
                        call(worker, "start_job", **fence)
                        call(worker, "renew_lease", **fence)
                        call(worker, "finish_job", **fence, ok=True)
                        done.append(str(job["id"]))
                    call(worker, "tend_queue")
                    call(worker, "worker_heartbeat", agent_id=f"pooled-{threading.get_ident()}")

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as session:
            (shared,) = session.execute(
                "select count(*) from pg_stat_activity where application_name = 'through the pooler'"
            ).fetchone() or (0,)
            kept = session.execute(
                "select current_user, current_setting('request.jwt.claims', true)"
            ).fetchone()
    assert len(done) == len(set(done)) == CLIENTS * (JOBS // CLIENTS + 1)
    rows = workspace.server.rows(
        "select status, count(*) as jobs from public.jobs where executor_id = %s group by 1", executor
    )
    assert rows == [{"status": "succeeded", "jobs": len(done)}]
    assert shared <= SESSIONS
    assert kept in [(conninfo_to_dict(os.environ["SUPABASE_DB_URL"])["user"], empty) for empty in ("", None)]


@contextmanager
def pooler(folder: Path) -> Iterator[str]:
    """PgBouncer in front of the stack's database."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists() and os.geteuid() == 0 and shutil.which("apt-get"):
        get = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", "pgbouncer"]
        subprocess.run(get, capture_output=True, check=False)
    if not Path(program).exists():
        pytest.skip("there is no pgbouncer, and apt-get cannot install it")
    to = conninfo_to_dict(os.environ["SUPABASE_DB_URL"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={to['host']} port={to['port']} user={to['user']} password={to['password']}"
        " application_name='through the pooler'\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {SESSIONS}\n"
        "ignore_startup_parameters = extra_float_digits,application_name\n"
    )
    command = [program, "-q", str(settings)]
    if os.geteuid() == 0:
        folder.chmod(0o755)
        settings.chmod(0o644)
        command = [program, "-q", "-u", "nobody", str(settings)]
    running = subprocess.Popen(command)
    url = make_conninfo(os.environ["SUPABASE_DB_URL"], host="127.0.0.1", port=port)
    try:
        assert wait_for(lambda: answers(url), 60)
        yield url
    finally:
        running.terminate()
        running.wait(60)


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True
