"""The payloads of Figma jobs as JSON Schema: `python -m worker.figma.schema`."""

import json
import sys

from worker.figma.jobs import KINDS
from worker.schema import schema

SCHEMA = schema("Figma jobs of Sidejob", {job_type: model for job_type, (model, _) in KINDS.items()})

if __name__ == "__main__":
    json.dump(SCHEMA, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
