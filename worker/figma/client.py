"""Figma's REST API: requests within its rate limit, repeated where that may help.

Sources: developers.figma.com/docs/rest-api (endpoints) and figma/rest-api-spec.
"""

import asyncio
import itertools
import logging
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from worker import VERSION
from worker.computing import Rejected
from worker.computing.pool import Pool
from worker.figma import picks
from worker.figma.answers import Passing, Refused, meaning, meaning_of_429, sentence
from worker.figma.computing import compute
from worker.figma.connections import no_cookies
from worker.figma.faults import Fault, RateLimited, RenderTimeout, TooLarge
from worker.figma.limiter import Limiter
from worker.figma.picks import Pick, pick_entries, pick_fills, pick_head, pick_images, pick_published
from worker.retry import delays

log = logging.getLogger(__name__)

Params = Mapping[str, str | int | float | bool]

MOST_JSON_BYTES = 512 * 1024 * 1024
_IN_MEMORY_BYTES = 64 * 1024 * 1024  # larger answers go to disk
_IN_PLACE_BYTES = 128 * 1024  # smaller answers are read here, in a few milliseconds; larger ones in a child
_TRIES = 4
_HANGS = 2  # requests without any answer, for one request
_LONGEST_SECONDS = 600  # a whole answer, however slowly it comes
_REFUSALS = 5  # 429s in a row for one request
_FIRST_PAUSE_SECONDS = 8.0  # after a 429 that names none; doubled for each that follows
_LEAST_PAUSE_SECONDS = 1.0  # after one that names less
_LONG_PAUSE_SECONDS = 60.0  # when none of those helped


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and what opens it."""

    url: str
    token: str
    timeout_seconds: float = 60  # for an answer to begin; Figma gives a render up after about 55
    pause_seconds: float = 1  # before the first repetition of what may pass; longer before each that follows

    @property
    def name(self) -> str:
        """What files of this API are known by: `figma`, or where it is if it is not Figma's own."""
        host = urlsplit(self.url).netloc
        return "figma" if host == "api.figma.com" else f"figma({host})"

    def __repr__(self) -> str:
        return f"Access({self.url})"


