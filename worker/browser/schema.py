"""The payloads of browser jobs as JSON Schema: `python -m worker.browser.schema`."""

import json
import sys

from worker.browser.kinds import KINDS
from worker.schema import schema

SCHEMA = schema("Browser jobs of Sidejob", {f"browser.{kind.action}": kind.model for kind in KINDS})

if __name__ == "__main__":
    json.dump(SCHEMA, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
