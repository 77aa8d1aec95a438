"""The payloads of browser jobs as JSON Schema: `python -m worker.browser.schema`."""

import json
import sys
from typing import Any

from pydantic.json_schema import models_json_schema

from worker.browser.kinds import KINDS


def schema() -> dict[str, Any]:
    """2020-12. `$defs` has a model for each type; `oneOf` ties a payload to its job's type."""
    refs, document = models_json_schema([(kind.model, "validation") for kind in KINDS], by_alias=True)
    jobs = [
        {
            "type": "object",
            "properties": {
                "type": {"const": f"browser.{kind.action}"},
                "payload": refs[kind.model, "validation"],
            },
            "required": ["type", "payload"],
        }
        for kind in KINDS
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Browser jobs of Sidejob",
        "description": "A job's type and its payload. What goes with what beyond this, the job's error says.",
        "oneOf": jobs,
        **document,
    }


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
