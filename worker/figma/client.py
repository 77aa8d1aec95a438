"""Figma's REST API: requests within its rate limit, and what its answers mean.

Sources: developers.figma.com/docs/rest-api (endpoints, rate limits, errors) and figma/rest-api-spec. Figma's
wordings drift, so an answer is judged by its status first and by its text second. A proxy may answer HTML.
"""

import asyncio
import itertools
import json
import logging
import re
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx

from worker import VERSION
from worker.figma.faults import Fault, RateLimited, RenderTimeout, TooLarge
from worker.figma.limiter import Limiter
from worker.retry import delays

log = logging.getLogger(__name__)

Params = Mapping[str, str | int | float | bool]

MOST_JSON_BYTES = 512 * 1024 * 1024
_IN_MEMORY_BYTES = 64 * 1024 * 1024  # what is parsed from memory; larger answers go to disk
_QUOTA_SECONDS = 6 * 3600  # a longer Retry-After is a used-up month, not a busy minute
_NO_RETRY_AFTER_SECONDS = 60.0
_TRIES = 4
_HANGS = 2  # requests without any answer, for one request
_LONGEST_SECONDS = 600  # a whole answer, however slowly it comes
_REFUSALS = 5  # 429s in a row for one request


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and what opens it."""

    url: str
    token: str
    timeout_seconds: float = 60  # for an answer to begin; Figma gives a render up after about 55

    def __repr__(self) -> str:
        return f"Access({self.url})"


class Api:
    """Raises Fault's kinds and RateLimited, and nothing else."""

    def __init__(self, access: Access, limiter: Limiter, http: httpx.AsyncClient) -> None:
        self._access = access
        self._limiter = limiter
        self._http = http

    @classmethod
    @asynccontextmanager
    async def open(cls, access: Access, limiter: Limiter) -> AsyncIterator["Api"]:
        headers = {"X-Figma-Token": access.token, "User-Agent": f"sidejob-worker/{VERSION}"}
        timeout = httpx.Timeout(access.timeout_seconds, connect=10)
        async with httpx.AsyncClient(base_url=access.url, headers=headers, timeout=timeout) as http:
            yield cls(access, limiter, http)

    async def meta(self, key: str) -> dict[str, Any]:
        """Name and version of a file: the cheapest question. Some answers wrap it in `file`."""
        answer = await self.json(3, f"/v1/files/{key}/meta", {})
        inner = answer.get("file", answer)
        return _object(inner)

    async def version(self, key: str) -> str:
        """The file's present version, whether or not the token may read metadata."""
        try:
            head = await self.meta(key)
        except Fault as fault:
            if fault.code != "figma_scope_missing":
                raise
            head = await self.file(key, {"depth": 1})
        return str(head.get("version") or head.get("last_touched_at") or head.get("lastModified") or "")

    async def file(self, key: str, params: Params) -> dict[str, Any]:
        return await self.json(1, f"/v1/files/{key}", params)

    async def nodes(self, key: str, ids: Sequence[str], params: Params) -> dict[str, Any]:
        """Node documents by id, null for one that does not exist. Asks in parts where Figma wants it."""
        if not ids:
            return {}
        if len(ids) > 1 and len(",".join(ids)) > 5000:
            return await self._halves(key, ids, params)
        try:
            answer = await self.json(1, f"/v1/files/{key}/nodes", {**params, "ids": ",".join(ids)})
        except TooLarge:
            if len(ids) == 1:
                raise
            return await self._halves(key, ids, params)
        return _object(answer.get("nodes"))

    async def _halves(self, key: str, ids: Sequence[str], params: Params) -> dict[str, Any]:
        middle = len(ids) // 2
        first = await self.nodes(key, ids[:middle], params)
        return first | await self.nodes(key, ids[middle:], params)

    async def images(self, key: str, ids: Sequence[str], params: Params) -> dict[str, str | None]:
        """Addresses of renders by id, null for a node that has nothing to show. Raises RenderTimeout."""
        query = {**params, "ids": ",".join(ids)}
        answer = await self.json(1, f"/v1/images/{key}", query, renders=True)
        if answer.get("err"):
            raise Fault("figma_bad_request", "Figma refused to render.", figma=self._shown(answer["err"]))
        return _object(answer.get("images"))

    async def fills(self, key: str) -> dict[str, str | None]:
        answer = await self.json(2, f"/v1/files/{key}/images", {})
        return _object(_object(answer.get("meta")).get("images"))

    async def comments(self, key: str, params: Params) -> list[dict[str, Any]]:
        answer = await self.json(2, f"/v1/files/{key}/comments", params)
        return [_object(comment) for comment in _list(answer.get("comments"))]

    async def variables(self, key: str) -> dict[str, Any]:
        answer = await self.json(2, f"/v1/files/{key}/variables/local", {})
        return _object(answer.get("meta"))

    async def published(self, key: str, kind: str) -> list[dict[str, Any]]:
        """The library's `components`, `component_sets` or `styles`."""
        answer = await self.json(3, f"/v1/files/{key}/{kind}", {})
        return [_object(item) for item in _list(_object(answer.get("meta")).get(kind))]

    async def json(self, tier: int, path: str, params: Params, *, renders: bool = False) -> dict[str, Any]:
        """The answer's JSON object. `renders`: a 500 or a 504 may be one picture too many."""

        async def take(response: httpx.Response) -> dict[str, Any]:
            body = await _limited(response, _IN_MEMORY_BYTES)
            try:
                answer = await asyncio.to_thread(json.loads, body)
            except ValueError as error:
                raise _Passing("answered what is no JSON") from error
            if not isinstance(answer, dict):
                raise _Passing("answered JSON of another shape")
            return answer

        answer: dict[str, Any] = await self._persistently(tier, path, params, take, renders)
        return answer

    async def save(self, tier: int, path: str, params: Params, target: Path) -> None:
        """Streams the answer's body to a file."""

        async def take(response: httpx.Response) -> None:
            if "json" not in response.headers.get("content-type", "json"):
                raise _Passing("answered what is no JSON")
            size = 0
            with target.open("wb") as file:
                async for piece in response.aiter_bytes(65536):
                    size += len(piece)
                    if size > MOST_JSON_BYTES:
                        raise TooLarge
                    file.write(piece)

        await self._persistently(tier, path, params, take, False)

    async def _persistently(self, tier: int, path: str, params: Params, take: Any, renders: bool) -> Any:
        cause: Exception
        pauses, refusals, hangs, suspicions = itertools.islice(delays(1, 8), _TRIES - 1), 0, 0, 0
        while True:
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    return await self._once(tier, path, params, take, renders)
            except _Refused as refused:
                refusals += 1
                if refusals >= _REFUSALS:
                    raise RateLimited(refused.seconds) from refused
                continue
            except _Passing as error:
                reason, cause = str(error), error
                suspicions += error.renders
                if suspicions == 2:  # one plain retry; then the request itself is suspected
                    raise RenderTimeout(unclear=True) from error
            except (httpx.HTTPError, TimeoutError, zlib.error) as error:
                reason, cause = f"gave no answer ({type(error).__name__})", error
                hangs += isinstance(error, httpx.ReadTimeout | TimeoutError)
            pause = next(pauses, None)
            if pause is None or hangs == _HANGS:
                raise Fault("figma_unavailable", f"Figma {reason}.") from cause
            log.info("Figma %s; again in %.1f s", reason, pause)
            await asyncio.sleep(pause)

    async def _once(self, tier: int, path: str, params: Params, take: Any, renders: bool) -> Any:
        await self._limiter.take(tier)
        query = {name: _text(value) for name, value in params.items()}
        async with self._http.stream("GET", path, params=query) as response:
            if response.status_code == 200:
                return await take(response)
            body = await _limited(response, 65536)
        return self._explain(tier, response, body, renders)

    def _explain(self, tier: int, response: httpx.Response, body: bytes, renders: bool) -> NoReturn:
        """Raises what an answer that is not 200 means."""
        status, said = response.status_code, self._shown(_sentence(body))
        low = said.lower()
        if status == 429:
            self._limited(tier, response)
        if status in (401, 403):
            if "scope" in low:
                raise Fault("figma_scope_missing", "The worker's Figma token lacks a scope.", figma=said)
            if "token" in low or status == 401:
                raise Fault(
                    "figma_token_invalid",
                    "Figma does not accept the worker's token: an operator must renew FIGMA_API_TOKEN.",
                    figma=said,
                )
            if "plan" in low or "enterprise" in low:
                raise Fault("figma_plan_required", "The file's Figma plan does not allow this.", figma=said)
            raise Fault(
                "figma_forbidden", "The worker's Figma user may not do this with the file.", figma=said
            )
        if status == 404:
            raise Fault("figma_not_found", "Figma knows no such file, or the worker's user may not see it.")
        if status in (413, 414) or (status == 400 and "too large" in low and "image" not in low):
            raise TooLarge
        if status == 400 and ("timeout" in low or "time out" in low or "smaller images" in low):
            raise RenderTimeout
        if status == 400 and "type not supported" in low:
            raise Fault("figma_file_type", "Figma's API does not give out files of this type.", figma=said)
        if status >= 500 or status in (408, 425) or status < 400:
            raise _Passing(f"answered {status}", renders=renders and status in (500, 504))
        raise Fault("figma_bad_request", f"Figma refused the request ({status}).", status=status, figma=said)

    def _limited(self, tier: int, response: httpx.Response) -> NoReturn:
        seconds, headers = _retry_after(response.headers.get("retry-after")), response.headers
        if seconds > _QUOTA_SECONDS:
            until = datetime.now(UTC) + timedelta(seconds=seconds)
            known = {
                "planTier": headers.get("x-figma-plan-tier"),
                "limitType": headers.get("x-figma-rate-limit-type"),
                "upgradeLink": headers.get("x-figma-upgrade-link"),
            }
            plan, kind = known["planTier"] or "unknown", known["limitType"] or "unknown"
            raise Fault(
                "figma_quota_exhausted",
                f"Figma's quota is used up until {until:%Y-%m-%d %H:%M} UTC (plan {plan}, limit {kind}):"
                " a Dev or Full seat in the file's own plan has a larger one.",
                until=until.isoformat(timespec="seconds"),
                retryAfterSeconds=round(seconds),
                **{name: self._shown(value) for name, value in known.items() if value},
            )
        self._limiter.refused(tier, seconds)
        log.warning("Figma's rate limit is used up (tier %d); it opens in %.0f s", tier, seconds)
        raise _Refused(seconds)

    def _shown(self, text: Any) -> str:
        plain = str(text)[:300]
        return plain.replace(self._access.token, "***") if self._access.token else plain


class _Refused(Exception):
    """429: the limiter knows, and the next try waits."""

    def __init__(self, seconds: float) -> None:
        super().__init__("rate limited")
        self.seconds = seconds


class _Passing(Exception):
    """An answer that may be another one soon. `renders`: or one that asked for too much."""

    def __init__(self, message: str, renders: bool = False) -> None:
        super().__init__(message)
        self.renders = renders


async def _limited(response: httpx.Response, most: int) -> bytes:
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > most:
            raise TooLarge
        pieces.append(piece)
    return b"".join(pieces)


def _sentence(body: bytes) -> str:
    """Figma's own words: under `err`, or `message`; nothing of a page of HTML."""
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(answer, dict):
        return ""
    return str(answer.get("err") or answer.get("message") or "")


def _retry_after(text: str | None) -> float:
    """Seconds; in digits or as a date (RFC 9110, 10.2.3)."""
    try:
        if re.fullmatch(r"\d{1,9}(\.\d+)?", text or ""):
            return float(text or "")
        return max(0.0, (parsedate_to_datetime(text or "") - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return _NO_RETRY_AFTER_SECONDS


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Fault("figma_unavailable", "Figma answered JSON of another shape.")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
