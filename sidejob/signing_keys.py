"""The public keys that the project signs access tokens with, from /auth/v1/.well-known/jwks.json, kept in
memory.

Auth sends `max-age=600` and leaves symmetric keys out (supabase/auth, internal/api/jwks.go), so an empty set
is normal.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidejob import config, log, upstream
from sidejob.errors import Unavailable
from sidejob.imports import pyjwt

if TYPE_CHECKING:
    from jwt import PyJWK

FRESH_SECONDS = 600
STALE_SECONDS = 3600  # how old a set may get while Auth cannot be reached
UNKNOWN_SECONDS = 30  # in this time …
UNKNOWN_FETCHES = 3  # … at most so many fetches because of key ids that nobody knows: a rotation needs one
RETRY_SECONDS = 3  # at most one fetch in this time while Auth cannot be reached
TIMEOUT_SECONDS = 3
MAX_KEYS = 100  # of a set; Supabase has some 20 at most
NAMED_KEYS = 5  # damaged ones, in one line of the log
ALGORITHMS = frozenset({"ES256", "RS256"})


class SigningKeys:
    """Keys by id. One thread fetches at a time; the others go on with the old set as long as there is one."""

    def __init__(
        self, fetch: "Callable[[], dict[str, PyJWK]]", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at: float | None = None  # last success
        self._asked: deque[float] = deque(maxlen=UNKNOWN_FETCHES)  # the last tries
        self._failed = False  # the last of them

    def find(self, key_id: str) -> "PyJWK | None":
        """The key with this id, or None when the project has none such. Raises Unavailable."""
        key = self._keys.get(key_id)
        if key is not None and self._age() < FRESH_SECONDS:
            return key
        usable = key is not None and self._age() < STALE_SECONDS
        if not self._lock.acquire(blocking=not usable):
            return key
        try:
            self._refresh(key_id)
            return self._keys.get(key_id)
        finally:
            self._lock.release()

    def _refresh(self, key_id: str) -> None:
        age = self._age()
        if key_id in self._keys and age < FRESH_SECONDS:
            return  # another thread has just done it
        usable = key_id in self._keys and age < STALE_SECONDS
        if self._may_ask():
            self._asked.append(self._clock())
            try:
                self._keys = self._fetch()
                self._fetched_at = self._clock()
                self._failed = False
            except Unavailable as error:
                self._failed = True
                if not usable:
                    raise  # the key may be a new one: nobody can tell
                log.line("WARNING", "JWKS cannot be fetched; going on with the old one", cause=error.cause)
        elif self._failed and not usable:
            raise Unavailable("auth_unavailable", cause="JWKS could not be fetched a moment ago")

    def _may_ask(self) -> bool:
        now = self._clock()
        if self._failed:
            return now - self._asked[-1] >= RETRY_SECONDS
        often = len(self._asked) == UNKNOWN_FETCHES and now - self._asked[0] < UNKNOWN_SECONDS
        return self._age() >= FRESH_SECONDS or not often

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at


def fetched() -> "dict[str, PyJWK]":
    """The project's key set as it is now, as far as it is ES256 and RS256. Raises Unavailable."""
    response = upstream.send(
        "auth",
        "GET",
        "/auth/v1/.well-known/jwks.json",
        headers={"apikey": config.settings().publishable_key},
        repeatable=True,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    try:
        documents = response.json()["keys"] if response.ok else None
        if documents is None:
            raise ValueError(f"status {response.status}")
        if not isinstance(documents, list):
            raise TypeError("no list of keys")
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable("auth_unavailable", cause=f"JWKS: {type(error).__name__}") from error
    return _readable(documents)


def _readable(documents: list[object]) -> "dict[str, PyJWK]":
    """The keys that can be read. A damaged one takes no other with it: that would sign everybody out."""
    usable = [
        document
        for document in documents
        if isinstance(document, dict)
        and isinstance(document.get("alg"), str)
        and document["alg"] in ALGORITHMS
        and isinstance(document.get("kid"), str)
    ]
    if not usable:
        return {}
    jwt = pyjwt(asymmetric=True)
    keys: dict[str, PyJWK] = {}
    damaged: list[str] = []
    for document in usable[:MAX_KEYS]:
        try:
            keys[str(document["kid"])] = jwt.PyJWK(document)
        except Exception as error:  # noqa: BLE001  cryptography raises what it will, of a number out of a curve
            damaged.append(f"{str(document['kid'])[:100]} ({type(error).__name__})")
    if damaged:
        named = ", ".join(damaged[:NAMED_KEYS])
        log.line(
            "WARNING", "some of the project's signing keys cannot be read", damaged=len(damaged), named=named
        )
    return keys
