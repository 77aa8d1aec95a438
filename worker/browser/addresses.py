"""Which addresses are public, and what a browser would make of a host as written."""

import ipaddress
import re
from typing import TypeAlias
from urllib.parse import unquote

import idna

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# `is_global` passes several of these; each can lead to an IPv4 address inside, or was never to be routed.
_NEVER_PUBLIC = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "::/96",
        "fec0::/10",
        "2002::/16",
        "2001::/32",
        "100::/64",
        "2001:db8::/32",
    )
)


def is_public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.scope_id or any(address in network for network in _NEVER_PUBLIC):
            return False
    return address.is_global and not address.is_multicast


def plain_host(host: str) -> str:
    """The host as a browser reads it (WHATWG URL, host parsing): percent-decoded, mapped to lower ASCII.
    Raises ValueError when it is none."""
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
