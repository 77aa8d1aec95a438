"""The bodies that requests may have: pydantic models, strict, in camelCase, no field unknown.

Imported at the first request with a body, never at a function's start. Strict as JSON Schema is (`false` is
no number), with its one liberty: 5.0 is an integer.
"""

import json
import math
import threading
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from sidejob import jsonfaults, jsontext, query
from sidejob.errors import Refused
from sidejob.jsontext import JSON

NAMED_FIELDS = 20  # at most so many faults are listed


def _integral(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("nul", "must not contain the character NUL")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("unprintable", "must consist of printable characters")
    return value


def _storable(value: Any) -> Any:
    """JSON that Postgres' jsonb takes and gives back unchanged. `jsonfaults` has bounded its nesting."""
    match value:
        case str() if "\0" in value:
            raise PydanticCustomError("nul", "must not contain the character NUL (\\u0000) anywhere")
        case float() if not math.isfinite(value):
            raise PydanticCustomError("not_finite", "must not contain NaN or infinite numbers")
        case int() if value.bit_length() > 1024:
            raise PydanticCustomError("huge_number", "must not contain numbers beyond 1e308")
        case list():
            for item in value:
                _storable(item)
        case dict():
            for key, item in value.items():
                _storable(key)
                _storable(item)
    return value


def _at_most(kib: int, code: str = "too_large") -> AfterValidator:
    """Bounds the length of the JSON text, as the constraints on the tables count it."""

    def check(value: Any) -> Any:
        if len(json.dumps(value, ensure_ascii=False).encode()) > kib * 1024:
            raise PydanticCustomError(code, "may be {kib} KiB as JSON at most", {"kib": kib})
        return value

    return AfterValidator(check)


def _object_or_text(value: Any) -> Any:
    # A union of the two would put the names of its members into the path of a fault.
    if not isinstance(value, dict | str):
        raise PydanticCustomError("object_or_text", "must be an object or a sentence")
    return _storable(value)


_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def _this_century(value: datetime) -> datetime:
    if not _EARLIEST <= value < _LATEST:  # which, unlike a change to UTC, no year is too far off for
        raise PydanticCustomError("instant", "must lie between the years 2000 and 2100")
    return value


Whole = BeforeValidator(_integral)  # stands last: constraints before it are written into the JSON Schema
Text = Annotated[str, AfterValidator(_text)]
Object = Annotated[dict[str, Any], AfterValidator(_storable)]
Failure = Annotated[
    Any,
    AfterValidator(_object_or_text),
    _at_most(60),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]}),
]
Payload = Annotated[Object, _at_most(256, "payload_too_large")]
Instant = Annotated[AwareDatetime, AfterValidator(_this_century)]
JobType = Annotated[str, Field(pattern=f"^{query.JOB_TYPE}$", examples=["browser.screenshot"])]
Name = Annotated[str, Field(pattern=f"^{query.NAME}$")]
MediaType = Annotated[
    str, Field(max_length=255, pattern="^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(;[ -~]*)?$")
]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


# Parts of schemas that say what the validators of whole bodies check.
A_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
NOTHING: dict[str, Any] = {"type": "null"}
WITH_FILE: dict[str, Any] = {
    "anyOf": [
        {"required": [member], "properties": {member: {"type": "string"}}} for member in ("path", "sameAs")
    ]
}
OF_A_FILE = ("mime", "size", "sha256", "bucket", "path", "width", "height")


class Body(BaseModel):
    """What all bodies have in common. A model is built when it is first used: a function uses one of them."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, defer_build=True
    )
    _written: dict[str, JSON] = PrivateAttr(default_factory=dict)

    def as_written(self, body: bytes) -> Self:
        """The same, which knows the text that it was read from."""
        self._written.update(jsontext.read_members(body))
        return self

    def written(self, field: str) -> JSON:
        """A field's value as it was written, so that no number in it loses a digit; a default as it is."""
        given: JSON = getattr(self, field)
        return self._written.get(type(self).model_fields[field].alias or field, given)


