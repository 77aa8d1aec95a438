"""Temporary URLs of Storage objects, signed with the secret key. Who may have one is decided before."""

from urllib.parse import quote

from sidejob import config, upstream
from sidejob.errors import Refused, Unavailable


def object_not_found() -> Refused:
    """404 in Storage's own words, which its users know."""
    return Refused("not_found", "Object not found")


def signed_url(bucket: str, path: str, expires_seconds: int, request_id: str) -> str:
    """An absolute URL that gives the object to whoever has it, for so long.

    Raises Refused 404 when the object is gone, Unavailable when Storage is.
    """
    settings = config.settings()
    if settings.secret_key is None:
        raise config.MissingSettings(["SUPABASE_SECRET_KEY"])
    response = upstream.send(
        "storage",
        "POST",
        f"{settings.supabase_url}/storage/v1/object/sign/{quote(bucket, safe='')}/{quote(path)}",
        headers={"apikey": settings.secret_key, "x-request-id": request_id},
        json={"expiresIn": expires_seconds},
        repeatable=True,
    )
    try:
        body = response.json()
    except ValueError:
        body = None
    answer = body if isinstance(body, dict) else {}
    # Storage says 400 with the true status in its body (supabase/storage, "not_found").
    status = answer.get("statusCode", response.status_code)
    if str(status) == "404":
        raise object_not_found()
    signed = answer.get("signedURL")
    if not response.is_success or not isinstance(signed, str):
        busy = response.status_code >= 500 or response.status_code == 429
        code = "storage_unavailable" if busy else "storage_error"
        raise Unavailable(code, cause=f"Storage says {response.status_code}")
    return f"{settings.public_url}/storage/v1{signed}"
