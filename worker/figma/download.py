"""Files from the addresses that Figma gives: streamed to disk, many at once, checked before they count.

The addresses are presigned. The token is never sent there: S3 answers 400 to an Authorization header.
"""

import asyncio
import ipaddress
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from worker import VERSION
from worker.browser import faults as targeting
from worker.browser.targets import Targets, parse
from worker.computing import Rejected
from worker.computing.pool import Pool
from worker.figma.computing import PICTURE_SECONDS, compute
from worker.figma.connections import HostTransport, no_cookies
from worker.figma.faults import TooLarge
from worker.figma.pictures import BadPicture, Size, look
from worker.retry import delays

log = logging.getLogger(__name__)

AT_ONCE = 16
MOST_BYTES = 256 * 1024 * 1024  # what an artifact may have
_TRIES = 3
_HANGS = 2  # tries that nothing came of
_REDIRECTS = 3
_STALL_SECONDS = 30.0
_LONGEST_SECONDS = 600  # a whole file, however slowly it comes


class Expired(Exception):
    """The address is no longer good: Figma can give another."""


class DownloadFailed(Exception):
    """No file after several tries; `bad` when one came, and it was broken."""

    def __init__(self, message: str, bad: bool = False) -> None:
        super().__init__(message)
        self.bad = bad


class Downloads:
    """Shared by all jobs of the process. `api_url`: addresses on its host are fetched too, whatever the port
    and whatever that host is. All others must be https and public."""

    def __init__(self, http: httpx.AsyncClient, api_url: str, targets: Targets, computing: Pool) -> None:
        self._computing = computing
        self._http = http
        self._api = urlsplit(api_url)
        self._targets = targets
        self._free = asyncio.Semaphore(AT_ONCE)

    @classmethod
    @asynccontextmanager
    async def open(cls, api_url: str, computing: Pool) -> AsyncIterator["Downloads"]:
        limits = httpx.Limits(max_connections=AT_ONCE * 2, max_keepalive_connections=AT_ONCE)
        timeout = httpx.Timeout(_STALL_SECONDS, connect=10)
        headers = {"User-Agent": f"sidejob-worker/{VERSION}"}
        transport = HostTransport(limits)
        async with httpx.AsyncClient(
            transport=transport, timeout=timeout, headers=headers, cookies=no_cookies()
        ) as http:
            yield cls(http, api_url, Targets(), computing)

    async def fetch(self, url: str, target: Path, kind: str | None = None) -> tuple[str, Size]:
        """Fetches and checks a file of this kind, or of whichever it turns out to be. Raises Expired,
        DownloadFailed, Fault `computation_failed`, OSError."""
        hangs = 0
        for pause in itertools.chain(itertools.islice(delays(0.3, 3), _TRIES - 1), (None,)):
            try:
                async with self._free, asyncio.timeout(_LONGEST_SECONDS):
                    await self._stream(url, target)
                return await self._look(target, kind)
            except (httpx.HTTPError, TimeoutError, BadPicture) as error:
                reason = str(error) if isinstance(error, BadPicture) else type(error).__name__
                hangs += isinstance(error, httpx.ReadTimeout | TimeoutError)
                if pause is None or hangs == _HANGS:
                    raise DownloadFailed(reason, isinstance(error, BadPicture)) from error
                log.info("a download failed (%s); again in %.1f s", reason, pause)
                await asyncio.sleep(pause)
        raise AssertionError("the last try ends the loop")

    async def _look(self, target: Path, kind: str | None) -> tuple[str, Size]:
        """Raises BadPicture, Fault `computation_failed`."""
        try:
            # Pictures of one job wait for one another, and not those of other jobs for them.
            found, width, height = await compute(
                self._computing, look, target, kind, seconds=PICTURE_SECONDS, share=target.parent
            )
        except Rejected as rejected:
            raise BadPicture(rejected.message) from rejected
        except TooLarge as error:
            raise BadPicture("it takes too much time or memory to be looked at") from error
        return found, Size(width, height)

    async def _stream(self, url: str, target: Path) -> None:
        from_api = True  # who gave the address: the API, or a host that it only led to
        for _ in range(_REDIRECTS + 1):
            request, from_api = await self._request(url, from_api)
            async with self._http.stream("GET", **request) as response:
                if response.is_redirect:
                    try:
                        url = urljoin(url, response.headers.get("location", ""))
                    except ValueError as error:
                        raise DownloadFailed("it redirects to no address") from error
                    continue
                if response.status_code in (401, 403, 404, 410):
                    raise Expired
                if response.status_code != 200:
                    raise httpx.HTTPStatusError("no file", request=response.request, response=response)
                if "," in response.headers.get("content-encoding", ""):
                    raise DownloadFailed("it is packed more than once")
                return await _write(response, target)
        raise DownloadFailed("it redirects without end")

    async def _request(self, url: str, from_api: bool) -> tuple[dict[str, Any], bool]:
        """What httpx is asked for, and whether that is on the API's host. Any other is asked on the very
        address that was checked, wherever its name leads a moment later; it leads to nothing of the API's.
        Raises DownloadFailed, and ConnectError where the name cannot be looked up now."""
        try:
            target = parse(url)
            written = httpx.URL(url)
            if from_api and self._is_the_apis(target.host) and written.scheme in {"https", self._api.scheme}:
                return {"url": written.copy_with(host=target.host)}, True
            if not target.origin.startswith("https:"):
                raise DownloadFailed("its address is not https")
            target = await self._targets.locate(target)
        except targeting.Fault as fault:
            if fault.code.startswith("dns_"):
                raise httpx.ConnectError("its host does not resolve") from fault
            raise DownloadFailed(f"its address is refused ({fault.code})") from fault
        except (httpx.InvalidURL, ValueError) as error:
            raise DownloadFailed("its address is none") from error
        headers = {"Host": target.web_origin.partition("://")[2]}
        place = written.copy_with(host=str(target.addresses[0]))
        return {"url": place, "headers": headers, "extensions": {"sni_hostname": target.host}}, False

    def _is_the_apis(self, host: str) -> bool:
        return host == self._api.hostname or (_is_loopback(host) and _is_loopback(self._api.hostname or ""))


async def _write(response: httpx.Response, target: Path) -> None:
    size = 0
    with target.open("wb") as file:
        async for piece in response.aiter_bytes(65536):
            size += len(piece)
            if size > MOST_BYTES:
                raise DownloadFailed(f"it has more than {MOST_BYTES} bytes")
            file.write(piece)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
