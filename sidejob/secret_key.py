"""The secret key: the one place where it is read, compared and sent.

It is used where the caller cannot have the right himself, and only after a check with his own rights:
Storage signs an object whose row he was shown, and removes those that the database named to him. And it is a
credential itself where a cron job calls. Old projects have a token (`service_role`) for a secret key, which
REST and Storage want as a bearer, too; a new one (`sb_secret_…`) is no token and never travels as one.
"""

import hmac
from collections.abc import Mapping

from sidejob import config

NEW = "sb_secret_"


def headers() -> dict[str, str]:
    """What makes a request the project's own. Raises MissingSettings where there is no secret key."""
    key = config.settings().secret_key
    if key is None:
        raise config.MissingSettings(["SUPABASE_SECRET_KEY"])
    return {"apikey": key} if key.startswith("sb_") else {"apikey": key, "Authorization": f"Bearer {key}"}


def is_one(text: str) -> bool:
    """Does it look like a secret key, ours or another project's?"""
    return text.startswith(NEW) or is_ours(text)


def is_ours(text: str) -> bool:
    """Is it this project's own? Takes the same time wherever the two differ."""
    ours = config.settings().secret_key
    return ours is not None and hmac.compare_digest(text.encode(), ours.encode())


def shows(sent: Mapping[str, str]) -> bool:
    """Is there a secret key among these credentials, wherever it stands?"""
    return any(is_one(value) for value in sent.values())
