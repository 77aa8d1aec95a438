"""The handlers of all Figma jobs: what they share, and which type is done by what."""

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from worker import storable
from worker.computing.pool import Pool
from worker.figma.client import Access, Api
from worker.figma.comments import comments
from worker.figma.download import Downloads
from worker.figma.export import export
from worker.figma.faults import Fault, RateLimited, invalid
from worker.figma.fills import fills
from worker.figma.limiter import Limiter
from worker.figma.options import (
    CommentsOptions,
    ExportOptions,
    FigmaOptions,
    FileOptions,
    FillsOptions,
    TokensOptions,
)
from worker.figma.snapshot import snapshot
from worker.figma.tokens import tokens
from worker.handlers import Context, Done, Handler, Job, Outcome
from worker.payloads import read

log = logging.getLogger(__name__)

Options = TypeVar("Options", bound=FigmaOptions)
Work = Callable[[Options, Job, Context, Api, Downloads], Awaitable[Done]]

KINDS: Mapping[str, tuple[type[Any], Work[Any]]] = {
    "figma.export": (ExportOptions, export),
    "figma.file": (FileOptions, snapshot),
    "figma.tokens": (TokensOptions, tokens),
    "figma.fills": (FillsOptions, fills),
    "figma.comments": (CommentsOptions, comments),
}
ANY_FILE = "*"


class Figma:
    """One token's access, its rate limit and its connections, shared by all jobs of the process."""

    def __init__(self, api: Api, downloads: Downloads, allowed: frozenset[str], *, token: bool) -> None:
        self._api = api
        self._downloads = downloads
        self._allowed = allowed
        self._token = token

    @classmethod
    @asynccontextmanager
    async def open(
        cls, access: Access, limiter: Limiter, allowed: frozenset[str], computing: Pool
    ) -> AsyncIterator["Figma"]:
        """`allowed`: keys of the files that jobs may ask for, or `*`."""
        async with contextlib.AsyncExitStack() as stack:
            api = await stack.enter_async_context(Api.open(access, limiter, computing))
            downloads = await stack.enter_async_context(Downloads.open(access.url, computing))
            yield cls(api, downloads, allowed, token=bool(access.token))

    def handlers(self) -> dict[str, Handler]:
        """By job type."""
        return {job_type: self._handler(model, work) for job_type, (model, work) in KINDS.items()}

    def _handler(self, model: type[Options], work: Work[Options]) -> Handler:
        async def handle(job: Job, context: Context) -> Outcome:
            try:
                options = read(model, job.payload, invalid)
                self._admit(options.reference.key)
                done = await work(options, job, context, self._api, self._downloads)
                return Done(storable.clean(done.result, sys.maxsize), done.files)
            except Fault as fault:
                details = storable.clean(fault.details, sys.maxsize)
                return Fault(fault.code, storable.clean_text(fault.message), **details).outcome()
            except RateLimited as limited:
                return limited.outcome()

        return handle

    def _admit(self, key: str) -> None:
        """Before any request: the token may see more than whoever enqueues jobs."""
        if ANY_FILE not in self._allowed and key not in self._allowed:
            raise Fault(
                "figma_file_not_allowed",
                "payload.file: this worker may not read that file; FIGMA_ALLOWED_FILES says which it may.",
                field="payload.file",
            )
        if not self._token:
            raise Fault(
                "figma_token_missing", "The worker has no Figma token: an operator must set FIGMA_API_TOKEN."
            )
