"""What is public, row by row of IANA's registries: the first and the last address of each, and their neighbours."""

import ipaddress
from itertools import chain

import pytest

from worker.browser.addresses import IPAddress, is_public

# As the registries have them, smaller blocks within larger ones included: see worker/browser/registries.py.
IPV4 = [
    "0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32", "192.0.0.171/32", "192.0.2.0/24",
    "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
]  # fmt: skip
IPV6 = [
    "::1/128", "::/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32",
    "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48", "2001:10::/28",
    "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7",
    "fe80::/10",
]  # fmt: skip
IPV6_SPACE = [  # but for 2000::/3
    "0::/8", "100::/8", "200::/7", "400::/6", "800::/5", "1000::/4", "4000::/3", "6000::/3", "8000::/3", "a000::/3", "c000::/3", "e000::/4",
    "f000::/5", "f800::/6", "fc00::/7", "fe00::/9", "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip
OTHERS = ["168.63.129.16/32", "::/96", "::ffff:0:0:0/96"]  # Azure's own; IPv4-compatible; IPv4-translated
MAPPED = ipaddress.ip_network("::ffff:0:0/96")
BLOCKS = [ipaddress.ip_network(block) for block in (*IPV4, *IPV6, *IPV6_SPACE, *OTHERS)]


def is_in_a_block(address: IPAddress) -> bool:
    return any(address.version == block.version and address in block for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_no_address_of_a_registered_block_is_public(
    block: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    if block == MAPPED:  # as its IPv4 address is: both ends are reserved there
        assert is_public(ipaddress.ip_address("::ffff:93.184.215.14"))
    middle = block[block.num_addresses // 2]
    if block not in (MAPPED, ipaddress.ip_network("::/8")):
        assert not is_public(middle)
    assert not is_public(block[0])
    assert not is_public(block[-1])


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_neighbour_of_a_block_is_public_unless_it_is_in_another(
    block: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    kind = ipaddress.IPv4Address if block.version == 4 else ipaddress.IPv6Address
    for number in (int(block[0]) - 1, int(block[-1]) + 1):
        if 0 <= number < 2**block.max_prefixlen:
            neighbour = kind(number)
            assert is_public(neighbour) is not is_in_a_block(neighbour), neighbour


PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.215.14", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "168.63.129.15", "168.63.129.17", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "2001:200::", "2001:4860:4860::8888", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "2003::",
    "2606:4700::1111", "2620:4f:7fff::1", "2a00:1450::1", "3ffe:ffff::", "2a00::5eff:1:1", "::ffff:8.8.8.8",
]  # fmt: skip
NOT_PUBLIC = {
    "Azure": "168.63.129.16", "Alibaba": "100.100.100.200", "Oracle": "192.0.0.192", "most clouds": "169.254.169.254", "AWS tasks": "169.254.170.2",
    "AWS, IPv6": "fd00:ec2::254", "Google, IPv6": "fd20:ce::254", "Scaleway, IPv6": "fd00:42::42",
    "mapped": "::ffff:10.0.0.1", "mapped Azure": "::ffff:168.63.129.16", "translated": "::ffff:0:8.8.8.8", "translated, private": "::ffff:0:10.0.0.1",
    "compatible": "::8.8.8.8", "NAT64": "64:ff9b::808:808", "NAT64, local use": "64:ff9b:1:ffff::808:808", "NAT64, local use, end": "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
    "6to4": "2002:808:808::1", "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2", "ISATAP": "2a00:1450::5efe:10.0.0.1",
    "ISATAP, global": "2a00:1450::200:5efe:8.8.8.8", "site local": "fec0::1", "reserved": "4000::1", "near the end": "fdff::1", "multicast": "ff0e::1",
    "zone": "2606:4700::1111%1", "link local with a zone": "fe80::1%1",
}  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("name", NOT_PUBLIC)
def test_not_public(name: str) -> None:
    assert not is_public(ipaddress.ip_address(NOT_PUBLIC[name]))


def test_it_does_not_depend_on_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {text: is_public(ipaddress.ip_address(text)) for text in chain(PUBLIC, NOT_PUBLIC.values())}
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        for name in (
            "is_global",
            "is_private",
            "is_reserved",
            "is_multicast",
            "is_link_local",
            "is_loopback",
        ):
            monkeypatch.setattr(kind, name, property(lambda _: 1 / 0))
    assert {text: is_public(ipaddress.ip_address(text)) for text in known} == known
