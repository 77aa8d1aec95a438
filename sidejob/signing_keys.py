"""The public keys that the project signs access tokens with, from /auth/v1/.well-known/jwks.json, kept in
memory.

Auth sends `max-age=600` and leaves symmetric keys out (supabase/auth, internal/api/jwks.go), so an empty set
is normal.
"""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidejob import config, log, upstream
from sidejob.errors import Unavailable

if TYPE_CHECKING:
    from jwt import PyJWK

FRESH_SECONDS = 600
STALE_SECONDS = 3600  # how old a set may get while Auth cannot be reached
UNKNOWN_SECONDS = 30  # at most one fetch in this time because of a key id that nobody knows
RETRY_SECONDS = 3  # at most one fetch in this time while Auth cannot be reached
TIMEOUT_SECONDS = 3
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
        self._asked_at: float | None = None  # last try

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
        pause = UNKNOWN_SECONDS if age < FRESH_SECONDS else RETRY_SECONDS
        if self._asked_at is None or self._clock() - self._asked_at >= pause:
            self._asked_at = self._clock()
            try:
                self._keys = self._fetch()
                self._fetched_at = self._clock()
            except Unavailable as error:
                if age >= STALE_SECONDS:
                    raise
                log.line("WARNING", "JWKS cannot be fetched; going on with the old one", cause=error.cause)
        elif age >= STALE_SECONDS:
            raise Unavailable("auth_unavailable", cause="JWKS could not be fetched a moment ago")

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at


def fetched() -> "dict[str, PyJWK]":
    """The project's key set as it is now, as far as it is ES256 and RS256. Raises Unavailable."""
    import jwt

    settings = config.settings()
    response = upstream.send(
        "auth",
        "GET",
        f"{settings.supabase_url}/auth/v1/.well-known/jwks.json",
        headers={"apikey": settings.publishable_key},
        repeatable=True,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    try:
        documents = response.json()["keys"] if response.is_success else None
        if documents is None:
            raise ValueError(f"status {response.status_code}")
        usable = [
            document for document in documents if document.get("alg") in ALGORITHMS and document.get("kid")
        ]
        return {document["kid"]: jwt.PyJWK(document) for document in usable}
    except (ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise Unavailable("auth_unavailable", cause=f"JWKS: {type(error).__name__}") from error
