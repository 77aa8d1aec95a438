"""A project on paper: real requests of the worker's, answered by a script, or by the model of the database."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tests.worker.bench import settings_of_worker2
from tests.worker.database_model import faults_of
from worker.attempt import Attempt, Workshop
from worker.claims import Claim
from worker.handlers import Context, Handler, Job, Outcome
from worker.metrics import Metrics
from worker.project import Project

Answer = httpx.Response | Exception
KIB = 1024
_ENV = {"SUPABASE_PUBLISHABLE_KEY": "k", "WORKER2_EMAIL": "e", "WORKER2_PASSWORD": "p"}
_NAME = re.compile(r"[^\x00-\x1f]{1,255}")
_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[ -~]{0,200})?")


def refusal(code: str, status: int = 400) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": "no", "error": "no"})


def page(status: int = 200) -> httpx.Response:
    """A proxy's."""
    return httpx.Response(status, text="<html>welcome</html>", headers={"Content-Type": "text/html"})


@dataclass
class Paper:
    """`script`: by the end of a path, what is answered one after the other, the last one for ever. Where it has
    nothing to say the model of the database answers, and `refused` is what it had to refuse."""

    script: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)  # end of the path, and the body
    refused: list[str] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)  # reports that were taken
    stored: dict[str, bytes] = field(default_factory=dict)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.rpartition("/")[2]
        self.asked.append((path, json.loads(request.content)))
        if script := self.script.get(path):
            answer = script.pop(0) if len(script) > 1 else script[0]
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)
        return self._judge(path, self.asked[-1][1], len(request.content))

    def _judge(self, path: str, body: Any, size: int) -> httpx.Response:
        faults = [
            f"{path}.{name}: {fault}"
            for name, most in (("result", 1024), ("error", 64), ("progress", 16), ("checkpoint", 256))
            for fault in (faults_of(body.get(name), most * KIB) if isinstance(body, dict) else ())
        ]
        if path == "task-result" and size > 1024 * KIB:
            faults.append("the body is too large")
        rows = (body.get("artifacts") if isinstance(body, dict) else body) or []
        names = [artifact["name"] for artifact in rows]
        faults += [f"name {name!r}" for name in names if not _NAME.fullmatch(name)]
        faults += [f"mime {row['mime']!r}" for row in rows if not _MIME.fullmatch(row["mime"])]
        if len(set(names)) < len(names) or len(names) > 1000:
            faults.append("names are not distinct")
        if isinstance(body, list):  # rows of artifacts
            self.refused += faults
            return httpx.Response(201)
        delay = body.get("retryAfterSeconds", body.get("delay_seconds", 0)) or 0
        if not 0 <= delay <= 366 * 86_400:
            faults.append(f"a delay of {delay} s")
        self.refused += faults
        if faults:
            return refusal("23514")
        if path in ("task-result", "finish_job", "release_job"):
            self.ended.append(body)
        return httpx.Response(200, json={"status": "running", "ok": True})


class _Session:
    locked_out = None

    async def token(self) -> str:
        return "token"

    async def reject(self, _: str) -> None:
        pass


class PaperProject(Project):
    """Everything but Storage and the sign-in is the worker's own."""

    def __init__(self, paper: Paper) -> None:
        http = httpx.AsyncClient(transport=httpx.MockTransport(paper.answer))
        super().__init__(settings_of_worker2(_ENV, "http://paper.test", "default"), http)
        self._session = _Session()  # type: ignore[assignment]
        self._paper = paper

    async def upload(self, path: str, content: bytes | Path, mime: str) -> None:
        assert mime.isascii()
        assert isinstance(content, bytes)
        self._paper.stored[path] = content


def claim_of(kind: str = "test.quick", **changes: Any) -> Claim:
    now = datetime.now(UTC)
    return Claim(Job("job", kind, {}, "workspace", 1, False, now, now), "lease", **changes)


def attempt_at(
    paper: Paper, outcome: Callable[[Job], Any], *, lease_seconds: float = 600, **options: Any
) -> Attempt:
    """An attempt whose handler returns this."""

    async def handle(job: Job, context: Context) -> Outcome:  # noqa: ARG001
        made: Outcome = outcome(job)
        return made

    return attempt_with(paper, handle, lease_seconds=lease_seconds, **options)


def attempt_with(paper: Paper, handler: Handler, *, lease_seconds: float = 600, **options: Any) -> Attempt:
    shop = Workshop(PaperProject(paper), {"test.quick": handler}, Metrics(), lease_seconds, "", **options)
    return Attempt(claim_of(), shop)
