"""Remove stored files that nobody needs. Storage alone can do it, and only the secret key may ask."""

from sidejob import storage
from sidejob.call import Call, Reply

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
        paths = [str(path) for path in row["paths"]] if isinstance(row["paths"], list) else []
        if paths:
            removed += storage.remove(BUCKET, paths, call.request_id)
        after = str(row["scanned_to"]) if row["scanned_to"] is not None else None
        if after is None:
            break
    return Reply({"removed": removed, "scannedTo": after})
