"""Supabase as the worker sees it: the queue's transitions, Storage, the function that takes results."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from postgrest.exceptions import APIError
from postgrest.types import ReturnMethod
from storage3.exceptions import StorageApiError

from sidejob.errors import UPSTREAM
from worker import VERSION
from worker.errors import (
    ArtifactGone,
    LeaseLost,
    NoFunctions,
    ProjectError,
    Refused,
    SignInRefused,
    Unreachable,
)
from worker.handlers import Earlier, Job, Stored
from worker.session import Session
from worker.settings import Settings

T = TypeVar("T")

# Codes that say "later": PostgREST without its database (PGRST00…); Postgres's classes of connection,
# conflict, resource and operator; and, where a proxy answered instead, HTTP's 408, 429, 5xx.
_LATER = ("PGRST00", "08", "40001", "40P01", "53", "57", "408", "429", "500", "502", "503", "504")


_EARLIER_JOBS = 4
_MOST_ROWS = 1000  # what a hosted project's REST answers at most


@dataclass(frozen=True, slots=True)
class Claim:
    """A job under a lease. Every write carries these three; the token is never logged."""

    job: Job
    lease_token: str
    trace_id: str | None = None  # W3C trace id of the request that asked for the job

    @property
    def fence(self) -> dict[str, Any]:
        return {"job_id": self.job.id, "attempt": self.job.attempt, "lease_token": self.lease_token}

    def __repr__(self) -> str:
        return f"Claim({self.job.id}, attempt {self.job.attempt})"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is: its name in the oldest of its workspaces, and all of them."""

    worker_id: str
    workspace_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """How an attempt ended. Artifacts are rows as `finish_job` takes them."""

    ok: bool
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    artifacts: tuple[Mapping[str, Any], ...] = ()
    retry_at: datetime | None = None
    give_up: bool = False


