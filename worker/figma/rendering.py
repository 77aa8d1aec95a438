"""Pictures by the batch: as few requests as Figma can bear, halved where it cannot.

Figma names no limit of ids. Many ids and large frames both end in a render time-out, which costs a request of
the minute's few. So batches begin large, are packed by pixels, and what is learnt of the file's limit holds
for the rest of the job.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.figma.client import Api, Params
from worker.figma.faults import Fault, RenderTimeout, TooLarge
from worker.figma.nodes import Node

log = logging.getLogger(__name__)

_MOST_IDS = 100
_MOST_MEGAPIXELS = 60.0
_MOST_ID_CHARACTERS = 4000  # of an address, before its colons and commas are escaped
_AT_ONCE = 3  # requests; one until the first batch has succeeded
_DOUBTS = 6  # batches that failed for no clear reason while none succeeded
_LARGE_MEGAPIXELS = 20.0  # a batch that fails above this failed for its pixels, else for its ids


@dataclass(slots=True)
class Ceiling:
    """The largest batch that is tried."""

    ids: int = _MOST_IDS
    megapixels: float = _MOST_MEGAPIXELS
    proven: bool = False  # a batch has succeeded since it was last lowered


@dataclass(slots=True)
class _Halves:
    """The two halves of a batch that timed out. Both succeeding shows that the whole was too large; one
    failing, that a single node may be to blame."""

    ids: int
    megapixels: float
    too_many_pixels: bool
    good: int = 0


@dataclass(slots=True)
class _Batch:
    kind: tuple[str, float]
    nodes: tuple[Node, ...]
    of: _Halves | None = None

    @property
    def megapixels(self) -> float:
        return _megapixels(self.nodes, self.kind)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What Figma made of one batch: an address, null, or that it timed out, by node."""

    kind: tuple[str, float]
    urls: dict[str, str | None] = field(default_factory=dict)
    timed_out: tuple[str, ...] = ()


