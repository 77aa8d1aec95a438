"""The worker's session: signed in as its own user, refreshed in time, signed in again when that fails."""

import asyncio
import logging
import time

import httpx
from supabase import AsyncClient, AsyncClientOptions
from supabase_auth.errors import AuthApiError, AuthError
from supabase_auth.types import Session as Tokens

from sidejob.verdicts import verdict
from worker.errors import Later, ProjectError, SignInRefused, Unreachable
from worker.settings import Settings

log = logging.getLogger(__name__)

_MARGIN_SECONDS = 60  # refreshed when less than this is left
_AGAIN_SECONDS = 5  # after which a refresh that failed is tried again, while the session lasts
_HANDING_BACK_SECONDS = 20  # what a worker that is locked out keeps of its session, to hand its jobs back
_ODD = (KeyError, TypeError, ValueError, AttributeError, RecursionError)  # of reading an unexpected answer
_REFUSALS = 3  # one may be a mistake of the project's


class Session:
    """Keeps `client` signed in. supabase-py's own timer is off: it gives up after some network failures.

    `locked_out` says why, once signing in is refused and the session is about to end.
    """

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        options = AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, postgrest_client_retry=False, httpx_client=http
        )
        self.client = AsyncClient(settings.supabase_url, settings.publishable_key, options)
        self._settings = settings
        self._tokens: Tokens | None = None
        self._renew_at = self._ends_at = 0.0  # time.monotonic()
        self._refusals = 0
        self.locked_out: SignInRefused | None = None
        self._lock = asyncio.Lock()

    async def user_id(self) -> str:
        """Raises Unreachable, SignInRefused."""
        return (await self._fresh()).user.id

    async def token(self) -> str:
        """An access token that lasts a little longer. Raises Unreachable, SignInRefused."""
        return (await self._fresh()).access_token

    async def reject(self, token: str) -> None:
        """The project did not accept `token`: the next caller signs in anew."""
        async with self._lock:
            if self._tokens is not None and self._tokens.access_token == token:
                self._tokens = None

    async def _fresh(self) -> Tokens:
        async with self._lock:
            if self._tokens is not None and time.monotonic() < self._renew_at:
                return self._tokens
            asked = time.monotonic()
            try:
                self._tokens = await self._renew(self._tokens)
            except ProjectError as error:
                left = self._ends_at - time.monotonic() if self._tokens is not None else 0
                if isinstance(error, SignInRefused):
                    self._refusals += 1
                    if self._refusals >= _REFUSALS and left < _HANDING_BACK_SECONDS:
                        self.locked_out = error
                if self._tokens is None or left <= 0:
                    raise
                log.warning("going on with the session there is: %s", error)
                self._renew_at = time.monotonic() + _AGAIN_SECONDS
                return self._tokens
            lifetime = self._tokens.expires_in  # the end by a wall clock, `expires_at`, may be wrong here
            self._renew_at = asked + lifetime - min(_MARGIN_SECONDS, lifetime / 2)
            self._ends_at = asked + lifetime
            self._refusals = 0
            return self._tokens

    async def _renew(self, tokens: Tokens | None) -> Tokens:
        auth = self.client.auth
        if tokens is not None:
            try:
                return _present((await auth.refresh_session(tokens.refresh_token)).session)
            except AuthApiError as error:
                if verdict(None, error.status) == "later":
                    raise Later(f"refresh answered {error.status}") from error
                log.warning("the session could not be refreshed; signing in again")
            except AuthError as error:
                raise Unreachable("the session could not be refreshed: no answer") from error
            except _ODD as error:
                raise Later("the session could not be refreshed: the answer is not understood") from error
        try:
            tokens = _present(
                (
                    await auth.sign_in_with_password(
                        {"email": self._settings.email, "password": self._settings.password}
                    )
                ).session
            )
            log.info("signed in")
            return tokens
        except AuthApiError as error:
            if verdict(None, error.status) == "later":
                raise Later(f"sign-in answered {error.status}") from error
            raise SignInRefused(
                f"sign-in refused ({error.code or error.status}): check WORKER_EMAIL, WORKER_PASSWORD"
                " and SUPABASE_PUBLISHABLE_KEY"
            ) from error
        except AuthError as error:
            raise Unreachable("sign-in got no answer") from error
        except _ODD as error:
            raise Later("the answer to the sign-in is not understood") from error


def _present(tokens: Tokens | None) -> Tokens:
    if tokens is None:
        raise Later("sign-in answered without a session")
    return tokens
