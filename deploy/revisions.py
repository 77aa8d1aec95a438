"""What `gcloud … --format=json` says of services and worker pools, as lines that a shell can read.

    python -m deploy.revisions < services.json
    name|serving|pinned|newest|app|source|before|release|tag=revision tag=revision

serving: the revision that has all the traffic, else nothing. pinned: `yes` when it has it by its own name; a
service that was never promoted follows whatever is newest. newest: the revision made last. The next four are
labels that deploy.sh sets.
Sources: Cloud Run's v1 API, `Service` and `WorkerPool` (status.traffic, status.instanceSplits).
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

LABELS = ("app", "source", "before", "release")


def lines(document: Any) -> Iterator[str]:
    """One line for each service or pool of a list, or for one alone."""
    for found in document if isinstance(document, list) else [document]:
        metadata, status = found["metadata"], found.get("status", {})
        targets = status.get("traffic") or status.get("instanceSplits") or []
        serving: dict[str, Any] = next((target for target in targets if target.get("percent") == 100), {})
        labels = metadata.get("labels", {})
        tags = [f"{target['tag']}={target.get('revisionName', '')}" for target in targets if "tag" in target]
        fields = [
            metadata["name"],
            serving.get("revisionName", ""),
            "yes" if serving and not serving.get("latestRevision") else "no",
            status.get("latestCreatedRevisionName", ""),
            *(labels.get(label, "") for label in LABELS),
            " ".join(sorted(tags)),
        ]
        yield "|".join(fields)


if __name__ == "__main__":
    for line in lines(json.loads(sys.stdin.read() or "[]")):
        print(line)