class TaskAssign(Body):
    """A job to put into the queue."""

    type: JobType
    executor_id: Name = Field("default", description="The group of workers that may take it.")
    job_id: UUID | None = Field(None, description="Your own id for it; the same one twice is the same job.")
    payload: Payload = Field(default_factory=dict, description="What the worker reads; 256 KiB at most.")
    idempotency_key: IdempotencyKey | None = Field(
        None,
        description="The same key twice is the same job. May come in the header Idempotency-Key instead.",
    )
    priority: Annotated[int, Field(ge=0, le=9), Whole] = Field(0, description="Higher goes first.")
    run_at: Instant | None = Field(None, description="Not before this instant, which has an offset or Z.")
    max_attempts: Annotated[int, Field(ge=1, le=25), Whole] = 3
    backoff_seconds: Annotated[int, Field(ge=0, le=86_400), Whole] = Field(
        5, description="Before the second attempt; doubled before each later one."
    )
    backoff_max_seconds: Annotated[int, Field(ge=0, le=604_800), Whole] = Field(
        3600, description="But never more than this."
    )
    unique_seconds: Annotated[int, Field(ge=1, le=31_536_000), Whole] | None = Field(
        None, description="An equal request (type, payload, executor) within so many seconds is the same job."
    )
    depends_on: Annotated[list[UUID], Field(max_length=100)] = Field(
        default_factory=list, description="Jobs that have to succeed first."
    )
    on_parent_failure: Literal["cancel", "run"] = Field(
        "cancel", description="What becomes of it when one of them does not succeed."
    )
    workspace_id: UUID | None = Field(None, description="Default: the caller's default workspace.")

    @model_validator(mode="after")
    def _backs_off(self) -> "TaskAssign":
        if self.backoff_max_seconds < self.backoff_seconds:
            raise PydanticCustomError(
                "backoff_max_seconds",
                "must not be less than `backoffSeconds`",
                {"field": "backoffMaxSeconds"},
            )
        return self


class TaskClaim(Body):
    """A worker asks for one job."""

    executor_id: Name
    worker_id: Name | None = Field(None, description="Compared with the caller's own, never trusted.")
    lease_seconds: Annotated[int, Field(ge=15, le=600), Whole] = 60
    type_prefix: Annotated[Text, Field(max_length=100)] | None = None


class Artifact(Body):
    """A file that the attempt has put into Storage, or that an earlier job has."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"sameAs": NOTHING}},
                {"properties": dict.fromkeys(OF_A_FILE, NOTHING)},
            ]
        }
    )

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]*$")]
    mime: MediaType | None = None
    size: Annotated[int, Field(ge=0, le=256 * 1024 * 1024), Whole] | None = Field(None, description="Bytes.")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    bucket: Annotated[Text, Field(max_length=100)] | None = None
    path: Annotated[Text, Field(max_length=1024)] | None = Field(
        None, description="In the bucket: <workspace>/<yyyy>/<mm>/<dd>/<job>/<attempt>/<name>."
    )
    width: Annotated[int, Field(ge=1, le=2**31 - 1), Whole] | None = Field(None, description="Pixels.")
    height: Annotated[int, Field(ge=1, le=2**31 - 1), Whole] | None = Field(None, description="Pixels.")
    url: Text | None = Field(
        None, description="Taken for older workers' sake and dropped: signed URLs expire."
    )
    same_as: UUID | None = Field(
        None,
        description="Instead of `path` and all that says what the file is: the id of an artifact of an ended "
        "job of the workspace. The file is shared, and stays as long as either job.",
    )

    @model_validator(mode="after")
    def _has_one_file(self) -> "Artifact":
        said = [name for name in OF_A_FILE if getattr(self, name) is not None]
        if self.same_as and said:
            raise PydanticCustomError(
                "two_files",
                "is that of the file which `sameAs` names: leave it out",
                {"field": to_camel(said[0])},
            )
        return self


class TaskResult(Body):
    """How an attempt ended."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["artifactRecorded"], "properties": {"artifactRecorded": {"const": True}}},
                {
                    "properties": {
                        "artifact": {"anyOf": [WITH_FILE, NOTHING]},
                        "artifacts": {"items": WITH_FILE},
                    }
                },
            ]
        }
    )

    job_id: UUID
    type: JobType | None = None
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1), Whole] | None = Field(
        None, description="Of the claim; older workers send none."
    )
    lease_token: Annotated[Text, Field(max_length=200)] | None = Field(None, description="Of the claim.")
    ok: bool
    action: Annotated[Text, Field(max_length=100)] | None = None
    url: Annotated[Text, Field(max_length=8192)] | None = Field(None, description="Of the page worked on.")
    error: Failure | None = Field(None, description="{code, message, …}, or a sentence.")
    result: Object | None = None
    artifact: Artifact | None = None
    artifacts: Annotated[list[Artifact], Field(max_length=1000)] = Field(default_factory=list)
    artifact_recorded: bool = Field(False, description="The rows are there already: add none.")
    retry_at: Instant | None = Field(None, description="After a failure: not before this instant.")
    retry_after_seconds: Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)] | None = Field(
        None,
        description="Instead of `retryAt`: not before so many seconds have passed by the database's clock.",
    )
    give_up: bool = Field(False, description="After a failure: do not try again.")

    @model_validator(mode="after")
    def _has_paths(self) -> "TaskResult":
        if not self.artifact_recorded:
            for field, artifact in self.named_artifacts():
                if artifact.path is None and artifact.same_as is None:
                    raise PydanticCustomError(
                        "missing_path",
                        "is missing: where in Storage is the file?",
                        {"field": f"{field}.path"},
                    )
        return self

    @model_validator(mode="after")
    def _has_each_name_once(self) -> "TaskResult":
        first: dict[str, str] = {}
        for field, artifact in self.named_artifacts():
            if artifact.name in first:
                raise PydanticCustomError(
                    "equal_names",
                    "is that of `{other}`, too: a result has one file of each name",
                    {"field": f"{field}.name", "other": first[artifact.name]},
                )
            first[artifact.name] = f"{field}.name"
        return self

    @model_validator(mode="after")
    def _waits_in_one_way(self) -> "TaskResult":
        if self.retry_at is not None and self.retry_after_seconds is not None:
            raise PydanticCustomError(
                "two_delays", "or `retryAt`: send one of them", {"field": "retryAfterSeconds"}
            )
        return self

    def named_artifacts(self) -> list[tuple[str, Artifact]]:
        """All files, with the field that each came in."""
        single = [("artifact", self.artifact)] if self.artifact else []
        return [*single, *((f"artifacts.{index}", item) for index, item in enumerate(self.artifacts))]


