"""Remove stored files that nobody needs. Storage alone can do it, and only the secret key may ask."""

import json

from sidejob import storage
from sidejob.call import Call, Reply
from sidejob.errors import Unavailable
from sidejob.jsontext import JSON, Raw

BUCKET = "artifacts"
SLICE = 1000  # objects looked at in one call of the database; Storage removes as many at once
SLICES = 20  # a request


def artifacts_sweep(call: Call) -> Reply:
    """`{removed, scannedTo}`. Which files they are the database says, with the caller's own rights.

    scannedTo: where the next call goes on (`after`); null when all have been looked at. Nothing is lost when
    a call ends halfway: what it did not remove the next one finds.
    """
    from sidejob.bodies import ArtifactsSweep, parsed

    call.query.only()
    after: str | None = parsed(ArtifactsSweep, call.body).after
    removed = 0
    for _ in range(SLICES):
        row = call.database.call_for_row(
            "objects_to_sweep", {"after": after, "max_objects": SLICE}, repeatable=True
        )
        paths = _paths(row["paths"])
        if paths:
            removed += storage.remove(BUCKET, paths, call.request_id)
        after = str(row["scanned_to"]) if row["scanned_to"] is not None else None
        if after is None:
            break
    return Reply({"removed": removed, "scannedTo": after})


def _paths(found: JSON) -> list[str]:
    try:
        paths = json.loads(found.text) if isinstance(found, Raw) else found
    except ValueError:
        paths = None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Unavailable("database_error", cause="objects_to_sweep gave no list of paths")
    return [str(path) for path in paths]
