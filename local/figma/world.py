"""What a Figma of ours holds, how it is told to misbehave, and what it was asked."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from local.figma.documents import Document
from local.figma.limits import Limits

TOKEN = "figd_local-stand-in"  # noqa: S105  opens nothing but this


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came."""

    at: float  # time.monotonic()
    origin: str  # api or images
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    status: int

    @property
    def ids(self) -> list[str]:
        return list(filter(None, self.query.get("ids", "").split(",")))


@dataclass
class Answer:
    """Said instead of the truth, to the next `times` requests whose path holds `part`."""

    part: str
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    hang_seconds: float = 0.0
    after: int = 0  # so many go through first


class World:
    """Thread-safe where it counts: two servers answer from it."""

    def __init__(self, *documents: Document, token: str = TOKEN, limits: Limits | None = None) -> None:
        self.documents = {document.key: document for document in documents}
        self.token = token
        self.limits = limits or Limits()
        self.api_url = ""
        self.images_url = ""
        self.asked: list[Asked] = []
        self.answers: list[Answer] = []
        self.most_ids: int | None = None  # a render of more times out
        self.most_megapixels: float | None = None
        self.timeout_status = 400
        self.poison: set[str] = set()  # nodes whose render always times out
        self.null_once: set[str] = set()  # nodes that have no picture the first time
        self.spoilt: dict[str, list[str]] = {}  # node or imageRef → how its next downloads go wrong
        self.render_seconds = 0.0  # a render request takes so long
        self.image_seconds = 0.0  # a download begins so late
        self.link_bytes_per_second: float | None = None  # of the image origin, all downloads together
        self.bare_meta = False
        self.pins_versions = True
        self.large_bytes = 0  # pictures are padded to so much
        self._lock = threading.Lock()
        self._link_free_at = 0.0
        self._running = 0
        self.most_running = 0  # downloads at the same time, at most
        self.stopped = threading.Event()

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def answer_for(self, path: str) -> Answer | None:
        with self._lock:
            for answer in self.answers:
                if answer.part in path and answer.times > 0:
                    if answer.after > 0:
                        answer.after -= 1
                        continue
                    answer.times -= 1
                    return answer
        return None

    def spoil(self, what: str) -> str | None:
        with self._lock:
            left = self.spoilt.get(what)
            return left.pop(0) if left else None

    def first_time(self, node: str) -> bool:
        with self._lock:
            if node in self.null_once:
                self.null_once.remove(node)
                return True
        return False

    def enter(self, change: int) -> None:
        with self._lock:
            self._running += change
            self.most_running = max(self.most_running, self._running)

    def link_pause(self, size: int) -> float:
        """Seconds until the link has carried so many more bytes."""
        if not self.link_bytes_per_second:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._link_free_at = max(self._link_free_at, now - 0.02) + size / self.link_bytes_per_second
            return max(0.0, self._link_free_at - now)

    def requests(self, origin: str = "api", part: str = "") -> list[Asked]:
        with self._lock:
            return [one for one in self.asked if one.origin == origin and part in one.path]

    def statuses(self) -> Counter[int]:
        return Counter(one.status for one in self.requests())
