"""Requests to the Supabase project: its connections, made at the first request, and what is tried again."""

import random
import threading
import time
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlencode

from sidejob import config, jsontext, log
from sidejob.connections import Answer, Connections, Unsent
from sidejob.errors import UPSTREAM, Unavailable
from sidejob.jsontext import JSON
from sidejob.verdicts import verdict

POOL_SIZE = 16  # connections; as many as THREADS
CONNECT_SECONDS = 2
KEEP_ALIVE_SECONDS = 30  # less than the project keeps them: one that is closed under a request loses it
ANSWER_BYTES = 16 * 1024 * 1024  # no answer that is read as a whole has more

HEADERS = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "sidejob"}

_lock = threading.Lock()
_shared: Connections | None = None


def _connections() -> Connections:
    """The process's own."""
    global _shared  # noqa: PLW0603  one pool a process is the point
    with _lock:
        if _shared is None:
            _shared = Connections(
                config.settings().supabase_url,
                size=POOL_SIZE,
                connect_seconds=CONNECT_SECONDS,
                kept_seconds=KEEP_ALIVE_SECONDS,
            )
        return _shared


def send(
    service: str,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    body: Mapping[str, JSON] | None = None,
    repeatable: bool = False,
    timeout_seconds: float = 10,
    max_bytes: int = ANSWER_BYTES,
) -> Answer:
    """Send one request; once more after a moment when that can do no harm.

    service: `auth`, `database` or `storage`; names the failure. path: below SUPABASE_URL. repeatable: doing
    it twice is as good as once. timeout_seconds: for the answer; a connection has CONNECT_SECONDS.
    max_bytes: of its content; the rest is not read.
    A request that could not be sent is tried again in any case.
    Raises Unavailable; an answer of any status is returned.
    """
    connections = _connections()
    if params:
        path = f"{path}?{urlencode(params)}"
    headers = {**HEADERS, **headers}
    content = None
    if body is not None:
        content = jsontext.dumps(dict(body))
        headers["content-type"] = "application/json"
    for last in (False, True):
        try:
            answer = connections.send(method, path, headers, content, timeout_seconds, max_bytes)
        except TimeoutError as error:
            code = "database_timeout" if service == "database" else f"{service}_unavailable"
            raise Unavailable(code, cause="no answer in time") from error
        except (Unsent, OSError, HTTPException, zlib.error) as error:
            unsent = isinstance(error, Unsent)
            if last or not (unsent or repeatable):
                cause = str(error) if unsent else type(error).__name__
                raise Unavailable(f"{service}_unavailable", cause=cause) from error
        else:
            if last or not repeatable or not _may_pass(service, answer):
                return answer
        log.line("WARNING", f"{service} did not answer well; trying once more")
        time.sleep(random.uniform(0.05, 0.25))
    raise AssertionError("the second round returns or raises")


def failure_code(answer: Answer) -> str:
    """The SQLSTATE or PostgREST code of the database's refusal; "" where it gave none."""
    try:
        told = answer.json()
    except ValueError:
        return ""
    code = told.get("code") if isinstance(told, dict) else None
    return code if isinstance(code, str) else ""


def _may_pass(service: str, answer: Answer) -> bool:
    """Is it a failure that the same request may not meet a moment later? A redirect stays what it is, and
    what has just taken all the time there is would do so again."""
    if answer.status < 400:
        return False
    code = failure_code(answer) if service == "database" else ""
    return verdict(code, answer.status) == "later" and UPSTREAM.get(code) != "database_timeout"
