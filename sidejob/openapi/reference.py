"""The same for people: docs/reference.md, one short entry a request."""

import json
from collections.abc import Iterator

from sidejob.openapi.document import ANY_REQUEST, WITH_BODY, WITH_TOKEN, document, paths
from sidejob.openapi.operations import DOCUMENT, Operation
from sidejob.openapi.schemas import ROWS, Schema

HEAD = """# Reference

All requests, from the same tables as [openapi.json](openapi.json): `python -m sidejob.openapi` writes both.
How requests are made stands in [http.md](http.md), what each code means in [errors.md](errors.md).

| request | may fail with |
|---|---|
"""
OPENAPI = """
Each function serves its part of the document to anybody: `GET /functions/v1/<name>/openapi.json`, and
`GET /api/collab/openapi.json`.
"""
MARK = "#/components/schemas/"


def text() -> str:
    """The whole reference, in Markdown."""
    schemas: Schema = document()["components"]["schemas"]
    alike: dict[int, tuple[Operation, list[str]]] = {}
    for path, methods in paths().items():
        for method, operation in methods.items():
            alike.setdefault(id(operation), (operation, []))[1].append(f"`{method.upper()} {path}`")
    lines = [HEAD + _common_failures() + OPENAPI]
    for operation, places in alike.values():
        if operation is not DOCUMENT:
            lines += _entry(operation, places, schemas)
    lines += ["## Rows", "", "In snake_case, as the tables have them; a later version may add columns.", ""]
    lines += [f"- `{name}`: {_members(ROWS[name])}" for name in ROWS]
    return "\n".join(lines) + "\n"


def _common_failures() -> str:
    rows = {"any": ANY_REQUEST, "one that needs a token": WITH_TOKEN, "one with a body": WITH_BODY}
    return "".join(f"| {which} | {_listed(codes)} |\n" for which, codes in rows.items())


def _entry(operation: Operation, places: list[str], schemas: Schema) -> Iterator[str]:
    first, *others = places
    yield f"## {first}\n"
    if others:
        yield f"Also {', '.join(others)}.\n"
    yield operation.summary + (f" {_who(operation)}" if operation.security != ("user",) else "") + "\n"
    rows = [
        _row(name, schema, "query or path", name in operation.needed)
        for name, schema in operation.parameters.items()
    ]
    rows += [_row(name, schema, "header", False) for name, schema in operation.headers.items()]
    if operation.body:
        model = schemas[operation.body.__name__]
        needed = model.get("required", ())
        rows += [
            _row(name, schema, "body", name in needed) for name, schema in model.get("properties", {}).items()
        ]
    if rows:
        yield "| name | in | type | default | meaning |\n|---|---|---|---|---|"
        yield from rows
        yield ""
    more = [f"{status} when {sentence[0].lower()}{sentence[1:]}" for status, sentence in _others(operation)]
    yield f"Answers {_kind(operation.answer)}{'; ' if more else '.'}{'; '.join(more)}\n"
    if operation.errors:
        yield f"May fail with {_listed(operation.errors)}.\n"


def _others(operation: Operation) -> Iterator[tuple[int, str]]:
    if operation.empty:
        yield 204, operation.empty
    if operation.unchanged:
        yield 304, operation.unchanged


def _who(operation: Operation) -> str:
    return "Takes the secret key in `apikey`, too." if operation.security else "Without a token."


def _row(name: str, schema: Schema, place: str, needed: bool) -> str:
    default = (
        "required" if needed else json.dumps(schema["default"]) if schema.get("default") is not None else "–"
    )
    return f"| `{name}` | {place} | {_kind(schema)} | {default} | {schema.get('description', '')} |"


def _listed(codes: tuple[str, ...]) -> str:
    return ", ".join(f"`{code}`" for code in codes)


def _members(schema: Schema) -> str:
    return ", ".join(f"`{name}` {_kind(member)}" for name, member in schema["properties"].items())


def _kind(schema: Schema) -> str:
    """A schema in a few words: `integer 0–9`, `list of Job`, `{jobId, status}`."""
    if "$ref" in schema:
        return f"`{schema['$ref'].removeprefix(MARK)}`"
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'])}"
        case "object" if "properties" in schema:
            return "{" + ", ".join(f"{name}" for name in schema["properties"]) + "}"
        case "integer" | "number" as kind:
            low, high = schema.get("minimum"), schema.get("maximum")
            return kind if high is None else f"{kind} {low}–{high}"
        case None:
            return "anything"
        case kind:
            return str(schema.get("format", kind))
