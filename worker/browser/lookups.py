"""Names looked up in threads of their own: a resolver that hangs holds up no other, nor the worker's end."""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from worker.browser.addresses import IPAddress

MOST = 128  # at once, of all jobs
MOST_PER_JOB = 16

Resolve = Callable[[str], Awaitable[list[IPAddress]]]


class Lookups:
    """`most` at once. The system's resolver may take half a minute for a name, and cannot be stopped. So
    each job has a share of its own, and a name keeps its place until its thread has ended, even if nobody
    waits for it any more."""

    def __init__(self, most: int = MOST, ask: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._free = asyncio.Semaphore(most)
        self._ask = ask

    def share(self, most: int = MOST_PER_JOB) -> Callable[[str], Coroutine[Any, Any, list[IPAddress]]]:
        """Resolves names for one job, `most` at once. Raises gaierror and UnicodeError, as `getaddrinfo`."""
        own = asyncio.Semaphore(most)

        async def resolve(host: str) -> list[IPAddress]:
            await own.acquire()
            try:
                await self._free.acquire()
            except BaseException:
                own.release()
                raise

            def free() -> None:
                own.release()
                self._free.release()

            answers = await self._start(host, free)
            return [ipaddress.ip_address(answer[4][0]) for answer in answers]

        return resolve

    def _start(self, host: str, free: Callable[[], None]) -> asyncio.Future[list[Any]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()

        def tell(found: list[Any] | Exception) -> None:
            free()
            if future.done():  # nobody waits any more
                return
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

        def look() -> None:
            try:
                found: list[Any] | Exception = self._ask(host, None, type=socket.SOCK_STREAM)
            except Exception as error:  # noqa: BLE001  raised again where it is waited for
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(tell, found)

        try:
            # No executor: Python would wait for its threads at the end.
            threading.Thread(target=look, name="lookup", daemon=True).start()
        except RuntimeError as error:
            free()
            raise socket.gaierror(socket.EAI_AGAIN, "no thread can be started") from error
        return future
