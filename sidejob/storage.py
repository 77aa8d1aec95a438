"""What only the secret key may ask of Storage: URLs, and removal. Whether it may be is decided before."""

from collections.abc import Mapping
from urllib.parse import quote

from sidejob import config, secret_key, upstream
from sidejob.connections import Answer
from sidejob.errors import Refused, Unavailable
from sidejob.jsontext import JSON
from sidejob.verdicts import verdict

# A browser that is shown these runs nothing of them in the name of the address that they came from. By their
# endings, since whoever saves a file goes by its name. All others are only downloaded: HTML, SVG and XML have
# scripts, and what nobody knows a browser may take for one of them.
INERT: Mapping[str, frozenset[str]] = {
    "application/json": frozenset({"json"}),
    "application/pdf": frozenset({"pdf"}),  # its scripts stay within the viewer
    "image/avif": frozenset({"avif"}),
    "image/gif": frozenset({"gif"}),
    "image/jpeg": frozenset({"jpg", "jpeg"}),
    "image/png": frozenset({"png"}),
    "image/webp": frozenset({"webp"}),
    "text/plain": frozenset({"txt"}),
}

# Storage signs its own request's path after JavaScript's decodeURI, and compares it later with a path whose
# every escape is undone (supabase/storage, src/storage/object.ts and getSignedObject.ts). So a path that is
# to be signed has only those escapes that decodeURI undoes.
_SIGNABLE = "/!$&'()*+,-.:;=@_~"


def object_not_found(field: str) -> Refused:
    """404 in Storage's own words, which its users know. field: of the request, that named it."""
    return Refused(
        "not_found",
        "Object not found",
        details={"field": field},
        hint=f"`{field}`: there is no such artifact, not for you, or its file is gone.",
    )


def is_inert(mime: str, *names: str) -> bool:
    """May a browser show it? names: all that the file is called."""
    endings = INERT.get(mime.partition(";")[0].strip().lower(), frozenset())
    return all("." in name and name.rpartition(".")[2].lower() in endings for name in names)


def signed_url(
    bucket: str, path: str, expires_seconds: int, request_id: str, *, download: str | None, field: str
) -> str:
    """An absolute URL that gives the object to whoever has it, for so long.

    download: the name under which a browser saves it, so that it does not show it. field: for the refusal.
    Raises Refused 404 when the object is gone, Unavailable when Storage is.
    """
    place = f"sign/{quote(bucket, safe='')}"
    asked: dict[str, JSON] = {"expiresIn": expires_seconds}
    response, body = _ask("POST", f"{place}/{quote(path, safe=_SIGNABLE)}", asked, request_id)
    answer = body if isinstance(body, dict) else {}
    # Storage says 400 with the true status in its body (supabase/storage, "not_found").
    if not response.ok and str(answer.get("statusCode")) == "404":
        raise object_not_found(field)
    signed = answer.get("signedURL")
    token = signed.rpartition("?token=")[2] if isinstance(signed, str) and "?token=" in signed else ""
    if not response.ok or not token:
        raise _failed(response)
    # Not the path that Storage gives: spaces and much else stand in it as they are.
    address = f"{config.settings().public_url}/storage/v1/object/{place}/{quote(path)}"
    url = f"{address}?token={quote(token, safe='')}"
    return url if download is None else f"{url}&download={quote(download, safe='')}"


def remove(bucket: str, paths: list[str], request_id: str) -> int:
    """Removes objects, 1,000 at most; how many there were. Those that are gone already do no harm.

    Raises Unavailable.
    """
    response, body = _ask("DELETE", quote(bucket, safe=""), {"prefixes": [*paths]}, request_id)
    if not response.ok or not isinstance(body, list):
        raise _failed(response)
    return len(body)


def _ask(method: str, path: str, body: Mapping[str, JSON], request_id: str) -> tuple[Answer, object]:
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
    """To our caller all of it may pass: the request to Storage was made here, and so is its fault."""
    busy = response.status >= 400 and verdict(None, response.status) == "later"
    code = "storage_unavailable" if busy else "storage_error"
    return Unavailable(code, cause=f"Storage says {response.status}")
