"""`figma.comments`: a file's comments as JSON, replies under what they answer."""

import json
from datetime import datetime
from typing import Any

from worker.figma.client import Api, reading
from worker.figma.download import Downloads
from worker.figma.options import CommentsOptions, instant
from worker.handlers import Context, Done, File, Job
from worker.storable import utf8


async def comments(
    options: CommentsOptions, _job: Job, _context: Context, api: Api, _downloads: Downloads
) -> Done:
    """Raises Fault, RateLimited."""
    key = options.reference.key
    found = await api.comments(key, {"as_md": True} if options.as_md else {})
    threads = _threads(found)
    if not options.include_resolved:
        threads = [thread for thread in threads if not thread.get("resolved_at")]
    if options.since is not None:
        threads = [thread for thread in threads if _latest(thread) >= options.since]
    content = utf8(json.dumps({"file": key, "threads": threads}, ensure_ascii=False, indent=1))
    result = {
        "action": "figma.comments",
        "file": key,
        "counts": {"comments": sum(1 + len(t["replies"]) for t in threads), "threads": len(threads)},
    }
    return Done(result, (File("comments.json", "application/json", content),))


def _threads(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Oldest first; a reply whose thread is gone stands alone."""
    ordered = sorted(found, key=lambda comment: str(comment.get("created_at", "")))
    threads: dict[str, dict[str, Any]] = {}
    for comment in ordered:
        if not comment.get("parent_id"):
            threads[str(comment.get("id"))] = {**comment, "replies": []}
    for comment in ordered:
        if parent := comment.get("parent_id"):
            if str(parent) in threads:
                threads[str(parent)]["replies"].append(comment)
            else:
                threads[str(comment.get("id"))] = {**comment, "replies": []}
    return list(threads.values())


def _latest(thread: dict[str, Any]) -> datetime:
    with reading():
        return max(instant(str(entry["created_at"])) for entry in (thread, *thread["replies"]))