class Project:
    """Raises ProjectError's kinds and nothing else. Repeats nothing but a request whose token was refused:
    what else may safely be repeated, the caller knows."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._http = http
        self._session = Session(settings, http)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator["Project"]:
        timeout = httpx.Timeout(15, connect=5)
        async with httpx.AsyncClient(
            timeout=timeout, headers={"User-Agent": f"sidejob-worker/{VERSION}"}
        ) as http:
            yield cls(settings, http)

    async def identify(self) -> Identity:
        """Signs in and returns who this worker is, as its memberships have it."""
        user_id = await self._session.user_id()
        members = self._session.client.table("workspace_members")
        rows = await self._rest(
            lambda: (
                members.select("worker_id", "workspace_id")
                .eq("user_id", user_id)
                .eq("role", "worker")
                .order("created_at")
            )
        )
        if not rows:
            raise Refused(
                "not_a_worker", "WORKER_EMAIL is no worker of any workspace; an operator must make it one"
            )
        return Identity(str(rows[0]["worker_id"]), tuple(str(row["workspace_id"]) for row in rows))

    async def token(self) -> str:
        """An access token that lasts a little longer."""
        return await self._session.token()

    @property
    def locked_out(self) -> SignInRefused | None:
        """Why this worker can work no longer: its password was changed, and its session is about to end."""
        return self._session.locked_out

    async def claim(self, agent_id: str, max_jobs: int) -> list[Claim]:
        """Claims and starts. Never repeated: a claim whose answer was lost holds its jobs until their leases
        expire."""
        rows = await self._rpc(
            "claim_jobs",
            executor_id=self._settings.executor_id,
            max_jobs=max_jobs,
            lease_seconds=self._settings.lease_seconds,
            agent_id=agent_id,
            start=True,
        )
        return [_claim(row) for row in rows or []]

    async def renew(self, claim: Claim) -> None:
        await self._rpc("renew_lease", **claim.fence, lease_seconds=self._settings.lease_seconds)

    async def progress(self, claim: Claim, progress: Any, checkpoint: Any = None) -> None:
        await self._rpc("report_progress", **claim.fence, progress=progress, checkpoint=checkpoint)

    async def release(self, claim: Claim, reason: str, run_at: datetime | None = None) -> None:
        await self._rpc("release_job", **claim.fence, run_at=_iso(run_at), reason=reason)

    async def finish(self, claim: Claim, report: Report) -> str:
        """The direct way to end an attempt, for when the function that takes results is not there."""
        answer = await self._rpc(
            "finish_job",
            **claim.fence,
            ok=report.ok,
            result=report.result,
            error=report.error,
            artifacts=list(report.artifacts),
            retry_at=_iso(report.retry_at),
            give_up=report.give_up,
        )
        return str(_one(answer)["status"])

    async def record_artifacts(self, claim: Claim, rows: tuple[Mapping[str, Any], ...]) -> None:
        """Of an attempt that goes on or fails; one that succeeds records them with its end."""
        job = claim.job
        own = {"job_id": job.id, "workspace_id": job.workspace_id, "attempt": job.attempt}
        table = self._session.client.table("artifacts")
        await self._rest(
            lambda: table.insert([{**row, **own} for row in rows], returning=ReturnMethod.minimal)
        )

    async def tend(self, call: str) -> int:
        """One call of the queue's upkeep, `release_expired_leases` for example. Returns how much there was to
        do; `begin_object_sweep` answers 1 when the stored files are to be swept."""
        return int(_one(await self._rpc(call)))

    async def sweep_artifacts(self) -> int:
        """Has the stored files removed that nobody needs; returns how many. Raises NoFunctions."""
        removed, after = 0, ""
        while True:
            answer = await self._post("artifacts-sweep", {"after": after})
            if answer.status_code != 200:
                raise _answered(answer)
            body = answer.json()
            removed += int(body["removed"])
            if body["scannedTo"] is None:
                return removed
            after = str(body["scannedTo"])

    async def heartbeat(
        self, agent_id: str, status: str, running: int, metrics: Mapping[str, Any]
    ) -> Sequence[str]:
        """Returns the ids of jobs that were cancelled in this process's hands lately."""
        answer = await self._rpc(
            "worker_heartbeat",
            agent_id=agent_id,
            executor_id=self._settings.executor_id,
            status=status,
            running=running,
            capacity=self._settings.max_jobs,
            version=VERSION,
            metrics=dict(metrics),
        )
        return [str(job_id) for job_id in _one(answer)["cancelled"]]

    async def upload(self, path: str, content: bytes | Path, mime: str) -> None:
        """Stores an object; over an older one of the same path, so that it may be repeated."""

        async def send(_: str) -> None:
            try:
                bucket = self._session.client.storage.from_("artifacts")
                await bucket.upload(path, content, {"content-type": mime, "upsert": "true"})
            except StorageApiError as error:
                status = int(error.status) if str(error.status).isdigit() else 500
                raise _refusal(status, str(error.code), error.message[:500]) from error

        await self._signed(send)

    async def copy(self, source: str, target: str) -> bool:
        """Copies an object within the bucket; False when there is none at `source`. May be repeated: the
        target lies in this attempt's folder, so what is there already is what was asked for."""

        async def send(_: str) -> bool:
            try:
                await self._session.client.storage.from_("artifacts").copy(source, target)
            except StorageApiError as error:
                status = int(error.status) if str(error.status).isdigit() else 500
                if status in (404, 409):
                    return status == 409
                raise _refusal(status, str(error.code), error.message[:500]) from error
            return True

        return await self._signed(send)

    async def earlier(self, job: Job, source: str) -> AsyncGenerator[Earlier]:
        """The newest jobs of the job's workspace and type that succeeded from this very `result.source`, one
        after the other: mostly the first has it all, and each may have a thousand artifacts."""

        def nth(place: int) -> Any:
            return (
                self._session.client.table("jobs")
                .select("id", "result")
                .eq("workspace_id", job.workspace_id)
                .eq("type", job.type)
                .eq("status", "succeeded")
                .eq("result->>source", source)
                .order("finished_at", desc=True)
                .range(place, place)
            )

        for place in range(_EARLIER_JOBS):
            rows = await self._rest(partial(nth, place))
            if not rows:
                break
            yield Earlier(rows[0]["result"], await self._files(rows[0]["id"]))

    async def _files(self, job_id: str) -> tuple[Stored, ...]:
        columns = [entry.name for entry in fields(Stored)]
        artifacts = self._session.client.table("artifacts")
        rows = await self._rest(lambda: artifacts.select(*columns).eq("job_id", job_id).limit(_MOST_ROWS))
        return tuple(Stored(**row) for row in rows)

    async def post_result(self, claim: Claim, report: Report) -> str:
        """Posts to `task-result`; returns the job's status. Repeating it is harmless."""
        body: dict[str, Any] = {
            "jobId": claim.job.id,
            "type": claim.job.type,
            "attempt": claim.job.attempt,
            "leaseToken": claim.lease_token,
            "ok": report.ok,
            "result": report.result,
            "error": report.error,
            "artifacts": [_camel(row) for row in report.artifacts] or None,
            "retryAt": _iso(report.retry_at),
            "giveUp": report.give_up or None,
        }
        body = {name: value for name, value in body.items() if value is not None}
        answer = await self._post("task-result", body, claim.trace_id)
        told = _json(answer)
        if answer.status_code == 200 and "status" in told:
            return str(told["status"])
        raise _answered(answer)

    async def _post(
        self, function: str, body: Mapping[str, Any], trace_id: str | None = None
    ) -> httpx.Response:
        url = f"{self._settings.functions_url}/{function}"
        trace = {"traceparent": f"00-{trace_id}-{os.urandom(8).hex()}-01"} if trace_id else {}

        async def send(token: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}", "apikey": self._settings.publishable_key} | trace
            try:
                answer = await self._http.post(url, json=body, headers=headers)
            except httpx.ConnectError as error:
                raise NoFunctions("nobody listens at FUNCTIONS_URL") from error
            if answer.status_code == 401:
                raise _answered(answer)
            return answer

        return await self._signed(send)

    async def _rpc(self, name: str, **arguments: Any) -> Any:
        return await self._rest(lambda: self._session.client.rpc(name, arguments))

    async def _rest(self, request: Callable[[], Any]) -> Any:
        async def send(_: str) -> Any:
            try:
                return (await request().execute()).data
            except APIError as error:
                raise _translated(error) from error

        return await self._signed(send)

    async def _signed(self, request: Callable[[str], Awaitable[T]]) -> T:
        """With the session's token; once more with a new one when it is refused: nothing happened then."""
        token = await self._session.token()
        try:
            try:
                return await request(token)
            except _TokenRefused:
                await self._session.reject(token)
                return await request(await self._session.token())
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer ({type(error).__name__})") from error