class Api:
    """Raises Fault's kinds and RateLimited, and nothing else."""

    def __init__(self, access: Access, limiter: Limiter, http: httpx.AsyncClient, computing: Pool) -> None:
        self.name = access.name
        self._access = access
        self._limiter = limiter
        self._http = http
        self.computing = computing

    @classmethod
    @asynccontextmanager
    async def open(cls, access: Access, limiter: Limiter, computing: Pool) -> AsyncIterator["Api"]:
        headers = {"X-Figma-Token": access.token, "User-Agent": f"sidejob-worker/{VERSION}"}
        timeout = httpx.Timeout(access.timeout_seconds, connect=10)
        cookies = no_cookies()  # one client serves all jobs
        async with httpx.AsyncClient(
            base_url=access.url, headers=headers, timeout=timeout, cookies=cookies
        ) as http:
            yield cls(access, limiter, http, computing)

    async def version(self, key: str) -> str:
        """What tells the file's present state from others: its version's id, or the moment of its last
        change where no version is told, or nothing. It does not need the right to read metadata."""
        try:
            head = await self.json(3, f"/v1/files/{key}/meta", {}, pick_head)
        except Fault as fault:
            if fault.code != "figma_scope_missing" and not nobody_there(fault):
                raise
            try:
                head = await self.file(key, {"depth": 1}, pick_head)
            except Fault as another:
                if not nobody_there(another):
                    raise
                return ""
        return str(head.get("version") or head.get("last_touched_at") or head.get("lastModified") or "")

    async def file(self, key: str, params: Params, pick: Pick, *arguments: Any) -> Any:
        return await self.json(1, f"/v1/files/{key}", params, pick, *arguments)

    async def nodes(
        self, key: str, ids: Sequence[str], params: Params, pick: Pick, *arguments: Any
    ) -> dict[str, Any]:
        """What is picked of each node, by id; null for one that does not exist. Asks in parts where Figma
        wants it."""
        if not ids:
            return {}
        if len(ids) > 1 and len(",".join(ids)) > 5000:
            return await self._halves(key, ids, params, pick, *arguments)
        try:
            query = {**params, "ids": ",".join(ids)}
            found: dict[str, Any] = await self.json(
                1, f"/v1/files/{key}/nodes", query, pick_entries, pick, *arguments
            )
            return found
        except TooLarge:
            if len(ids) == 1:
                raise
            return await self._halves(key, ids, params, pick, *arguments)

    async def _halves(
        self, key: str, ids: Sequence[str], params: Params, pick: Pick, *arguments: Any
    ) -> dict[str, Any]:
        middle = len(ids) // 2
        first = await self.nodes(key, ids[:middle], params, pick, *arguments)
        return first | await self.nodes(key, ids[middle:], params, pick, *arguments)

    async def images(self, key: str, ids: Sequence[str], params: Params) -> dict[str, str | None]:
        """Addresses of renders by id, null for a node that has nothing to show. Raises RenderTimeout."""
        query = {**params, "ids": ",".join(ids)}
        answer = await self.json(1, f"/v1/images/{key}", query, pick_images, renders=True)
        if "err" in answer:
            raise meaning(400, self._shown(answer["err"]), renders=True)
        images: dict[str, str | None] = answer["images"]
        return images

    async def fills(self, key: str) -> dict[str, str | None]:
        found: dict[str, str | None] = await self.json(2, f"/v1/files/{key}/images", {}, pick_fills)
        return found

    async def published(self, key: str, kind: str) -> list[dict[str, str]]:
        """The library's `components`, `component_sets` or `styles`: node_id, name, description."""
        found: list[dict[str, str]] = await self.json(3, f"/v1/files/{key}/{kind}", {}, pick_published, kind)
        return found

    async def json(
        self, tier: int, path: str, params: Params, pick: Pick, *arguments: Any, renders: bool = False
    ) -> Any:
        """What is picked of the answer's JSON object. `renders`: a 500 or a 504 may be one picture too
        many."""

        async def take(response: httpx.Response) -> Any:
            body = await _limited(response, _IN_MEMORY_BYTES)
            try:
                if len(body) <= _IN_PLACE_BYTES:
                    return picks.read(body, pick, *arguments)
                return await compute(self.computing, picks.read, body, pick, *arguments)
            except Rejected as rejected:
                if rejected.reason == "no_json":
                    raise Passing(rejected.message) from rejected
                raise Fault("figma_unavailable", rejected.message) from rejected

        return await self._persistently(tier, path, params, take, renders)

    async def save(self, tier: int, path: str, params: Params, target: Path) -> None:
        """Streams the answer's body to a file."""

        async def take(response: httpx.Response) -> None:
            if "json" not in response.headers.get("content-type", "json"):
                raise Passing("answered what is no JSON")
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
        pauses, refusals, hangs, suspicions = itertools.islice(self._delays(), _TRIES - 1), 0, 0, 0
        while True:
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    return await self._once(tier, path, params, take, renders)
            except Refused as refused:
                seconds = self._heed(tier, refused, refusals)
                refusals += 1
                if refusals >= _REFUSALS:
                    raise RateLimited(max(seconds, _LONG_PAUSE_SECONDS)) from refused
                continue
            except Passing as error:
                reason, cause = str(error), error
                suspicions += error.renders
                if suspicions == 2:  # one plain retry; then the request itself is suspected
                    raise RenderTimeout(Fault("figma_unavailable", f"Figma {reason}.")) from error
            except (httpx.HTTPError, TimeoutError, zlib.error) as error:
                reason, cause = f"gave no answer ({type(error).__name__})", error
                hangs += isinstance(error, httpx.ReadTimeout | TimeoutError)
            pause = next(pauses, None)
            if pause is None or hangs == _HANGS:
                raise Fault("figma_unavailable", f"Figma {reason}.") from cause
            log.info("Figma %s; again in %.1f s", reason, pause)
            await asyncio.sleep(pause)

    def _delays(self) -> Iterator[float]:
        return delays(self._access.pause_seconds, 8 * self._access.pause_seconds)

    def _heed(self, tier: int, refused: Refused, earlier: int) -> float:
        """Lets nobody ask before the time that a 429 names, or a guess that grows; returns the seconds."""
        guess = _FIRST_PAUSE_SECONDS * 2**earlier
        seconds = guess if refused.seconds is None else max(refused.seconds, _LEAST_PAUSE_SECONDS)
        self._limiter.refused(tier, seconds)
        log.warning("Figma's rate limit is used up (tier %d); it opens in %.0f s", tier, seconds)
        return seconds

    async def _once(self, tier: int, path: str, params: Params, take: Any, renders: bool) -> Any:
        await self._limiter.take(tier)
        query = {name: _text(value) for name, value in params.items()}
        async with self._http.stream("GET", path, params=query) as response:
            if "," in response.headers.get("content-encoding", ""):
                raise Passing("answered what is packed more than once")
            if response.status_code == 200:
                return await take(response)
            body = await _limited(response, 65536)
        if response.status_code == 429:
            raise meaning_of_429(response.headers, self._shown)
        raise meaning(response.status_code, self._shown(sentence(body)), renders=renders)

    def _shown(self, text: Any) -> str:
        plain = str(text)[:300]
        return plain.replace(self._access.token, "***") if self._access.token else plain


def nobody_there(fault: Fault) -> bool:
    """A 404 that is not in Figma's own words: this server does not know the request, rather than the file."""
    return fault.code == "figma_not_found" and "figma" not in fault.details


async def _limited(response: httpx.Response, most: int) -> bytes:
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > most:
            raise TooLarge
        pieces.append(piece)
    return b"".join(pieces)


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
