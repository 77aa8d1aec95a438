"""Over real TLS: a host's certificate is checked for that host, and its connection is used for no other."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local.figma.pictures import png
from tests.worker.pools import computing
from worker.browser.addresses import IPAddress
from worker.browser.targets import Targets
from worker.figma import connections
from worker.figma.connections import HostTransport, no_cookies
from worker.figma.download import DownloadFailed, Downloads

PICTURE = png(3, 2, (1, 2, 3), "x")
ADDRESS = "127.0.0.1"
HOSTS = ("one.test", "two.test")  # with certificates; other.test is shown that of one.test


@dataclass
class Served:
    port: int = 0
    connections: list[str] = field(default_factory=list)  # the host that each was opened for
    asked: list[tuple[str, str, str]] = field(
        default_factory=list
    )  # that host, the Host and the Cookie field


def write_certificate(path: Path, host: str) -> bytes:
    """Returns the certificate; the file has its key too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    shown = certificate.public_bytes(pem)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + shown)
    return shown


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Served, ssl.SSLContext]]:
    """A server for all hosts on one address, and what trusts its certificates."""
    served, trust = Served(), ssl.create_default_context()
    contexts = {}
    for host in HOSTS:
        trust.load_verify_locations(cadata=write_certificate(folder / host, host).decode())
        contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[host].load_cert_chain(folder / host)

    def choose(connection: ssl.SSLObject, host: str, _: ssl.SSLContext) -> None:
        served.connections.append(host)
        connection.context = contexts.get(host, contexts[HOSTS[0]])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened_for = served.connections[-1]
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                served.asked.append((opened_for, fields["host"], fields.get("cookie", "")))
                head = f"HTTP/1.1 200 OK\r\nSet-Cookie: of={opened_for}\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
                writer.write(head.encode() + PICTURE)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    first = contexts[HOSTS[0]]
    first.sni_callback = choose
    server = await asyncio.start_server(serve, ADDRESS, 0, ssl=first)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served, trust
    finally:
        server.close()


@asynccontextmanager
async def downloads(port: int, trust: ssl.SSLContext) -> AsyncIterator[Downloads]:
    async def resolve(_: str) -> list[IPAddress]:
        return [ipaddress.ip_address(ADDRESS)]

    origins = frozenset(f"https://{host}:{port}" for host in (*HOSTS, "other.test"))
    transport = HostTransport(httpx.Limits(), trust)
    async with httpx.AsyncClient(transport=transport, cookies=no_cookies()) as http:
        yield Downloads(http, "https://api.figma.com", Targets(origins, resolve), computing())


async def test_hosts_of_one_address_share_neither_connections_nor_cookies(tmp_path: Path) -> None:
    async with serving(tmp_path) as (served, trust), downloads(served.port, trust) as some:
        for host in (*HOSTS, *HOSTS):
            await some.fetch(f"https://{host}:{served.port}/a.png", tmp_path / "file", "png")
        assert served.connections == [*HOSTS], "each host's own is used again"
        assert served.asked == [(host, f"{host}:{served.port}", "") for host in (*HOSTS, *HOSTS)]


async def test_a_certificate_is_checked_for_the_host_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.figma.download._TRIES", 1)
    async with serving(tmp_path) as (served, trust), downloads(served.port, trust) as some:
        await some.fetch(f"https://one.test:{served.port}/a.png", tmp_path / "file", "png")
        with pytest.raises(DownloadFailed, match="ConnectError"):
            await some.fetch(f"https://other.test:{served.port}/a.png", tmp_path / "file", "png")
        assert [host for host, *_ in served.asked] == ["one.test"]


async def test_connections_of_many_hosts_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are in use stay."""
    made: dict[str, httpx.MockTransport] = {}
    closed: list[str] = []

    class Mock(httpx.MockTransport):
        async def aclose(self) -> None:
            closed.extend(host for host, transport in made.items() if transport is self)

    def open_one(_: HostTransport, __: str, host: str) -> httpx.AsyncBaseTransport:
        made[host] = Mock(lambda _: httpx.Response(200, stream=httpx.ByteStream(b"x")))
        return made[host]

    monkeypatch.setattr(HostTransport, "_open", open_one)
    monkeypatch.setattr(connections, "MAX_HOSTS", 3)
    async with httpx.AsyncClient(transport=HostTransport(httpx.Limits())) as http:
        async with http.stream("GET", "https://busy.test/"):
            for number in range(5):
                await http.get(f"https://{number}.test/")
            assert closed == ["0.test", "1.test", "2.test"]
        await http.get("https://5.test/")
        assert closed == ["0.test", "1.test", "2.test", "busy.test"]
