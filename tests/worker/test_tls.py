"""Whose certificates are taken; and that a host wants to be asked over TLS alone (RFC 6797) is remembered by the job
that was told so, and by no other."""

import base64
import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.worker.conftest import Camera
from tests.worker.site import Site
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine
from worker.browser.launching import Launch
from worker.browser.targets import Target, Targets

HOST = "strict.test"


class _There(Targets):
    """Knows one host, and finds its two ports where the tests serve them."""

    def __init__(self, plain: int, secure: int) -> None:
        super().__init__()
        self._ports = {80: plain, 443: secure}

    async def locate(self, target: Target) -> Target:
        assert target.host == HOST
        port = self._ports[target.port]
        return replace(target, port=port, addresses=(IPv4Address("127.0.0.1"),), allowed=True)


class _Trusting(Launch):
    """Takes one key for a good one: a host whose certificate is only put up with is not believed."""

    key = ""

    def _options(self, sandboxed: bool) -> dict[str, Any]:
        options = super()._options(sandboxed)
        trusted = f"--ignore-certificate-errors-spki-list={self.key}"
        return {**options, "args": [*options["args"], trusted]}


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[int]:
    """The port. With a certificate: over TLS, with the wish to be asked so, and a way back to plain HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            leads_back = certificate is not None and self.path == "/"
            self.send_response(302 if leads_back else 200)
            if leads_back:
                self.send_header("Location", f"http://{HOST}/again")
                self.send_header("Strict-Transport-Security", "max-age=86400")
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>secure</title>" if certificate is not None else b"<title>plain</title>")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _certificate(path: Path) -> str:
    """Writes key and certificate; returns the hash of the public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    ).add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    pem, unencrypted = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted)
        + builder.sign(key, hashes.SHA256()).public_bytes(pem)
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


@dataclass(frozen=True)
class Host:
    key: str  # what a browser that trusts its certificate is told
    egress: Egress


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    certificate = tmp_path / "host.pem"
    key = _certificate(certificate)
    with serving() as plain, serving(certificate) as secure:
        yield Host(key, Egress(_There(plain, secure)))


async def test_a_certificate_that_nobody_vouches_for_is_taken_only_where_job_and_worker_say_so(
    camera: Camera, host: Host
) -> None:
    camera._egress = host.egress
    page = {"url": f"https://{HOST}/again"}
    assert (await camera.fault(page))[0] == "tls_error"
    assert (await camera.fault(page, insecure=True))[0] == "tls_error"
    shot = await camera.shoot({**page, "ignoreTlsErrors": True}, insecure=True)
    assert shot.result["title"] == "secure"


async def test_what_a_host_wants_is_not_known_to_the_next_job(site: Site, host: Host) -> None:
    launch = type("_TrustingThis", (_Trusting,), {"key": host.key})()
    async with Engine.running(launch) as engine:
        camera = Camera(engine, site)
        camera._egress = host.egress
        told = await camera.shoot({"url": f"https://{HOST}/"})
        assert told.result["finalUrl"] == f"https://{HOST}/again", "the job itself was told"
        assert told.result["title"] == "secure"
        other = await camera.shoot({"url": f"http://{HOST}/again"})
        assert (other.result["finalUrl"], other.result["title"]) == (f"http://{HOST}/again", "plain")
