"""A temporary URL for a file."""

from sidejob import storage
from sidejob.call import Call, Reply
from sidejob.errors import Refused
from sidejob.query import refusal

DEFAULT_SECONDS = 3600
LOWEST_SECONDS, HIGHEST_SECONDS = 1, 604_800  # a week, as S3 allows


def sign_artifact(call: Call) -> Reply:
    """`{url, bucket, path, expires}`. The artifact's row is looked up with the caller's rights before
    anything is signed, and what is signed is the bucket and path of that row, not those of the request.

    A browser that opens the URL saves the file, unless it is of a type that can run nothing there.
    """
    filters, expires = _asked_in_body(call) if call.body else _asked_in_query(call)
    field = "artifactId" if "id" in filters else "path"
    rows = call.database.rows(
        "artifacts", {"select": "job_id,bucket,path,name,mime", **filters, "limit": "1"}
    )
    if not rows:
        raise storage.object_not_found(field)
    row = rows[0]
    call.notes["jobId"] = row["job_id"]
    bucket, path, name = (str(row[column]) for column in ("bucket", "path", "name"))
    download = None if storage.is_inert(str(row["mime"]), name, path) else name
    url = storage.signed_url(bucket, path, expires, call.request_id, download=download, field=field)
    return Reply({"url": url, "bucket": bucket, "path": path, "expires": expires})


def _asked_in_query(call: Call) -> tuple[dict[str, str], int]:
    query = call.query
    query.only("artifactId", "bucket", "path", "expires")
    expires = query.number("expires", DEFAULT_SECONDS, LOWEST_SECONDS, HIGHEST_SECONDS, clamped=True)
    wanted = _filters(query.uuid("artifactId"), query.text("bucket"), query.text("path"))
    if wanted is None:
        raise refusal("artifactId", "or both `bucket` and `path` are needed, and not more.")
    return wanted, expires


def _asked_in_body(call: Call) -> tuple[dict[str, str], int]:
    from sidejob.bodies import SignArtifact, parsed

    call.query.only()
    body = parsed(SignArtifact, call.body)
    wanted = _filters(str(body.artifact_id) if body.artifact_id else None, body.bucket, body.path)
    if wanted is None:
        raise Refused("invalid_body", "`artifactId`, or both `bucket` and `path`, are needed, and not more.")
    return wanted, min(max(body.expires, LOWEST_SECONDS), HIGHEST_SECONDS)


def _filters(artifact_id: str | None, bucket: str | None, path: str | None) -> dict[str, str] | None:
    if artifact_id and not bucket and not path:
        return {"id": f"eq.{artifact_id}"}
    if bucket and path and not artifact_id and "\0" not in bucket + path:
        return {"bucket": f"eq.{bucket}", "path": f"eq.{path}"}
    return None
