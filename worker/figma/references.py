"""What people paste: file keys, addresses of files, ids of nodes."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

_KEY = re.compile(r"[A-Za-z0-9]{10,128}")
VERSION = r"^[A-Za-z0-9_-]{1,100}$"
_NODE = re.compile(r"I?\d{1,12}[:-]\d{1,12}(?:;\d{1,12}[:-]\d{1,12}){0,30}")
_READABLE = ("file", "design", "board", "proto")
_UNREADABLE = ("slides", "deck", "make", "site", "sites", "buzz", "community")


@dataclass(frozen=True, slots=True)
class FileReference:
    key: str
    node_id: str | None = None  # of the address's node-id
    version: str | None = None  # of its version-id


def file_reference(text: str) -> FileReference:
    """A key as it is, or an address of figma.com. Raises ValueError with a sentence's end."""
    text = text.strip()
    if _KEY.fullmatch(text):
        return FileReference(text)
    if "/" not in text and ":" not in text:
        raise ValueError("is neither a file key (letters and digits) nor an address of figma.com")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host = (parts.hostname or "").rstrip(".")
        alone = parts.port in (None, 443) and parts.username is None
    except ValueError as error:
        raise ValueError("is no proper address") from error
    if parts.scheme != "https" or not alone or not (host == "figma.com" or host.endswith(".figma.com")):
        raise ValueError("must be a file key or an https address of figma.com")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    if segments and segments[0] in _UNREADABLE:
        raise ValueError(f"is an address of Figma's {segments[0]}, whose files the API does not give out")
    if len(segments) < 2 or segments[0] not in _READABLE:
        raise ValueError(
            "is an address of figma.com, but of no file: it should begin with /design/ and a key"
        )
    key = segments[3] if len(segments) > 3 and segments[2] == "branch" else segments[1]
    if not _KEY.fullmatch(key):
        raise ValueError("holds no file key after /design/")
    query = parse_qs(parts.query)
    node, version = query.get("node-id", [None])[0], query.get("version-id", [None])[0]
    if version is not None and not is_version(version):
        raise ValueError("has a version-id that is none")
    return FileReference(key, node_id(node) if node else None, version)


def is_version(text: str) -> bool:
    """Whether it may be a version's id, and not a moment."""
    return re.fullmatch(VERSION, text) is not None


def node_id(text: str) -> str:
    """`1-2`, `1%3A2` and `1:2` are one id; `I1-2;3-4` is a node within an instance. Raises ValueError."""
    plain = unquote(text.strip())
    if len(plain) > 500 or not _NODE.fullmatch(plain):
        raise ValueError("is no node id such as 1:2")
    return plain.replace("-", ":")
