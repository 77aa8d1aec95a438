"""Requests to the Supabase project: one pool of connections, made at the first request, for all threads.

It is httpx's transport, without a client above it: no cookie of one caller's answer is kept for the next, no
redirect is followed, neither .netrc nor a proxy sees a token. Headers go with each request.
"""

import contextlib
import os
import random
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sidejob import log
from sidejob.errors import JSON, Unavailable
from sidejob.imports import absent

if TYPE_CHECKING:
    import httpx

POOL_SIZE = 16  # connections; as many as THREADS
KEEP_ALIVE_SECONDS = 30  # less than the project keeps them: one that is closed under a request loses it
RETRY_STATUSES = frozenset({429, 502, 503, 504})

HEADERS = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "sidejob"}

_lock = threading.Lock()
_shared: "httpx.HTTPTransport | None" = None


def _transport() -> "httpx.HTTPTransport":
    """The process's connections."""
    global _shared  # noqa: PLW0603  one pool a process is the point
    with _lock:
        if _shared is None:
            # Its HTTP/2 and its command line in colours, which it loads wherever they are installed, are a
            # tenth of a cold start.
            with absent("h2", "httpx._main"):
                import httpx

                limits = httpx.Limits(max_connections=POOL_SIZE, keepalive_expiry=KEEP_ALIVE_SECONDS)
                _shared = httpx.HTTPTransport(verify=_trust(), trust_env=False, limits=limits)
        return _shared


def _trust() -> ssl.SSLContext:
    """Whom to believe over TLS: the machine's own certificates, or certifi's where there are none.

    A hashed directory is read on demand; a whole file is parsed at once, which is a tenth of a cold start.
    SSL_CERT_FILE and SSL_CERT_DIR go first, as everywhere.
    """
    import httpx

    directory = Path(ssl.get_default_verify_paths().openssl_capath)
    named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if not named and any(directory.glob("????????.0")):
        return ssl.create_default_context(capath=str(directory))
    return httpx.create_ssl_context()


def send(
    service: str,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    json: JSON | Mapping[str, JSON] = None,
    repeatable: bool = False,
    timeout_seconds: float = 10,
) -> "httpx.Response":
    """Send one request; once more after a moment when that can do no harm.

    service: `auth`, `database` or `storage`; names the failure. repeatable: doing it twice is as good as
    once. timeout_seconds: for the answer; a connection has 2.
    A connection that could not be made is tried again in any case: nothing was sent.
    Raises Unavailable; an answer of any status is returned.
    """
    transport = _transport()
    import httpx

    patience = httpx.Timeout(timeout_seconds, connect=2, pool=2).as_dict()
    for last in (False, True):
        request = httpx.Request(
            method,
            url,
            headers={**HEADERS, **headers},
            params=params,
            json=json,
            extensions={"timeout": patience},
        )
        try:
            response = transport.handle_request(request)
            with contextlib.closing(response):
                response.read()
        except httpx.ReadTimeout as error:
            code = "database_timeout" if service == "database" else f"{service}_unavailable"
            raise Unavailable(code, cause="no answer in time") from error
        except httpx.TransportError as error:
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            if last or not (unsent or repeatable):
                raise Unavailable(f"{service}_unavailable", cause=type(error).__name__) from error
        else:
            if last or not repeatable or response.status_code not in RETRY_STATUSES:
                return response
        log.line("WARNING", f"{service} did not answer well; trying once more")
        time.sleep(random.uniform(0.05, 0.25))
    raise AssertionError("the second round returns or raises")
