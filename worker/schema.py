"""Payloads of jobs as JSON Schema, as documents and clients take them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema


def schema(title: str, payloads: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """2020-12. `$defs` has a model for each type; `oneOf` ties a payload to its job's type."""
    refs, document = models_json_schema([(model, "validation") for model in payloads.values()], by_alias=True)
    jobs = [
        {
            "type": "object",
            "properties": {"type": {"const": job_type}, "payload": refs[model, "validation"]},
            "required": ["type", "payload"],
        }
        for job_type, model in payloads.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": "A job's type and its payload. What goes with what beyond this, the job's error says.",
        "oneOf": jobs,
        **document,
    }
