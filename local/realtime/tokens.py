"""Who somebody is: API keys and access tokens become a role with claims."""

import hmac
import json
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import jwt

from local.realtime.settings import Settings

_DECADE = 10 * 365 * 86400


class TokenError(Exception):
    """A token that opens nothing; `code` as upstream's error codes name it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Identity:
    """A verified token. Two with the same claims are equal: no policy can tell them apart."""

    token: str = field(compare=False)
    claims_json: str  # as policies see them

    @cached_property
    def claims(self) -> dict[str, Any]:
        claims: dict[str, Any] = json.loads(self.claims_json)
        return claims

    @property
    def role(self) -> str:
        return str(self.claims["role"])

    @property
    def expires_in(self) -> float:
        """Seconds; negative once it is over."""
        return float(self.claims["exp"]) - time.time()

    def check_expiry(self) -> None:
        """Raises TokenError when it is over."""
        if self.expires_in <= 0:
            raise TokenError(
                "InvalidJWTToken", f"Token has expired {max(1, round(-self.expires_in))} seconds ago"
            )


class Tokens:
    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret
        self._keys = {settings.publishable_key: "anon", settings.secret_key: "service_role"}

    def identify(self, word: str) -> Identity:
        """An API key or an access token. Raises TokenError."""
        word = unquote(word).strip()
        for key, role in self._keys.items():
            if hmac.compare_digest(key.encode(), word.encode()):
                now = int(time.time())
                claims = {"iss": "supabase", "role": role, "iat": now, "exp": now + _DECADE}
                return Identity(word, json.dumps(claims))
        return self._verified(word)

    def _verified(self, token: str) -> Identity:
        options: Any = {"verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_nbf": False}
        options |= {"verify_sub": False, "verify_jti": False}
        try:
            claims = jwt.decode(token, self._secret, ["HS256", "HS384", "HS512"], options=options)
        except jwt.InvalidSignatureError as error:
            raise TokenError("JwtSignatureError", "Failed to validate JWT signature") from error
        except jwt.InvalidAlgorithmError as error:
            raise TokenError(
                "JwtSignerError", "Failed to generate JWT signer, check your JWT secret or JWKS configuration"
            ) from error
        except jwt.InvalidTokenError as error:
            raise TokenError("MalformedJWT", "The token provided is not a valid JWT") from error
        if not isinstance(claims.get("role"), str) or not claims["role"] or "exp" not in claims:
            raise TokenError("InvalidJWTToken", "Fields `role` and `exp` are required in JWT")
        if isinstance(claims["exp"], bool) or not isinstance(claims["exp"], int | float):
            raise TokenError("InvalidJWTToken", "Token expiration time is invalid")
        identity = Identity(token, json.dumps(claims))
        identity.check_expiry()
        return identity
