"""A file's comments as threads, picked from Figma's answer."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any


def pick_threads(
    answer: Mapping[str, Any], key: str, include_resolved: bool, since: datetime | None
) -> dict[str, Any]:
    """The artifact's text, and how many comments and threads it holds."""
    found = answer.get("comments")
    comments: list[dict[str, Any]] = [dict(one) for one in found] if isinstance(found, list) else []
    threads = _threads(comments)
    if not include_resolved:
        threads = [thread for thread in threads if not thread.get("resolved_at")]
    if since is not None:
        threads = [thread for thread in threads if _latest(thread) >= since]
    told = {"file": key, "threads": threads}
    return {
        "text": json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False),
        "comments": sum(1 + len(thread["replies"]) for thread in threads),
        "threads": len(threads),
    }


def _threads(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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


def _latest(thread: Mapping[str, Any]) -> datetime:
    """Figma writes moments as RFC 3339 has it."""
    return max(datetime.fromisoformat(str(entry["created_at"])) for entry in (thread, *thread["replies"]))
