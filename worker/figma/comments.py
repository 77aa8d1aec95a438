"""`figma.comments`: a file's comments as JSON, replies under what they answer."""

from worker.figma.client import Api
from worker.figma.download import Downloads
from worker.figma.options import CommentsOptions
from worker.figma.threads import pick_threads
from worker.handlers import Context, Done, File, Job
from worker.storable import utf8


async def comments(
    options: CommentsOptions, _job: Job, _context: Context, api: Api, _downloads: Downloads
) -> Done:
    """Raises Fault, RateLimited."""
    key = options.reference.key
    query = {"as_md": True} if options.as_md else {}
    found = await api.json(
        2, f"/v1/files/{key}/comments", query, pick_threads, key, options.include_resolved, options.since
    )
    result = {
        "action": "figma.comments",
        "file": key,
        "counts": {"comments": found["comments"], "threads": found["threads"]},
    }
    return Done(result, (File("comments.json", "application/json", utf8(found["text"])),))