class Renderer:
    """One job's requests for pictures."""

    def __init__(self, api: Api, key: str, params: Params) -> None:
        self._api = api
        self._key = key
        self._params = params
        self.ceiling = Ceiling()
        self.requests = 0
        self._doubts: list[Fault] = []  # what it is when no picture ever comes
        self._any_good = False
        self._clear = False  # Figma has said itself that a render took too long

    async def render(
        self, wanted: Sequence[tuple[Node, tuple[str, float]]]
    ) -> AsyncGenerator[Rendered, None]:
        """Yields batches as they come. Raises Api's errors, when what was under way has ended."""
        waiting: deque[_Batch] = deque(self._packed(wanted))
        running: dict[asyncio.Task[Rendered | None], _Batch] = {}
        suspects: list[Rendered] = []  # one node each, to blame if any other comes out well
        try:
            while waiting or running:
                while waiting and len(running) < (_AT_ONCE if self.ceiling.proven else 1):
                    batch = self._fitting(waiting)
                    running[asyncio.create_task(self._ask(batch))] = batch
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    batch = running.pop(task)
                    answer = task.result()
                    if answer is not None:
                        self._learn(batch)
                        yield answer
                    elif len(batch.nodes) == 1:
                        self.ceiling.proven = self._any_good  # the one to blame is found
                        suspect = Rendered(batch.kind, timed_out=(batch.nodes[0].id,))
                        if self._any_good or self._clear:
                            yield suspect
                        else:
                            suspects.append(suspect)
                    else:
                        self._put_back(waiting, batch)
            if suspects and self._doubts and not self._any_good and not self._clear:
                raise self._doubts[0]
            for suspect in suspects:
                yield suspect
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _packed(self, wanted: Sequence[tuple[Node, tuple[str, float]]]) -> list[_Batch]:
        """Batches of one format and scale each, large nodes with large ones."""
        by_kind: dict[tuple[str, float], list[Node]] = {}
        for node, kind in wanted:
            by_kind.setdefault(kind, []).append(node)
        batches: list[_Batch] = []
        for kind, nodes in by_kind.items():
            ordered = sorted(nodes, key=lambda node: node.pixels(kind[1]))
            batches += self._cut(_Batch(kind, tuple(ordered)))
        return batches

    def _cut(self, batch: _Batch) -> list[_Batch]:
        """The batch in parts that stay under the ceiling."""
        parts: list[list[Node]] = [[]]
        pixels = characters = 0.0
        for node in batch.nodes:
            more = node.pixels(batch.kind[1]) / 1e6
            full = (
                len(parts[-1]) >= self.ceiling.ids
                or pixels + more > self.ceiling.megapixels
                or characters + len(node.id) > _MOST_ID_CHARACTERS
            )
            if parts[-1] and full:
                parts.append([])
                pixels = characters = 0.0
            parts[-1].append(node)
            pixels, characters = pixels + more, characters + len(node.id) + 1
        return [_Batch(batch.kind, tuple(part), batch.of if len(parts) == 1 else None) for part in parts]

    def _fitting(self, waiting: deque[_Batch]) -> _Batch:
        """The next batch; cut anew if the ceiling has come down since it was packed."""
        first, *rest = self._cut(waiting.popleft())
        waiting.extendleft(reversed(rest))
        return first

    def _put_back(self, waiting: deque[_Batch], batch: _Batch) -> None:
        """In halves, behind the batch's own other half: that one may be good, and then all is well."""
        sibling = waiting and batch.of is not None and waiting[0].of is batch.of
        at = 1 if sibling else 0
        for half in reversed(self._halves(batch)):
            waiting.insert(at, half)

    def _doubt(self, timeout: RenderTimeout) -> None:
        """Figma may be down, or refuse them all. Raises Fault when so many batches gave no picture."""
        if timeout.instead is None:
            self._clear = True
            return
        self._doubts.append(timeout.instead)
        if len(self._doubts) >= _DOUBTS and not self._any_good and not self._clear:
            raise timeout.instead

    def _halves(self, batch: _Batch) -> list[_Batch]:
        middle = len(batch.nodes) // 2
        parts = batch.nodes[:middle], batch.nodes[middle:]
        pixels = [_megapixels(part, batch.kind) for part in parts]
        halves = _Halves(len(parts[1]), max(pixels), batch.megapixels > _LARGE_MEGAPIXELS)
        self.ceiling.proven = False
        log.info("a batch of %d pictures timed out; halved", len(batch.nodes))
        return [_Batch(batch.kind, part, halves) for part in parts]

    def _learn(self, batch: _Batch) -> None:
        self._any_good = True
        if batch.of is None:
            self.ceiling.proven = True
            return
        batch.of.good += 1
        if batch.of.good == 2:
            self.ceiling.proven = True
            if batch.of.too_many_pixels:
                self.ceiling.megapixels = min(self.ceiling.megapixels, max(1.0, batch.of.megapixels))
            else:
                self.ceiling.ids = min(self.ceiling.ids, batch.of.ids)

    async def _ask(self, batch: _Batch) -> Rendered | None:
        """None when it timed out."""
        kind, scale = batch.kind
        query: dict[str, Any] = {**self._params, "format": kind}
        if scale != 1:
            query["scale"] = scale
        self.requests += 1
        try:
            ids = [node.id for node in batch.nodes]
            urls = await self._api.images(self._key, ids, query)
        except RenderTimeout as timeout:
            self._doubt(timeout)
            return None
        except TooLarge:
            return None
        return Rendered(batch.kind, {node.id: _address(urls.get(node.id)) for node in batch.nodes})


def _address(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise Fault("figma_unavailable", "Figma answered JSON of another shape.")


def _megapixels(nodes: Sequence[Node], kind: tuple[str, float]) -> float:
    return sum(node.pixels(kind[1]) for node in nodes) / 1e6
