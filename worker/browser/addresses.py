"""Which addresses are public, and what a browser would make of a host as written."""

import ipaddress
import re
from typing import TypeAlias
from urllib.parse import unquote

import idna

from worker.browser.registries import GLOBAL_IPV6, SPECIAL_IPV4, SPECIAL_IPV6

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_HOST = 3000  # characters as written, of at most 254 once they are decoded and mapped

# The upper half of an interface identifier made of an IPv4 address (ISATAP: RFC 5214, 6.1), in any network.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def is_public(address: IPAddress) -> bool:
    """Whether it can only be a server of the public Internet, by the tables of `registries`.

    An IPv6 address that carries an IPv4 address (translated, compatible, NAT64, 6to4, Teredo, ISATAP) is not:
    where it leads is up to whoever translates. An IPv4-mapped one never leaves this machine as IPv6, and is
    what its IPv4 address is.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in block for block in SPECIAL_IPV4)
    if address.ipv4_mapped is not None:
        return not address.scope_id and is_public(address.ipv4_mapped)
    if address.scope_id or address not in GLOBAL_IPV6 or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return False
    return not any(address in block for block in SPECIAL_IPV6)


def plain_host(host: str) -> str:
    """The host as a browser reads it (WHATWG URL, host parsing): percent-decoded, mapped to lower ASCII.
    Raises ValueError when it is none."""
    if len(host) > _MAX_HOST:
        raise ValueError("the host is not a name")
    decoded = unquote(host, errors="strict")
    if decoded.isascii():
        plain = decoded.lower()
    else:
        try:
            plain = idna.uts46_remap(decoded, std3_rules=False).lower()
            if not plain.isascii():
                plain = idna.encode(plain).decode()
        except idna.IDNAError as error:
            raise ValueError("the host is not a name") from error
    if not re.fullmatch(r"[a-z0-9._-]{1,254}", plain) or ".." in plain or plain.startswith("."):
        raise ValueError("the host is not a name")
    return plain


def literal(plain: str) -> IPAddress | None:
    """The IPv4 address that a browser makes of a host ending in a number (WHATWG URL, IPv4 parser), or None.
    Raises ValueError when the host ends in a number but is no address."""
    labels = plain.removesuffix(".").split(".")
    if not re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
        return None
    numbers = []
    for label in labels:
        if not re.fullmatch(r"\d+|0x[0-9a-f]*", label):
            raise ValueError("the host is not an address")
        base, digits = (
            (16, label[2:])
            if label.startswith("0x")
            else (8, label)
            if label.startswith("0")
            else (10, label)
        )
        numbers.append(int(digits or "0", base))
    if (
        len(numbers) > 4
        or any(number > 255 for number in numbers[:-1])
        or numbers[-1] >= 256 ** (5 - len(numbers))
    ):
        raise ValueError("the host is not an address")
    value = numbers[-1] + sum(number * 256 ** (3 - index) for index, number in enumerate(numbers[:-1]))
    return ipaddress.IPv4Address(value)
