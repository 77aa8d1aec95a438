"""The document, put together: paths, headers, failures, and the models of bodies."""

import json

from pydantic.json_schema import models_json_schema

from sidejob import bodies, serving
from sidejob.errors import CODES
from sidejob.openapi.operations import COLLAB, DOCUMENT, FUNCTIONS, Operation
from sidejob.openapi.schemas import IN_LISTS, ROWS, TEXT, Schema, closed, nullable

ANY_REQUEST = (
    "invalid_parameter", "method_not_allowed", "request_timeout", "body_too_large", "uri_too_long",
    "secret_key_in_browser", "rate_limited", "internal_error",
)  # fmt: skip
WITH_TOKEN = (
    "missing_token", "invalid_token", "auth_unavailable", "database_busy", "database_unavailable",
    "schema_outdated", "database_timeout", "database_error",
)  # fmt: skip
WITH_BODY = ("invalid_json", "unsupported_media_type", "invalid_body", "invalid_argument")

OF_ANY_ANSWER = ("x-request-id", *serving.EVERYWHERE)
OF_STATUS = {
    401: "WWW-Authenticate",
    405: "Allow",
    429: "Retry-After",
    502: "Retry-After",
    503: "Retry-After",
    504: "Retry-After",
}
HEADERS: dict[str, Schema] = {
    "x-request-id": {
        "description": "Also in the log. The caller's own, if it was 8 to 128 letters, digits or `._:/+=@-`.",
        "required": True,
        "schema": {**TEXT, "minLength": 8, "maxLength": 128},
    },
    **{
        name: {"required": True, "schema": TEXT, "example": value}
        for name, value in serving.EVERYWHERE.items()
    },
    "WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}},
    "Allow": {"description": "The methods that are answered here.", "required": True, "schema": TEXT},
    "Retry-After": {
        "description": "Seconds to wait before the same request.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "ETag": {"description": "Changes with everything that is shown.", "required": True, "schema": TEXT},
}  # fmt: skip


def paths() -> dict[str, dict[str, Operation]]:
    """All that is served, by path and method."""
    served: dict[str, dict[str, Operation]] = {}
    for name, methods in FUNCTIONS.items():
        served[f"/functions/v1/{name}"] = methods
        served[f"/functions/v1/{name}/openapi.json"] = {"get": DOCUMENT}
    return served | {f"/api/collab/{path}": methods for path, methods in COLLAB.items()}


def document() -> Schema:
    """The whole document, ready for JSON."""
    served = paths()
    used = [operation for methods in served.values() for operation in methods.values()]
    models = sorted(
        {operation.body for operation in used if operation.body}, key=lambda model: model.__name__
    )
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    shared: dict[str, Schema] = {}
    described = {
        path: {method: _operation(path, method, operation, shared) for method, operation in methods.items()}
        for path, methods in served.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sidejob",
            "version": "1",
            "description": "Jobs beside a Supabase project. `/functions/v1/` and `/api/collab/` share their "
            "handlers. Match an error's `code`, never its sentence. HEAD is answered as GET without a body, "
            "OPTIONS with 204 and the CORS headers.",
        },
        "servers": [{"url": "/"}],
        "paths": described,
        "components": {
            "schemas": {**schemas["$defs"], **ROWS, **IN_LISTS, "Error": _error_schema()},
            "responses": dict(sorted(shared.items())),
            "headers": HEADERS,
            "securitySchemes": {
                "user": {"type": "http", "scheme": "bearer", "description": "A user's access token."},
                "secret": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "apikey",
                    "description": "The secret key.",
                },
            },
        },
    }


def failures(operation: Operation) -> dict[int, list[str]]:
    """The codes that an operation may answer, by status."""
    codes = {*ANY_REQUEST, *operation.errors}
    codes |= {*WITH_TOKEN} if operation.security else set()
    codes |= {*WITH_BODY} if operation.body else set()
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(CODES[code].status, []).append(code)
    return dict(sorted(by_status.items()))


def _operation(path: str, method: str, operation: Operation, shared: dict[str, Schema]) -> Schema:
    """shared: failures that several operations have, by name; those of this one are added."""
    answered = {"description": "Done.", "content": {operation.media_type: {"schema": operation.answer}}}
    responses: Schema = {"200": answered | _headers(*operation.answer_headers)}
    if operation.empty:
        responses["204"] = {"description": operation.empty} | _headers()
    if operation.unchanged:
        responses["304"] = {"description": operation.unchanged} | _headers(*operation.answer_headers)
    for status, codes in failures(operation).items():
        name = _name_in(shared, status, _failure(status, codes))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    described: Schema = {
        "operationId": f"{method}_{path.strip('/').translate(str.maketrans('/.-{}', '_____'))}",
        "summary": operation.summary,
        "security": [{name: []} for name in operation.security],
        "parameters": [
            _parameter(name, "path" if f"{{{name}}}" in path else "query", name in operation.needed, schema)
            for name, schema in operation.parameters.items()
        ]
        + [_parameter(name, "header", False, schema) for name, schema in operation.headers.items()],
        "responses": responses,
    }
    if operation.body:
        schema = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        needed = operation.body is not bodies.Empty
        described["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema}}}
    return described


def _parameter(name: str, place: str, required: bool, schema: Schema) -> Schema:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _failure(status: int, codes: list[str]) -> Schema:
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        **_headers(*([OF_STATUS[status]] if status in OF_STATUS else [])),
        "content": {
            "application/json": {
                "schema": {
                    "$ref": "#/components/schemas/Error",
                    "properties": {"code": {"enum": codes}},
                }
            }
        },
    }


def _name_in(shared: dict[str, Schema], status: int, failure: Schema) -> str:
    """`Failure404`, or `Failure404_2` for the second set of codes that this status has."""
    for number in range(1, len(shared) + 2):
        name = f"Failure{status}" if number == 1 else f"Failure{status}_{number}"
        if shared.setdefault(name, failure) == failure:
            return name
    raise AssertionError("one of these names is free")


def _headers(*more: str) -> Schema:
    named = dict.fromkeys((*OF_ANY_ANSWER, *more))
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in named}}


def _error_schema() -> Schema:
    return closed(
        error={**TEXT, "description": "One sentence for people."},
        code={**TEXT, "enum": sorted(CODES)},
        details={},
        hint=nullable(TEXT),
        requestId=TEXT,
    )


def text() -> str:
    """The document as docs/openapi.json holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
