"""Private topics: what the policies on realtime.messages let somebody do, asked as hosted projects ask.

Probe rows in a transaction that is rolled back: policies are written for this shape, with `realtime.topic()`
and `extension in ('broadcast', 'presence')`.
"""

import json
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from local.realtime.tokens import Identity

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

_PROBE = "insert into realtime.messages (id, topic, extension) values (%s, %s, %s)"
_BECOME = """select set_config('role', %s, true), set_config('realtime.topic', %s, true),
  set_config('request.jwt.claims', %s, true), set_config('request.jwt.claim.sub', %s, true),
  set_config('request.jwt.claim.role', %s, true), set_config('request.headers', %s, true)"""

UNREACHABLE = "Realtime was unable to connect to the project database"
CANCELLED = "Query was cancelled, please try again"

log = logging.getLogger(__name__)


class Unavailable(Exception):
    """The database did not answer."""


class TooSlow(Unavailable):
    """The policies took longer than they may."""


class PolicyFailed(Exception):
    """A policy raised, or the role does not exist."""


class Authorization:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def readable(
        self, identity: Identity, topic: str, extensions: Sequence[str], headers: str = "{}"
    ) -> set[str]:
        """The extensions that may be heard. Raises Unavailable, PolicyFailed."""
        ids = {uuid.uuid4(): extension for extension in extensions}
        async with self._rolled_back() as connection:
            async with connection.pipeline():
                for probe, extension in ids.items():
                    await connection.execute(_PROBE, (probe, topic, extension))
                await connection.execute(_BECOME, _words(identity, topic, headers))
                seen = await connection.execute(
                    "select id from realtime.messages where id = any(%s)", ([*ids],)
                )
            return {ids[row[0]] for row in await seen.fetchall()}

    async def writable(self, identity: Identity, topic: str, extension: str, headers: str = "{}") -> bool:
        """May the extension be spoken? Raises Unavailable, PolicyFailed."""
        async with self._rolled_back() as connection:
            try:
                async with connection.pipeline():
                    await connection.execute(_BECOME, _words(identity, topic, headers))
                    await connection.execute(_PROBE, (uuid.uuid4(), topic, extension))
            except psycopg.errors.InsufficientPrivilege:
                return False
            return True

    @asynccontextmanager
    async def _rolled_back(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        try:
            async with self._pool.connection() as connection:
                try:
                    yield connection
                finally:
                    if not connection.closed:
                        await connection.rollback()
        except psycopg.errors.QueryCanceled as error:
            log.warning("QueryCanceled: %s", error)
            raise TooSlow(str(error)) from error
        except (psycopg.OperationalError, PoolTimeout) as error:
            log.warning("UnableToConnectToProject: %s", error)
            raise Unavailable(str(error)) from error
        except psycopg.Error as error:
            log.warning("RlsPolicyError: %s", error)
            raise PolicyFailed(str(error)) from error


def _words(identity: Identity, topic: str, headers: str) -> tuple[str, ...]:
    subject = identity.claims.get("sub")
    sub = subject if isinstance(subject, str) else "" if subject is None else json.dumps(subject)
    return identity.role, topic, identity.claims_json, sub, identity.role, headers
