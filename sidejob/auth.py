"""Who is calling? The access token is checked here; what its user may do, the database decides.

`Authorization` carries the person, `apikey` the project's key. Supabase's clients send `sb_…` keys in both,
so a bearer beginning `sb_` counts as absent. Any other wrong credential is final: nothing is tried after it.
"""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

from sidejob import config, secret_key, upstream
from sidejob.call import Caller
from sidejob.errors import Refused, Unavailable
from sidejob.imports import pyjwt
from sidejob.signing_keys import SigningKeys, fetched

if TYPE_CHECKING:
    from jwt import PyJWK

T = TypeVar("T")
Who = Literal["user", "user or secret", "anybody"]

PROJECT_KEYS = ("anon", "service_role")  # roles of the legacy keys, which are signed tokens of nobody

LEEWAY_SECONDS = 30  # as PostgREST allows (docs/references/auth.rst)
AUDIENCE = "authenticated"
KEPT_TOKENS = 1000  # verified ones, about a kilobyte each
GOOD_SECONDS = 30.0  # how long Auth's word for a token is taken without asking again
BAD_SECONDS = 10.0  # and its word against one

_BEARER = re.compile(r"\s*bearer\s+(\S+)\s*", re.IGNORECASE)
_keys = SigningKeys(fetched)


def authenticated(
    headers: Mapping[str, str], who: Who, before_asking: Callable[[], None] = lambda: None
) -> Caller:
    """The caller. Raises Refused (401, 403) for a wrong or missing credential, Unavailable for an outage.

    before_asking: called before Auth is asked about this very token; may raise Refused.
    """
    apikey = headers.get("apikey", "").strip()
    match = _BEARER.fullmatch(headers.get("authorization", ""))
    token = match.group(1) if match else ""
    if headers.get("origin") and any(map(secret_key.is_one, (apikey, token))):
        raise Refused("secret_key_in_browser")
    if who == "anybody":
        return Caller("nobody")
    person = "" if token.startswith("sb_") else token
    if who == "user or secret" and secret_key.is_one(apikey) and person in ("", apikey):
        if secret_key.is_ours(apikey):
            return Caller("secret")
        raise _refused("invalid_key")
    if person:
        return _user(person, before_asking)
    if headers.get("authorization", "").strip() and not match:
        raise _refused("missing_token", "The header Authorization must be: Bearer <access token>.")
    hint = (
        "A project key (sb_…) stands for no user. Sign in, and send session.access_token." if token else None
    )
    raise _refused("missing_token", hint=hint)


def _refused(code: str, message: str = "", *, hint: str | None = None, cause: str | None = None) -> Refused:
    return Refused(code, message, hint=hint, headers={"WWW-Authenticate": "Bearer"}, cause=cause)


def _user(token: str, before_asking: Callable[[], None]) -> Caller:
    settings = config.settings()
    header = _header(token)
    # The header only chooses among our own keys. Which algorithm is allowed belongs to the key.
    key: PyJWK | str | None = settings.jwt_secret
    if header.get("alg") != "HS256":
        key = _keys.find(str(header.get("kid")))
        if key is None:
            raise _refused("invalid_token", cause="unknown key id")
    elif key is None:
        return _answers.ask(token, before_asking)
    claims = _claims(token, key, settings.jwt_issuer)
    if int(claims["exp"]) <= time.time() - LEEWAY_SECONDS:  # since it was verified
        raise _expired()
    return _caller(claims, token)


# What follows is the same for the same arguments but for the time, so it is done once a token: it is a sixth
# of a request. What raises is not kept.
@lru_cache(maxsize=KEPT_TOKENS)
def _header(token: str) -> Mapping[str, Any]:
    jwt = pyjwt(asymmetric=config.settings().jwt_secret is None)
    try:
        header: Mapping[str, Any] = jwt.get_unverified_header(token)
        return header
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise _refused("invalid_token", cause=type(error).__name__) from error


