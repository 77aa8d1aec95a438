"""May a page open this address, and where is it?"""

import asyncio
import copy
import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from worker.browser.addresses import IPAddress, is_public, literal, plain_host
from worker.browser.faults import Fault
from worker.browser.lookups import Lookups, Resolve

_DNS_SECONDS = 5
_NOT_PUBLIC = "The address is not public."


@dataclass(frozen=True, slots=True)
class Target:
    """An address in its parts, as the browser will read it."""

    url: str
    origin: str  # scheme://host:port, the port always there
    host: str  # plain, without brackets
    port: int
    address: IPAddress | None  # when the host is one
    addresses: tuple[IPAddress, ...] = ()  # where it is, once it was looked up; each of them was checked
    allowed: bool = False  # by name, in spite of a private address

    @property
    def web_origin(self) -> str:
        """As browsers write it: without the port that the scheme implies (WHATWG HTML, origin)."""
        scheme, usual = self.origin.partition(":")[0], {"http": ":80", "https": ":443"}
        return self.origin.removesuffix(usual[scheme])


def parse(url: str) -> Target:
    """Raises Fault `invalid_url`, `blocked_scheme`, or `blocked_address` for a private address oddly
    spelled."""
    if re.search(r"[\x00-\x20\x7f-\x9f\\]", url):
        raise Fault("invalid_url", "payload.url has a space, a control character or a backslash.")
    scheme, colon, rest = url.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise Fault("invalid_url", "payload.url must begin with https:// or http://.")
    if scheme.lower() not in ("http", "https"):
        raise Fault("blocked_scheme", "payload.url must begin with https:// or http://.")
    if not rest.startswith("//") or rest.startswith("///"):
        raise Fault("invalid_url", "payload.url must begin with https:// or http:// and a host.")
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else 443 if parts.scheme == "https" else 80
    except ValueError as error:
        raise Fault("invalid_url", "payload.url has no proper host and port.") from error
    if port == 0:
        raise Fault("invalid_url", "payload.url names port 0, which nobody can listen on.")
    if "@" in parts.netloc:
        raise Fault("invalid_url", "payload.url must not hold a user or password; use httpAuth.")
    host, address = _host(parts.hostname or "", parts.netloc.startswith("["))
    shown = f"[{host}]" if address is not None and address.version == 6 else host
    return Target(url, f"{parts.scheme}://{shown}:{port}", host, port, address)


def _host(written: str, bracketed: bool) -> tuple[str, IPAddress | None]:
    try:
        if bracketed:
            address: IPAddress | None = ipaddress.IPv6Address(written)
            return written.lower(), address
        plain = plain_host(written)
        address = literal(plain)
    except ValueError as error:
        raise Fault("invalid_url", "payload.url has no proper host.") from error
    if address is not None and plain != str(address):
        if not is_public(address):
            raise Fault("blocked_address", _NOT_PUBLIC)
        raise Fault(
            "invalid_url", "payload.url spells an address in an odd way; write it as four plain numbers."
        )
    return plain, address


class Targets:
    """The check: an allowed origin, exactly as written, or nothing but public addresses."""

    def __init__(
        self,
        allow_origins: frozenset[str] = frozenset(),
        resolve: Resolve | None = None,
        lookups: Lookups | None = None,
    ) -> None:
        self._allowed = allow_origins
        self._given = resolve
        self._lookups = lookups or Lookups()
        self._resolve = resolve or self._lookups.share()

    def of_one_job(self) -> "Targets":
        """The same, with a share of its own of the names that are looked up at once."""
        job = copy.copy(self)
        job._resolve = self._given or self._lookups.share()  # noqa: SLF001  of our own class
        return job

    async def check(self, url: str) -> Target:
        """Raises Fault: `invalid_url`, `blocked_scheme`, `blocked_address`, `dns_not_found`, `dns_failed`."""
        return await self.locate(parse(url))

    def allows(self, url: str) -> bool:
        """By name. Raises Fault as `parse` does."""
        return parse(url).origin in self._allowed

    async def locate(self, target: Target) -> Target:
        """With its addresses, all public unless it is allowed by name. Raises Fault as `check` does."""
        if target.origin in self._allowed:
            return replace(target, addresses=await self._addresses(target), allowed=True)
        if target.host.endswith("."):
            if target.address is None and not await self._public(target):
                raise Fault("blocked_address", _NOT_PUBLIC)
            raise Fault("invalid_url", "payload.url has a host that ends in a dot.")
        found = await self._public(target)
        if not found:
            raise Fault("blocked_address", _NOT_PUBLIC)
        return replace(target, addresses=found)

    async def _public(self, target: Target) -> tuple[IPAddress, ...]:
        """None if one of them is not: a name that answers with both kinds is a way inside."""
        addresses = await self._addresses(target)
        return addresses if all(is_public(address) for address in addresses) else ()

    async def _addresses(self, target: Target) -> tuple[IPAddress, ...]:
        if target.address is not None:
            return (target.address,)
        if _is_local(target.host):
            return _LOOPBACK
        try:
            async with asyncio.timeout(_DNS_SECONDS):
                return tuple(dict.fromkeys(await self._resolve(target.host)))
        except (TimeoutError, socket.gaierror, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, _NO_DATA):
                raise Fault("dns_not_found", "The host name does not resolve.") from error
            raise Fault("dns_failed", "The host name could not be resolved just now.") from error


def _is_local(host: str) -> bool:
    """These lead to loopback, and nobody is asked (RFC 6761, 6.3)."""
    return host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")


_LOOPBACK: tuple[IPAddress, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))
_NO_DATA = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)
