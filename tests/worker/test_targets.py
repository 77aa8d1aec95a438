"""Which addresses the browser may open, however they are spelled."""

import ipaddress
import socket

import pytest

from worker.browser.addresses import IPAddress, is_public
from worker.browser.faults import Fault
from worker.browser.targets import Targets

NAMES = {
    "public.example": ["93.184.215.14", "2606:2800:21f:cb07::1"],
    "inside.example": ["10.0.0.7"],
    "mixed.example": ["93.184.215.14", "127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "xn--bcher-kva.example": ["93.184.215.14"],
    "metadata.example": ["169.254.169.254"],
}


async def resolve(host: str) -> list[IPAddress]:
    if host == "later.example":
        raise socket.gaierror(socket.EAI_AGAIN, "try again")
    name = host.rstrip(".")
    if name not in NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")
    return [ipaddress.ip_address(address) for address in NAMES[name]]


VERDICTS = {
    "http://public.example": None,
    "https://public.example/path?q=1#top": None,
    "HTTPS://PUBLIC.EXAMPLE:8443/": None,
    "http://bücher.example/": None,
    "http://93.184.215.14/": None,
    "http://[2606:2800:21f:cb07::1]/": None,
    # not addresses
    "": "invalid_url",
    "public.example": "invalid_url",
    "//public.example": "invalid_url",
    "http:public.example": "invalid_url",
    "http:/public.example": "invalid_url",
    "http:///public.example": "invalid_url",
    "http://": "invalid_url",
    "http://public.example:0x50/": "invalid_url",
    "http://public.example:99999/": "invalid_url",
    "http://public.example:0/": "invalid_url",
    "http://" + "a" * 100_000 + "/": "invalid_url",
    "http://" + "%61" * 100_000 + "/": "invalid_url",
    "http://" + "ä" * 100_000 + "/": "invalid_url",
    "http://public.example:" + "8" * 5000 + "/": "invalid_url",
    " http://public.example": "invalid_url",
    "http://public.example/a b": "invalid_url",
    "http://pub\tlic.example": "invalid_url",
    "http:\\\\public.example": "invalid_url",
    "http://public.example\\@inside.example": "invalid_url",
    "http://user@public.example": "invalid_url",
    "http://user:word@public.example": "invalid_url",
    "http://public.example@inside.example": "invalid_url",
    "http://..example": "invalid_url",
    "http://1.2.3.4.5/": "invalid_url",
    "http://256.1.1.1/": "invalid_url",
    "http://[::1": "invalid_url",
    "http://[fe80::1%25eth0]/": "blocked_address",
    "http://[v1.x]/": "invalid_url",
    # other schemes
    "file:///etc/passwd": "blocked_scheme",
    "FILE:/etc/passwd": "blocked_scheme",
    "ftp://public.example": "blocked_scheme",
    "javascript:alert(1)": "blocked_scheme",
    "data:text/html,x": "blocked_scheme",
    "blob:http://public.example/1": "blocked_scheme",
    "about:blank": "blocked_scheme",
    "chrome://version": "blocked_scheme",
    "view-source:http://public.example": "blocked_scheme",
    "ws://public.example": "blocked_scheme",
    "filesystem:http://public.example/": "blocked_scheme",
    # not public
    "http://127.0.0.1/": "blocked_address",
    "http://localhost/": "blocked_address",
    "http://LOCALHOST:3000/": "blocked_address",
    "http://localhost./": "blocked_address",
    "http://a.localhost/": "blocked_address",
    "http://0.0.0.0/": "blocked_address",
    "http://10.1.2.3/": "blocked_address",
    "http://172.16.0.1/": "blocked_address",
    "http://192.168.1.1/": "blocked_address",
    "http://100.64.0.1/": "blocked_address",
    "http://168.63.129.16/metadata": "blocked_address",
    "http://2822734096/": "blocked_address",
    "http://100.100.100.200/": "blocked_address",
    "http://192.0.0.192/": "blocked_address",
    "http://[::ffff:0:93.184.215.14]/": "blocked_address",
    "http://[2a00:1450::5efe:127.0.0.1]/": "blocked_address",
    "http://[4000::1]/": "blocked_address",
    "http://[3fff::1]/": "blocked_address",
    "http://[5f00::1]/": "blocked_address",
    "http://169.254.169.254/latest/meta-data/": "blocked_address",
    "http://224.0.0.1/": "blocked_address",
    "http://255.255.255.255/": "blocked_address",
    "http://[::1]/": "blocked_address",
    "http://[::]/": "blocked_address",
    "http://[::ffff:127.0.0.1]/": "blocked_address",
    "http://[::ffff:7f00:1]/": "blocked_address",
    "http://[::127.0.0.1]/": "blocked_address",
    "http://[64:ff9b::7f00:1]/": "blocked_address",
    "http://[64:ff9b:1::1]/": "blocked_address",
    "http://[2002:7f00:1::]/": "blocked_address",
    "http://[2001:0:7f00:1::]/": "blocked_address",
    "http://[2001:db8::1]/": "blocked_address",
    "http://[fc00::1]/": "blocked_address",
    "http://[fe80::1]/": "blocked_address",
    "http://[fec0::1]/": "blocked_address",
    "http://[ff02::1]/": "blocked_address",
    "http://[100::1]/": "blocked_address",
    "http://[0:0:0:0:0:0:0:1]/": "blocked_address",
    "http://inside.example/": "blocked_address",
    "http://mixed.example/": "blocked_address",
    "http://mapped.example/": "blocked_address",
    "http://metadata.example/": "blocked_address",
    # loopback in disguise
    "http://127.1/": "blocked_address",
    "http://127.0.1/": "blocked_address",
    "http://0x7f.1/": "blocked_address",
    "http://0x7F.0.0.0x1/": "blocked_address",
    "http://0177.0.0.1/": "blocked_address",
    "http://2130706433/": "blocked_address",
    "http://0x7f000001/": "blocked_address",
    "http://017700000001/": "blocked_address",
    "http://127.0.0.1./": "blocked_address",
    "http://0/": "blocked_address",
    "http://１２７.０.０.１/": "blocked_address",  # noqa: RUF001  the disguise is the point
    "http://127。0。0。1/": "blocked_address",
    "http://①②⑦.0.0.1/": "blocked_address",
    "http://%31%32%37.0.0.1/": "blocked_address",
    "http://ｌｏｃａｌｈｏｓｔ/": "blocked_address",  # noqa: RUF001
    "http://inside.example./": "blocked_address",
    # public, but oddly spelled
    "http://0x5db8d70e/": "invalid_url",
    "http://93.12113678/": "invalid_url",
    "http://93.184.215.14./": "invalid_url",
    "http://public.example./": "invalid_url",
    # names
    "http://nowhere.example/": "dns_not_found",
    "http://later.example/": "dns_failed",
}


@pytest.mark.parametrize(("url", "code"), VERDICTS.items())
async def test_each_spelling_has_its_verdict(url: str, code: str | None) -> None:
    targets = Targets(resolve=resolve)
    if code is None:
        await targets.check(url)
        return
    with pytest.raises(Fault) as caught:
        await targets.check(url)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:3000/page", True),
        ("HTTP://127.0.0.1:3000", True),
        ("http://LOCALHOST:4000/", True),
        ("http://inside.example/", True),
        ("http://inside.example:80/", True),
        ("http://[::1]:5000/", True),
        ("http://127.0.0.1:3001/", False),
        ("https://127.0.0.1:3000/", False),
        ("http://localhost:3000/", False),
        ("http://127.1:3000/", False),
        ("http://0x7f.1:3000/", False),
        ("http://127.0.0.1.:3000/", False),
        ("http://[::ffff:127.0.0.1]:3000/", False),
        ("http://inside.example.:80/", False),
        ("https://inside.example/", False),
    ],
)
async def test_an_allowed_origin_is_allowed_exactly_as_written(url: str, allowed: bool) -> None:
    origins = {
        "http://127.0.0.1:3000",
        "http://localhost:4000",
        "http://inside.example:80",
        "http://[::1]:5000",
    }
    targets = Targets(frozenset(origins), resolve)
    if allowed:
        await targets.check(url)
    else:
        with pytest.raises(Fault, match="blocked_address"):
            await targets.check(url)


def test_addresses_that_carry_others_are_not_public() -> None:
    for text in ("192.0.2.1", "198.18.0.1", "203.0.113.9", "240.0.0.1", "192.88.99.1"):
        assert not is_public(ipaddress.ip_address(text)) or text == "192.88.99.1"
    assert is_public(ipaddress.ip_address("::ffff:93.184.215.14"))
