"""Every failure that a caller can meet: one tree of exceptions, one table from code to HTTP status.

    SidejobError
    ├── Refused          the caller has to change something (4xx)
    └── Unavailable      nothing is wrong with the request; the same one may work later (5xx)

Callers match `code`, never the sentence. The sentence is safe to send to anybody: the cause goes to the log.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from sidejob.jsontext import JSON

RETRY_AFTER_SECONDS = 2  # after an outage


class Meaning(NamedTuple):
    """What a code says over HTTP."""

    status: int  # HTTP status
    sentence: str  # sent where the raiser has nothing more exact to say


CODES: Mapping[str, Meaning] = {
    "invalid_parameter": Meaning(400, "A parameter of the URL is wrong."),
    "invalid_json": Meaning(400, "The body is not valid JSON."),
    "invalid_token": Meaning(401, "The access token is not valid."),
    "missing_token": Meaning(401, "A user's access token is needed: Authorization: Bearer <access token>."),
    "invalid_key": Meaning(401, "The key in the header `apikey` is not valid here."),
    "forbidden": Meaning(403, "You may not do this."),
    "secret_key_in_browser": Meaning(
        403, "A secret key must never reach a browser. Replace this key now, and use the publishable one."
    ),
    "append_only": Meaning(403, "This history can be read, not changed."),
    "not_found": Meaning(404, "There is no such thing, or not for you."),
    "method_not_allowed": Meaning(405, "This method is not allowed here."),
    "request_timeout": Meaning(408, "The body did not arrive in time. Send it in one go."),
    "conflict": Meaning(409, "The row was changed by somebody else, or is there already."),
    "lease_lost": Meaning(409, "The lease on this job is not yours (any more). Nothing was written."),
    "artifact_gone": Meaning(
        409, "`sameAs` names no artifact of an ended job in this workspace, or its file is gone."
    ),
    "last_owner": Meaning(409, "A workspace needs an owner. Make somebody else one first."),
    "job_id_taken": Meaning(409, "`jobId` belongs to another job. Choose a new one."),
    "agent_id_taken": Meaning(409, "`agentId` belongs to another user. Choose a new one."),
    "body_too_large": Meaning(413, "The body may have 1 MiB at most."),
    "uri_too_long": Meaning(414, "The URL is too long: path and query may have 8 KiB."),
    "unsupported_media_type": Meaning(415, "The body must be JSON: Content-Type: application/json."),
    "invalid_body": Meaning(422, "A field of the body is wrong."),
    "invalid_argument": Meaning(422, "The database refused a value of this request."),
    "reserved_column": Meaning(422, "This column is written by the database alone."),
    "no_workspace": Meaning(422, "You have no default workspace. Name one in `workspaceId`."),
    "limit_reached": Meaning(422, "There are as many of these already as a workspace or job may have."),
    "payload_too_large": Meaning(
        422, "`payload` may be 256 KiB as JSON. Put files into Storage and name them."
    ),
    "idempotency_mismatch": Meaning(
        422, "This idempotency key, or `jobId`, was used before for another request."
    ),
    "rate_limited": Meaning(429, "These are too many requests at once. Wait as `Retry-After` says."),
    "too_many_streams": Meaning(429, "You have too many streams open. Close one, or use Realtime."),
    "internal_error": Meaning(500, "Something is broken here. The log has it under this requestId."),
    "database_error": Meaning(502, "The database gave an answer that is not understood."),
    "storage_error": Meaning(502, "Storage gave an answer that is not understood."),
    "auth_unavailable": Meaning(503, "The token could not be checked just now. Try again."),
    "database_busy": Meaning(503, "Somebody else wrote the same rows at the same time. Try again."),
    "database_unavailable": Meaning(503, "The database cannot be reached just now. Try again."),
    "storage_unavailable": Meaning(503, "Storage cannot be reached just now. Try again."),
    "schema_outdated": Meaning(503, "The database is older than this function: apply the migrations."),
    "streams_full": Meaning(503, "No more streams can be held here just now. Try again."),
    "database_timeout": Meaning(504, "The database took too long."),
}

# SQLSTATE or PostgREST code -> our code. SJ… are raised by supabase/migrations; the others are listed in
# PostgREST's docs/references/errors.rst and in Postgres' appendix A.
UPSTREAM: Mapping[str, str] = {
    "SJ100": "invalid_argument",
    "SJ101": "reserved_column",
    "SJ102": "no_workspace",
    "SJ103": "limit_reached",
    "SJ200": "not_found",
    "SJ201": "forbidden",
    "SJ300": "lease_lost",
    "SJ301": "idempotency_mismatch",
    "SJ302": "job_id_taken",
    "SJ303": "agent_id_taken",
    "SJ304": "append_only",
    "SJ305": "artifact_gone",
    "SJ306": "last_owner",
    "PGRST301": "invalid_token",
    "PGRST302": "invalid_token",
    "PGRST303": "invalid_token",
    "42501": "forbidden",
    "PGRST116": "not_found",
    "23505": "conflict",
    "40001": "database_busy",
    "40P01": "database_busy",
    "57014": "database_timeout",
    "PGRST202": "schema_outdated",
    "PGRST204": "schema_outdated",
    "PGRST205": "schema_outdated",
}
# What the DETAIL of a failure is: the job's status, by which a worker tells a cancel from a loss; the id.
DETAILS: Mapping[str, str] = {"lease_lost": "status", "artifact_gone": "sameAs"}
# Codes whose sentence is that of the migration which raised the failure: it names the argument.
NAMED_BY_THE_DATABASE = frozenset({"invalid_argument", "reserved_column", "not_found", "forbidden"})
SENTENCE_LENGTH = 300  # characters of it at most

# The classes of refusals that are not about one value, in words (Postgres' appendix A).
CLASSES: Mapping[str, str] = {
    "0A": "a feature that is not supported",
    "21": "two rows where one was needed: something is named twice",
    "22": "a value that its type cannot hold",
    "23": "a value that breaks a rule of the table",
    "42": "a name or a right that is not there",
    "54": "more than the database takes at once",
    "P0": "an error that a function or a trigger raised",
}

_CONSTRAINT = r'(?:violates (?:check|foreign key|unique|not-null|exclusion) )?constraint "([a-z0-9_]+)"'
_COLUMN = r'column "([a-z0-9_]+)"'
_ARGUMENT = re.compile(r"([a-z][a-z_]*)((?:\[\d+\])?(?:\.[a-z_]+)?): (.+)", re.DOTALL)


class SidejobError(Exception):
    """A failure with a code of `CODES`.

    message: the sentence sent; the code's own when empty. details, hint: JSON sent beside it.
    headers: sent with the answer. cause: for the log only. upstream: the SQLSTATE or PostgREST code.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        details: JSON = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        cause: str | None = None,
        upstream: str = "",
    ) -> None:
        self.code = code
        self.upstream = upstream
        self.status = CODES[code].status
        self.message = message or CODES[code].sentence
        self.details = details
        self.hint = hint
        self.headers = dict(headers or {})
        self.cause = cause
        super().__init__(self.message)

    def envelope(self, request_id: str) -> dict[str, JSON]:
        """The body of the answer. `error` is a plain sentence: Supabase's clients show that field alone."""
        return {
            "error": self.message,
            "code": self.code,
            "details": self.details,
            "hint": self.hint,
            "requestId": request_id,
        }


