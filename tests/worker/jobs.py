"""A member asks for jobs and looks at what became of them."""

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from tests.stack import Person, done

T = TypeVar("T")


class Jobs:
    """Jobs of one executor, so that no other worker takes them."""

    def __init__(self, person: Person) -> None:
        self.executor = f"test-{uuid.uuid4()}"
        self._person = person
        self._url = person.stack.env["SUPABASE_URL"]

    def ask(self, job_type: str, payload: dict[str, Any] | None = None, **arguments: Any) -> str:
        """Returns the job's id."""
        body = {"type": job_type, "payload": payload or {}, "executor_id": self.executor, **arguments}
        answer = self._person.rest("POST", "rpc/enqueue_job", body)
        assert answer.is_success, answer.text
        row = answer.json()
        return str((row[0] if isinstance(row, list) else row)["job_id"])

    def cancel(self, job_id: str) -> None:
        assert self._person.rest("POST", "rpc/cancel_job", {"job_id": job_id}).is_success

    def row(self, job_id: str) -> dict[str, Any]:
        (row,) = self._rows("jobs", id=f"eq.{job_id}")
        return row

    def events(self, job_id: str) -> list[str]:
        rows = self._rows("job_events", job_id=f"eq.{job_id}", order="seq", select="seq,event_type")
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), "history has no gaps"
        return [row["event_type"].removeprefix("job.") for row in rows]

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        return self._rows("artifacts", job_id=f"eq.{job_id}", order="name")

    def heartbeat(self, agent_id: str) -> dict[str, Any]:
        return next(iter(self._rows("worker_heartbeats_v2", agent_id=f"eq.{agent_id}")), {})

    def bytes_of(self, artifact_id: str) -> bytes:
        """Through sign-artifact, as a client fetches them."""
        signed = done(self._person.post("sign-artifact", {"artifactId": artifact_id}))
        return self._person.stack.http.get(signed["url"]).raise_for_status().content

    async def until(self, job_id: str, *statuses: str, seconds: float = 240) -> dict[str, Any]:
        """The job, once it has one of these statuses."""
        return await eventually(lambda: (row := self.row(job_id))["status"] in statuses and row, seconds)

    def expire(self, job_id: str) -> None:
        """Lets the job's lease have ended: the database's clock cannot be turned."""
        ended = "update public.jobs set lease_until = now() - interval '1 s' where id = %s"
        self._person.stack.sql.execute(ended, [job_id])

    def hurry(self, job_id: str) -> None:
        """Lets the job be due now."""
        self._person.stack.sql.execute("update public.jobs set next_run_at = now() where id = %s", [job_id])

    def now(self) -> datetime:
        """By the database's clock."""
        row = self._person.stack.sql.execute("select clock_timestamp() as now").fetchone()
        assert row
        moment: datetime = row["now"]
        return moment

    def move(self, job_id: str, whose: str) -> None:
        """To another user's workspace, which no client could do."""
        home = self._person.stack.env[f"{whose}_WORKSPACE_ID"]
        self._person.stack.sql.execute(
            "update public.jobs set workspace_id = %s where id = %s", [home, job_id]
        )

    def _rows(self, table: str, **filters: str) -> list[dict[str, Any]]:
        answer = self._person.rest("GET", table, **filters)
        assert answer.is_success, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows


async def eventually(question: Callable[[], T | bool], seconds: float = 240) -> T:
    """The first true answer; fails at the deadline. Lets the event loop run meanwhile."""
    ends = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < ends, "nothing came in time"
        await asyncio.sleep(0.03)
    return answer  # type: ignore[return-value]