class JobCancel(Body):
    """A job to stop."""

    job_id: UUID


class DlqRetry(Body):
    """A dead letter whose work is to be done once more."""

    dlq_id: Annotated[int, Field(ge=1, le=2**53 - 1), Whole]  # what every JSON parser can read


class DlqDiscard(DlqRetry):
    """A dead letter to throw away."""


class ArtifactsSweep(Body):
    """Where to begin: with the first object, or after one."""

    after: Annotated[Text, Field(max_length=1024)] = Field("", description="`scannedTo` of the call before.")


class SignArtifact(Body):
    """A file to make a temporary URL for: by its row's id, or by its place in Storage."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["artifactId"],
                    "properties": {"artifactId": A_TEXT, "bucket": NOTHING, "path": NOTHING},
                },
                {
                    "required": ["bucket", "path"],
                    "properties": {"artifactId": NOTHING, "bucket": A_TEXT, "path": A_TEXT},
                },
            ]
        }
    )

    artifact_id: UUID | None = None
    bucket: Annotated[Text, Field(max_length=100)] | None = None
    path: Annotated[Text, Field(max_length=1024)] | None = None
    expires: Annotated[int, Whole] = Field(3600, description="Seconds; moved into 1–604800.")


class WorkerHeartbeat(Body):
    """A worker's process says that it is alive."""

    agent_id: Name = Field(description="The process; unique in the whole project.")
    executor_id: Name
    status: Annotated[str, Field(pattern="^[a-z][a-z_-]{0,39}$", examples=["idle", "busy", "draining"])]
    running: Annotated[int, Field(ge=0, le=1_000_000), Whole] = Field(0, description="Jobs in hand.")
    capacity: Annotated[int, Field(ge=0, le=1_000_000), Whole] = Field(1, description="Jobs at once at most.")
    version: Annotated[Text, Field(max_length=100)] | None = None
    metrics: Annotated[Object, _at_most(16)] = Field(default_factory=dict, description="16 KiB at most.")


class Empty(Body):
    """Nothing to say: `{}`, or no body at all."""


B = TypeVar("B", bound=Body)
_building = threading.Lock()


def parsed(model: type[B], body: bytes) -> B:
    """The body as this model. Raises Refused: 400 when it is not JSON, 422 with the paths of wrong fields."""
    if not body and model is not Empty:
        raise Refused("invalid_json", "The body is empty. Send a JSON object.")
    if not model.__pydantic_complete__:
        with _building:
            model.model_rebuild()
    try:
        if body:
            jsonfaults.check(body)
        read = model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise _refused(model, error) from error
    return read.as_written(body or b"{}")


def _refused(model: type[Body], error: ValidationError) -> Refused:
    faults: list[JSON] = []
    for fault in error.errors(include_url=False, include_input=False)[:NAMED_FIELDS]:
        if fault["type"] == "json_invalid":
            return Refused("invalid_json", hint=fault["msg"])
        if fault["type"] == "model_type":
            return Refused("invalid_body", "The body must be a JSON object.")
        within = [fault["ctx"]["field"]] if "field" in fault.get("ctx", {}) else []
        path = ".".join(str(part)[:100] for part in (*fault["loc"], *within))
        message = fault["msg"]
        if fault["type"] == "extra_forbidden":
            message = "is not a field here"
        elif fault["type"] == "missing":
            message = "is missing"
        faults.append({"field": path, "message": message})
    first = faults[0]
    assert isinstance(first, dict)  # noqa: S101  built a few lines above
    sentence = f"`{first['field']}`: {first['message']}." if first["field"] else f"{first['message']}"
    code = "payload_too_large" if error.errors()[0]["type"] == "payload_too_large" else "invalid_body"
    names = ", ".join(str(field.alias) for field in model.model_fields.values())
    return Refused(code, sentence, details=faults, hint=f"Fields of this body: {names or 'none'}.")
