"""Connections that are kept for one host each.

A download is asked of the address that was checked, so that httpx sees an address where the host's name was.
Two hosts of one address (buckets of one region, sites of one CDN) would share a TLS connection, and with it a
certificate that was checked for the other.
"""

import ssl
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

MAX_HOSTS = 32  # whose connections are kept; those of the one that was asked longest ago are closed


@dataclass(slots=True)
class _Pool:
    transport: httpx.AsyncBaseTransport
    answers: int = 0  # still being read


class HostTransport(httpx.AsyncBaseTransport):
    """Asks each host on connections of its own. A request names its host in `sni_hostname` where its URL does
    not."""

    def __init__(self, limits: httpx.Limits, trust: ssl.SSLContext | None = None) -> None:
        """`trust`: certificates that are believed; usually those that httpx takes."""
        self._limits = limits
        self._trust = trust or httpx.create_ssl_context()
        self._pools: dict[tuple[str, str], _Pool] = {}  # by scheme and host, the last asked at the end

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pool = await self._pool(request.url.scheme, request.extensions.get("sni_hostname", request.url.host))
        pool.answers += 1
        try:
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            pool.answers -= 1
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  an asynchronous transport's
        response.stream = _Counted(response.stream, pool)
        return response

    async def aclose(self) -> None:
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.transport.aclose()

    async def _pool(self, scheme: str, host: str) -> _Pool:
        key = (scheme, host.lower())
        pool = self._pools.pop(key, None) or _Pool(self._open(scheme, host))
        self._pools[key] = pool
        unused = [each for each, other in self._pools.items() if not other.answers and each != key]
        for old in unused[: max(0, len(self._pools) - MAX_HOSTS)]:
            await self._pools.pop(old).transport.aclose()
        return pool

    def _open(self, scheme: str, host: str) -> httpx.AsyncBaseTransport:
        """Through the environment's proxy, where it names one: a client with a transport of its own does not
        look for one."""
        proxies = {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()
        proxy = proxies.get(scheme) or proxies.get("all") or None
        return httpx.AsyncHTTPTransport(verify=self._trust, limits=self._limits, proxy=proxy)


class _Counted(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, pool: _Pool) -> None:
        self._stream = stream
        self._pool: _Pool | None = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            if self._pool is not None:
                self._pool.answers -= 1
                self._pool = None


def no_cookies() -> CookieJar:
    """Remembers nothing: what one host sets is not for another that has its address, nor for another job."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