class Refused(SidejobError):
    """The caller has to change something first."""


class Unavailable(SidejobError):
    """Nothing is wrong with the request: the same one may work later, see `Retry-After`."""

    def __init__(self, code: str, message: str = "", *, cause: str | None = None, upstream: str = "") -> None:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        super().__init__(code, message, headers=headers, cause=cause, upstream=upstream)


def from_upstream(status: int, body: object, names: Mapping[str, str] | None = None) -> SidejobError:
    """The failure that PostgREST's answer stands for: Unavailable where `sidejob.verdicts` says `later`.

    Its message never leaves where it may hold values of rows. The names of a broken constraint and of a
    column do: those of supabase/migrations are sentences that name the column. Of our own failures (SJ…) the
    message and the hint are passed on, since they are written in the migrations, and of those in `DETAILS`
    the detail.
    names: of the database's arguments whose fields in the request are called otherwise.
    """
    from sidejob.verdicts import verdict  # which has to know our codes

    fields = body if isinstance(body, dict) else {}
    upstream = fields["code"] if isinstance(fields.get("code"), str) else ""
    cause = f"upstream status {status}, code {upstream[:20] or 'none'}"
    later = verdict(upstream, status) == "later"
    code = UPSTREAM.get(upstream) or (_later_code if later else _final_code)(upstream, status)
    if later:
        return Unavailable(code, cause=cause, upstream=upstream)
    ours = upstream.startswith("SJ")
    told = str(fields.get("message") or "")
    if ours:
        message, details = (in_our_words(told, names or {}) if code in NAMED_BY_THE_DATABASE else ""), None
        if code == "not_found" and message:
            message = f"{message.removesuffix('.')}, or not for you."  # the database does not tell them apart
    else:
        message, details = _told(code, upstream, told, status)
    if code in DETAILS and isinstance(fields.get("details"), str):
        details = {DETAILS[code]: fields["details"]}
    return Refused(
        code,
        message,
        details=details,
        hint=str(fields["hint"]) if ours and fields.get("hint") else None,
        headers={"WWW-Authenticate": "Bearer"} if CODES[code].status == 401 else None,
        cause=cause,
        upstream=upstream,
    )


