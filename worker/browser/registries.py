"""Addresses that are not, or not surely, a public server's: a table of our own.

`ipaddress.is_global` follows the standard library's copy of the registries, which differs between Python
3.11, 3.12.4 and 3.13. This one changes when it is edited. Sources, with rows up to 2025-04 (the newest are
3fff::/20 of 2024-07 and, outside 2000::/3, 100:0:0:1::/64 of 2025-04):

- IANA IPv4 Special-Purpose Address Registry (RFC 6890, RFC 8190), rows with the month of their allocation:
  https://www.iana.org/assignments/iana-ipv4-special-registry/
- IANA IPv6 Special-Purpose Address Registry, the same: https://www.iana.org/assignments/iana-ipv6-special-registry/
- IANA IPv4 Multicast Address Space Registry (RFC 5771): https://www.iana.org/assignments/multicast-addresses/
- IANA Internet Protocol Version 6 Address Space (RFC 4291, 2.4), last changed 2019-09-13: everything outside
  2000::/3 is reserved, local or multicast: https://www.iana.org/assignments/ipv6-address-space/

A row stays closed whatever its column "Globally Reachable" says: those blocks hold services of the nearest
network (PCP, TURN, AS112, AMT) or identifiers, never web pages.
"""

import ipaddress

SPECIAL_IPV4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network, 1981-09 (RFC 791)
        "10.0.0.0/8",  # private use, 1996-02 (RFC 1918)
        "100.64.0.0/10",  # shared by carriers, 2012-04 (RFC 6598); Alibaba's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback, 1981-09 (RFC 1122)
        "169.254.0.0/16",  # link local, 2005-05 (RFC 3927); metadata of most clouds at .169.254
        "172.16.0.0/12",  # private use, 1996-02 (RFC 1918)
        # IETF protocol assignments, 2010-01 (RFC 6890): DS-Lite 192.0.0.0/29, dummy .8, PCP .9, TURN .10,
        # NAT64 discovery .170 and .171; Oracle's metadata at .192
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation, 2010-01 (RFC 5737)
        "192.31.196.0/24",  # AS112-v4, 2014-12 (RFC 7535)
        "192.52.193.0/24",  # AMT, 2014-12 (RFC 7450)
        "192.88.99.0/24",  # was 6to4's relay, 2001-06, deprecated 2015-03 (RFC 7526)
        "192.168.0.0/16",  # private use, 1996-02 (RFC 1918)
        "192.175.48.0/24",  # direct delegation of AS112, 1996-01 (RFC 7534)
        "198.18.0.0/15",  # benchmarking, 1999-03 (RFC 2544)
        "198.51.100.0/24",  # documentation, 2010-01 (RFC 5737)
        "203.0.113.0/24",  # documentation, 2010-01 (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, 1989-08 (RFC 1112); limited broadcast 255.255.255.255, 1984-10 (RFC 919)
        # Not in a registry: a public address by its number, but the host's own inside Azure (the wire server:
        # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
        "168.63.129.16/32",
    )
)

GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # global unicast (RFC 4291); nothing else is

SPECIAL_IPV6 = tuple(
    ipaddress.IPv6Network(block)
    for block in (
        # IETF protocol assignments, 2000-09 (RFC 2928): Teredo 2001::/32, PCP 2001:1::1, TURN 2001:1::2,
        # DNS-SD 2001:1::3, benchmarking 2001:2::/48, AMT 2001:3::/32, AS112-v6 2001:4:112::/48, ORCHID
        # 2001:10::/28, ORCHIDv2 2001:20::/28, drones 2001:30::/28
        "2001::/23",
        "2001:db8::/32",  # documentation, 2004-07 (RFC 3849)
        "2002::/16",  # 6to4, 2001-02 (RFC 3056): an IPv4 address inside
        "2620:4f:8000::/48",  # direct delegation of AS112, 2011-05 (RFC 7534)
        "3fff::/20",  # documentation, 2024-07 (RFC 9637)
    )
)
