"""Supabase as the worker sees it: the queue's transitions, Storage, the function that takes results."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from storage3.utils import StorageException

from worker import VERSION, answers, claims, failures, storable
from worker.answers import Unreadable
from worker.claims import Claim
from worker.errors import Later, NoFunctions, Refused, SignInRefused, Unreachable
from worker.failures import TokenRefused
from worker.handlers import Earlier, Job, Stored
from worker.sending import Report, as_json, delay_seconds, result_body
from worker.session import Session
from worker.settings import Settings

T = TypeVar("T")


_EARLIER_JOBS = 4
_MAX_ROWS = 1000  # of an answer of a hosted project's REST
_ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is: its name in the oldest of its workspaces, and all of them."""

    worker_id: str
    workspace_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat."""

    cancelled: tuple[str, ...]  # ids of jobs that were cancelled in this process's hands lately
    at: datetime | None  # the database's clock


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
        rows = await self._select(
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
        with _understood("workspace_members"):
            return Identity(str(rows[0]["worker_id"]), tuple(str(row["workspace_id"]) for row in rows))

    async def token(self) -> str:
        """An access token that lasts a little longer."""
        return await self._session.token()

    @property
    def locked_out(self) -> SignInRefused | None:
        """Why this worker can work no longer: its password was changed, and its session is about to end."""
        return self._session.locked_out

    async def claim(self, agent_id: str, max_jobs: int, type_prefix: str | None = None) -> list[Claim]:
        """Claims and starts; with a prefix, only jobs whose type begins with it. Never repeated: a claim
        whose answer was lost holds its jobs until their leases expire."""
        answer = await self._call(
            "claim_jobs",
            executor_id=self._settings.executor_id,
            max_jobs=max_jobs,
            lease_seconds=self._settings.lease_seconds,
            type_prefix=type_prefix,
            agent_id=agent_id,
            start=True,
        )
        with _understood("claim_jobs"):
            return claims.read(answer)

    async def renew(self, claim: Claim) -> None:
        _status(await self._rpc("renew_lease", **claim.fence, lease_seconds=self._settings.lease_seconds))

    async def progress(self, claim: Claim, progress: Any, checkpoint: Any = None) -> None:
        """Raises TooLarge for a checkpoint that is larger than the database keeps; nothing is sent then."""
        kept = None
        if checkpoint is not None:
            kept = storable.clean(checkpoint, storable.MAX_CHECKPOINT_BYTES)
        shown = storable.clean_progress(progress)
        _status(await self._rpc("report_progress", **claim.fence, progress=shown, checkpoint=kept))

    async def release(self, claim: Claim, reason: str, after: timedelta | None = None) -> None:
        """Hands the job back, to be run after a while or at once."""
        delay = {} if after is None else {"delay_seconds": delay_seconds(after)}
        said = storable.clean_text(reason, 1000)
        _status(await self._rpc("release_job", **claim.fence, reason=said, **delay))

    async def finish(self, claim: Claim, report: Report) -> str:
        """The direct way to end an attempt, for when the function that takes results does not."""
        delay = report.retry_after_seconds
        answer = await self._rpc(
            "finish_job",
            **claim.fence,
            ok=report.ok,
            result=report.result,
            error=report.error,
            artifacts=list(report.artifacts),
            give_up=report.give_up,
            **({} if delay is None else {"retry_after_seconds": delay}),
        )
        return _status(answer)

    async def record_artifacts(self, claim: Claim, rows: tuple[Mapping[str, Any], ...]) -> None:
        """Of an attempt that goes on or fails; one that succeeds records them with its end."""
        job = claim.job
        own = {"job_id": job.id, "workspace_id": job.workspace_id, "attempt": job.attempt}
        columns = dict.fromkeys(name for row in rows for name in row)  # PostgREST wants the same in every row
        body = [{**columns, **row, **own} for row in rows]
        answer = await self._request("artifacts", body, {"Prefer": "return=minimal"})
        if answer.status_code != 201:
            raise Later(f"artifacts answered {answer.status_code} in a shape that is not understood")

    async def tend(self, call: str) -> int:
        """One call of the queue's upkeep, `release_expired_leases` for example. Returns how much there was to
        do; `begin_object_sweep` answers 1 when the stored files are to be swept."""
        answer = _one(await self._rpc(call))
        with _understood(call):
            return int(answer)

    async def sweep_artifacts(self) -> int:
        """Has the stored files removed that nobody needs; returns how many. Raises NoFunctions."""
        removed, after = 0, ""
        while True:
            answer = await self._post("artifacts-sweep", {"after": after})
            if answer.status_code != 200:
                raise failures.of_function(answer)
            with _understood("artifacts-sweep"):
                body = answers.decode(answer.text)
                removed += int(body["removed"])
                scanned_to = body["scannedTo"]
            if scanned_to is None or str(scanned_to) == after:
                return removed
            after = str(scanned_to)

    async def heartbeat(self, agent_id: str, status: str, running: int, metrics: Mapping[str, Any]) -> Beat:
        answer = _row(
            await self._rpc(
                "worker_heartbeat",
                agent_id=agent_id,
                executor_id=self._settings.executor_id,
                status=status,
                running=running,
                capacity=self._settings.max_jobs,
                version=VERSION,
                metrics=storable.clean(metrics, storable.MAX_METRICS_BYTES),
            )
        )
        with _understood("worker_heartbeat"):
            return Beat(tuple(str(job_id) for job_id in answer["cancelled"] or ()), _moment(answer.get("ts")))

    async def upload(self, path: str, content: bytes | Path, mime: str) -> None:
        """Stores an object; over an older one of the same path, so that it may be repeated."""

        async def send(_: str) -> None:
            with _storage():
                bucket = self._session.client.storage.from_("artifacts")
                await bucket.upload(path, content, {"content-type": mime, "upsert": "true"})

        await self._signed(send)

    async def copy(self, source: str, target: str) -> bool:
        """Copies an object within the bucket; False when there is none at `source`. May be repeated: the
        target lies in this attempt's folder, so what is there already is what was asked for."""

        async def send(_: str) -> bool:
            with _storage():
                try:
                    await self._session.client.storage.from_("artifacts").copy(source, target)
                except StorageApiError as error:
                    if (status := _status_of(error)) in (404, 409):
                        return status == 409
                    raise
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
            rows = await self._select(partial(nth, place))
            if not rows:
                break
            with _understood("jobs"):
                result, job_id = dict(rows[0]["result"]), str(rows[0]["id"])
            yield Earlier(result, await self._files(job_id))

    async def _files(self, job_id: str) -> tuple[Stored, ...]:
        columns = [entry.name for entry in fields(Stored)]
        artifacts = self._session.client.table("artifacts")
        rows = await self._select(lambda: artifacts.select(*columns).eq("job_id", job_id).limit(_MAX_ROWS))
        with _understood("artifacts"):
            return tuple(Stored(**row) for row in rows)

    async def post_result(self, claim: Claim, report: Report) -> str:
        """Posts to `task-result`; returns the job's status. Repeating it is harmless."""
        answer = await self._post("task-result", result_body(claim, report), claim.trace_id)
        if answer.status_code == 200:
            with _understood("task-result"):
                return _status(answers.decode(answer.text))
        raise failures.of_function(answer)

    async def _post(
        self, function: str, body: Mapping[str, Any], trace_id: str | None = None
    ) -> httpx.Response:
        url = f"{self._settings.functions_url}/{function}"
        trace = {"traceparent": f"00-{trace_id}-{os.urandom(8).hex()}-01"} if trace_id else {}

        async def send(token: str) -> httpx.Response:
            try:
                answer = await self._http.post(
                    url, content=as_json(body), headers=self._headers(token) | trace
                )
            except httpx.ConnectError as error:
                raise NoFunctions("nobody listens at FUNCTIONS_URL") from error
            if answer.status_code == 401:
                raise failures.of_function(answer)
            return answer

        return await self._signed(send)

    async def _rpc(self, name: str, **arguments: Any) -> Any:
        """What a function of the database answers. An answer that is no JSON is Later."""
        answer = await self._call(name, **arguments)
        with _understood(name):
            return answers.decode(answer)

    async def _call(self, name: str, **arguments: Any) -> str:
        """The same, as text."""
        answer = await self._request(f"rpc/{name}", arguments)
        return answer.content.decode("utf-8", "replace")

    async def _request(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """POST to PostgREST, not by supabase-py: that decodes an answer as a whole, or not at all."""
        url = f"{self._settings.supabase_url}/rest/v1/{path}"

        async def send(token: str) -> httpx.Response:
            answer = await self._http.post(
                url, content=as_json(body), headers=self._headers(token) | dict(headers or {})
            )
            if not answer.is_success:
                raise failures.of_database(answer)
            return answer

        return await self._signed(send)

    async def _select(self, request: Callable[[], Any]) -> list[dict[str, Any]]:
        async def send(_: str) -> Any:
            try:
                with _understood("a query"):
                    rows = (await request().execute()).data
                    return [dict(row) for row in rows]
            except APIError as error:
                raise failures.of_query(error) from error

        rows: list[dict[str, Any]] = await self._signed(send)
        return rows

    def _headers(self, token: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token}",
            "apikey": self._settings.publishable_key,
            "Content-Type": "application/json",
        }

    async def _signed(self, request: Callable[[str], Awaitable[T]]) -> T:
        """With the session's token; once more with a new one when it is refused: nothing happened then."""
        token = await self._session.token()
        try:
            try:
                return await request(token)
            except TokenRefused:
                await self._session.reject(token)
                return await request(await self._session.token())
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer ({type(error).__name__})") from error


@contextmanager
def _understood(who: str) -> Iterator[None]:
    """An answer in an unexpected shape, such as a proxy's page with status 200, says nothing: Later."""
    try:
        yield
    except (Unreadable, *_ODD) as error:
        raise Later(f"the answer of {who} is not understood ({type(error).__name__})") from error


@contextmanager
def _storage() -> Iterator[None]:
    try:
        with _understood("Storage"):
            yield
    except StorageApiError as error:
        raise failures.of_status(_status_of(error), f"{error.code}: {error.message}") from error
    except StorageException as error:
        raise Later(f"Storage: {error}"[:300]) from error


def _status_of(error: StorageApiError) -> int:
    return int(error.status) if str(error.status).isdigit() else 500


def _one(answer: Any) -> Any:
    return answer[0] if isinstance(answer, list) and answer else answer


def _row(answer: Any) -> dict[str, Any]:
    """The one row of an answer. Raises Later when there is none."""
    row = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(row, dict):
        raise Later("the answer has no row")
    return row


def _status(answer: Any) -> str:
    """The job's status after a transition. Raises Later when the answer does not have it: nobody knows then
    whether anything was done."""
    status = _row(answer).get("status")
    if not isinstance(status, str):
        raise Later("the answer has no status")
    return status


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else None