class _TokenRefused(Refused):
    pass


def _refusal(status: int, code: str, message: str) -> ProjectError:
    if status == 401:
        return _TokenRefused(code, message)
    if status >= 500 or status in (408, 429):
        return Unreachable(f"answered {status} ({code}): {message[:200]}")
    return Refused(code, message)


def _translated(error: APIError) -> ProjectError:
    code, message = error.code or "unknown", (error.message or "")[:500]
    meaning = UPSTREAM.get(code)
    if meaning == "lease_lost":
        return LeaseLost(str(error.details or "unknown"))
    if meaning == "not_found":
        return LeaseLost("gone")  # the job, or this worker's membership
    if meaning == "artifact_gone":
        return ArtifactGone(meaning, message)
    if code == "401" or meaning == "invalid_token":
        return _TokenRefused(code, message)
    if code.startswith(_LATER):
        return Unreachable(f"answered {code}: {message[:200]}")
    return Refused(code, message)


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


def _answered(answer: httpx.Response) -> ProjectError:
    """What an answer of a function says that is not the one hoped for."""
    body = _json(answer)
    status, code = answer.status_code, str(body.get("code", answer.status_code))
    if status == 409 and code == "lease_lost":
        details = body.get("details")
        return LeaseLost(str(details.get("status", "unknown")) if isinstance(details, dict) else "unknown")
    if status == 409 and code == "artifact_gone":
        return ArtifactGone(code, str(body.get("error", ""))[:500])
    if status in (404, 503):
        return NoFunctions(f"a function answered {status}")
    return _refusal(502 if status < 400 else status, code, str(body.get("error", ""))[:500])


def _camel(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"sameAs" if name == "same_as" else name: value for name, value in row.items()}


def _one(answer: Any) -> Any:
    return answer[0] if isinstance(answer, list) else answer


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None


def _claim(row: Mapping[str, Any]) -> Claim:
    created = datetime.fromisoformat(row["created_at"])
    due = datetime.fromisoformat(row["next_run_at"]) if row.get("next_run_at") else created
    job = Job(
        id=row["id"],
        type=row["type"],
        payload=row["payload"] or {},
        workspace_id=row["workspace_id"],
        attempt=row["attempt"],
        last_attempt=row["attempts"] - row["released"] >= row["max_attempts"],
        due_at=max(created, due),
        claimed_at=datetime.now(UTC),
        checkpoint=row.get("checkpoint"),
    )
    return Claim(job, row["lease_token"], row.get("trace_id"))
