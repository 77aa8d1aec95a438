"""What only the secret key may ask of Storage: URLs, and removal. Whether it may be is decided before."""

from collections.abc import Mapping
from urllib.parse import quote

from sidejob import config, secret_key, upstream
from sidejob.connections import Answer
from sidejob.errors import JSON, Refused, Unavailable


def object_not_found() -> Refused:
    """404 in Storage's own words, which its users know."""
    return Refused("not_found", "Object not found")


def signed_url(bucket: str, path: str, expires_seconds: int, request_id: str) -> str:
    """An absolute URL that gives the object to whoever has it, for so long.

    Raises Refused 404 when the object is gone, Unavailable when Storage is.
    """
    response, body = _ask(
        "POST", f"sign/{quote(bucket, safe='')}/{quote(path)}", {"expiresIn": expires_seconds}, request_id
    )
    answer = body if isinstance(body, dict) else {}
    # Storage says 400 with the true status in its body (supabase/storage, "not_found").
    status = answer.get("statusCode", response.status)
    if str(status) == "404":
        raise object_not_found()
    signed = answer.get("signedURL")
    if not response.ok or not isinstance(signed, str):
        raise _failed(response)
    return f"{config.settings().public_url}/storage/v1{signed}"


def remove(bucket: str, paths: list[str], request_id: str) -> int:
    """Removes objects, 1,000 at most; how many there were. Those that are gone already do no harm.

    Raises Unavailable.
    """
    response, body = _ask("DELETE", quote(bucket, safe=""), {"prefixes": [*paths]}, request_id)
    if not response.ok or not isinstance(body, list):
        raise _failed(response)
    return len(body)


def _ask(method: str, path: str, body: Mapping[str, JSON], request_id: str) -> tuple[Answer, JSON]:
    response = upstream.send(
        "storage",
        method,
        f"/storage/v1/object/{path}",
        headers={**secret_key.headers(), "x-request-id": request_id},
        body=body,
        repeatable=True,
    )
    try:
        return response, response.json()
    except ValueError:
        return response, None


def _failed(response: Answer) -> Unavailable:
    busy = response.status >= 500 or response.status == 429
    code = "storage_unavailable" if busy else "storage_error"
    return Unavailable(code, cause=f"Storage says {response.status}")
