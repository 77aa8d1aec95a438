"""Failed requests as the worker's exceptions. The classification itself is `sidejob.verdicts`."""

import json
from typing import Any

import httpx
from postgrest.exceptions import APIError

from sidejob.errors import CODES, UPSTREAM
from sidejob.verdicts import verdict
from worker.errors import ArtifactGone, Later, LeaseLost, NoFunctions, ProjectError, Refused

_MAX_SHOWN = 300  # characters of somebody else's words


class TokenRefused(Refused):
    """The access token was not accepted, so nothing happened: the same request may be sent with another."""


def of_status(status: int, message: str = "") -> ProjectError:
    """A failure that has no code that could be trusted."""
    return of_code(None, status, message)


def of_code(code: str | None, status: int | None, message: str, details: object = None) -> ProjectError:
    """code: a SQLSTATE, PostgREST's code, or that of a function. details: of the failure, as it was sent."""
    meaning = UPSTREAM.get(code or "", code or "")
    shown = message[:_MAX_SHOWN]
    name = code or str(status or "unknown")
    if verdict(code, status) == "lost":
        return LeaseLost(_job_status(details))
    if meaning == "not_found":
        return LeaseLost("gone")  # the job, or this worker's membership
    if meaning == "artifact_gone":
        return ArtifactGone(meaning, shown)
    if status == 401 or code == "401" or meaning == "invalid_token":
        return TokenRefused(name, shown)
    if verdict(code, status) == "later":
        return Later(f"answered {name}: {shown}")
    return Refused(name, shown)


def of_database(answer: httpx.Response) -> ProjectError:
    """Of an answer of PostgREST that is no success."""
    body = _body(answer)
    code, message = body.get("code"), body.get("message")
    return of_code(
        code if isinstance(code, str) else None,
        answer.status_code,
        message if isinstance(message, str) else "",
        body.get("details"),
    )


def of_query(error: APIError) -> ProjectError:
    """The same, as supabase-py raises it."""
    return of_code(error.code or None, None, str(error.message or ""), error.details)


def of_function(answer: httpx.Response) -> ProjectError:
    """Of an answer of a function that is not the one hoped for, a success in an odd shape included."""
    body = _body(answer)
    code, message = body.get("code"), body.get("error")
    ours = isinstance(code, str) and code in CODES
    status = answer.status_code
    if status == 404 or (status == 503 and not ours):
        return NoFunctions(f"a function answered {status}")
    if status < 400:
        return Later(f"a function answered {status} in a shape that is not understood")
    return of_code(
        str(code) if ours else None, status, message if isinstance(message, str) else "", body.get("details")
    )


def _job_status(details: object) -> str:
    status = details.get("status") if isinstance(details, dict) else details
    return str(status or "unknown")[:40]


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