def _later_code(upstream: str, status: int) -> str:
    """Our name of an outage that `UPSTREAM` does not name."""
    if upstream[:2] in ("40", "55"):
        return "database_busy"
    away = upstream[:2] in ("08", "25", "28", "3D", "53", "57", "58") or upstream.startswith("PGRST0")
    return "database_unavailable" if away or status in (408, 429, 502, 503, 504) else "database_error"


def _final_code(_: str, status: int) -> str:
    """Our name of a refusal that `UPSTREAM` does not name."""
    return {401: "invalid_token", 403: "forbidden"}.get(status, "invalid_argument")


def _told(code: str, upstream: str, message: str, status: int) -> tuple[str, JSON]:
    """A sentence that says which value was refused, "" where the code's own is as good, and the details."""
    if broken := re.search(_CONSTRAINT, message):
        name = broken[1]
        return f"The database refused a value: {name.replace('_', ' ')}.", {"constraint": name}
    if code != "invalid_argument":
        return "", None
    details: dict[str, JSON] = {"sqlstate": upstream} if len(upstream) == 5 else {"status": status}
    if upstream.startswith("23") and (column := re.search(_COLUMN, message)):
        return f"The database refused a value: `{column[1]}` must not be null.", {
            **details,
            "column": column[1],
        }
    why = CLASSES.get(upstream[:2], "for a reason of its own")
    named = f"SQLSTATE {upstream}" if len(upstream) == 5 else upstream or f"HTTP status {status}"
    return f"The database refused this request: {why} ({named}).", details


def in_our_words(message: str, names: Mapping[str, str]) -> str:
    """A sentence of the migrations as one of ours: `job_id: there is no such job` names `jobId`."""
    sentence = " ".join(message[:SENTENCE_LENGTH].split())
    if named := _ARGUMENT.fullmatch(sentence):
        first, *others = named[1].split("_")
        name = names.get(named[1]) or first + "".join(map(str.capitalize, others))
        sentence = f"`{name}{named[2]}`: {named[3]}"
    else:
        sentence = sentence[:1].upper() + sentence[1:]
    return sentence if sentence.endswith(".") or not sentence else f"{sentence}."