@lru_cache(maxsize=KEPT_TOKENS)
def _claims(token: str, key: "PyJWK | str | None", issuer: str | None) -> Mapping[str, Any]:
    """The claims of a token. key: None when Auth itself checks the signature."""
    jwt = pyjwt()
    if key is None or isinstance(key, str):
        proof, algorithm = key or "", "HS256"
    else:
        proof, algorithm = key.key, key.algorithm_name
    required = ["exp", "sub", "aud", *(["iss"] if issuer else [])]
    try:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            proof,
            algorithms=[algorithm],
            audience=AUDIENCE,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={
                "require": required,
                "verify_signature": key is not None,
                "verify_exp": True,  # which are left out by default where the signature is
                "verify_aud": True,
                "verify_nbf": True,
                "verify_iss": issuer is not None,
            },
        )
        return claims
    except jwt.ExpiredSignatureError as error:
        raise _expired() from error
    except jwt.MissingRequiredClaimError as error:  # the signature was right
        if jwt.decode(token, options={"verify_signature": False}).get("role") in PROJECT_KEYS:
            raise _project_key() from error
        raise _refused("invalid_token", cause=str(error)) from error
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _refused("invalid_token", cause=type(error).__name__) from error


def _expired() -> Refused:
    return _refused("invalid_token", "The access token has expired. Refresh the session.")


def _project_key() -> Refused:
    hint = "This token is a project key. Sign in, and send session.access_token."
    return _refused("missing_token", hint=hint)


def _caller(claims: Mapping[str, Any], token: str) -> Caller:
    """Refuses what is signed but is nobody's session: the legacy project keys are tokens too."""
    if claims.get("role") != AUDIENCE:
        raise _project_key()
    try:
        user_id = str(UUID(str(claims["sub"])))
    except (KeyError, ValueError) as error:
        raise _refused("invalid_token", cause="sub") from error
    expires_at = claims.get("exp")
    return Caller("user", user_id, token, int(expires_at) if isinstance(expires_at, int | float) else None)


class _Answers:
    """Remembers for a short while what Auth says of tokens: a flood of bad ones is not passed on to it, and a
    good one is not asked about with every request."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._good: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[float, Refused]] = OrderedDict()

    def ask(self, token: str, before_asking: Callable[[], None]) -> Caller:
        """The token's user. before_asking: called unless the answer is remembered.

        Raises Refused, Unavailable.
        """
        settings = config.settings()
        key = sha256(f"{settings.supabase_url} {token}".encode()).digest()
        with self._lock:
            bad = self._remembered(self._bad, key)
            good = self._remembered(self._good, key)
        if bad is not None:
            raise _refused("invalid_token", bad.message, hint=bad.hint, cause=f"{bad.cause}, a moment ago")
        if good is not None and (good.expires_at or 0) > time.time() - LEEWAY_SECONDS:
            return good
        _claims(token, None, settings.jwt_issuer)  # not what Auth would refuse, whoever signed it
        before_asking()
        try:
            caller = _user_by_asking(token)
        except Refused as refused:
            self._remember(self._bad, key, BAD_SECONDS, refused)
            raise
        self._remember(self._good, key, GOOD_SECONDS, caller)
        return caller

    def _remembered(self, answers: "OrderedDict[bytes, tuple[float, T]]", key: bytes) -> "T | None":
        until, answer = answers.get(key, (0.0, None))
        return answer if until > self._clock() else None

    def _remember(
        self, answers: "OrderedDict[bytes, tuple[float, T]]", key: bytes, seconds: float, answer: "T"
    ) -> None:
        with self._lock:
            answers[key] = self._clock() + seconds, answer
            answers.move_to_end(key)
            while len(answers) > KEPT_TOKENS:
                answers.popitem(last=False)


_answers = _Answers()


def _user_by_asking(token: str) -> Caller:
    """For projects whose tokens are signed with a secret that this process does not have.

    Auth answers 403, not 401, for a bad token, a deleted user and an ended session (supabase/auth,
    internal/api/auth.go).
    """
    response = upstream.send(
        "auth",
        "GET",
        "/auth/v1/user",
        headers={"apikey": config.settings().publishable_key, "Authorization": f"Bearer {token}"},
        repeatable=True,
    )
    try:
        user = response.json()
    except ValueError:
        user = None
    understood = isinstance(user, dict)  # else it is a proxy's page, which says nothing about the token
    if understood and response.status in (401, 403, 404):
        raise _refused("invalid_token", cause=f"Auth says {response.status}")
    if not response.ok or not understood:
        raise Unavailable("auth_unavailable", cause=f"Auth says {response.status}")
    jwt = pyjwt()
    try:
        role, user_id = str(user["role"]), str(UUID(user["id"]))
        claims = jwt.decode(token, options={"verify_signature": False})  # Auth has just verified it
    except (ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise Unavailable("auth_unavailable", cause="Auth gave an answer that is not understood") from error
    return _caller({"role": role, "sub": user_id, "exp": claims.get("exp")}, token)
