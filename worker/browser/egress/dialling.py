"""Connections to addresses that were checked."""

import asyncio
from collections.abc import Callable

from worker.browser.egress.wire import Wire
from worker.browser.faults import Fault
from worker.browser.targets import Target

_DIAL_SECONDS = 10.0  # for all addresses of a host together


async def dial(target: Target, make_wire: Callable[[], Wire]) -> Wire:
    """Connects to the first of the target's addresses that answers. Raises Fault."""
    try:
        async with asyncio.timeout(_DIAL_SECONDS):
            for address in target.addresses:
                last = address == target.addresses[-1]
                try:
                    async with asyncio.timeout(None if last else _DIAL_SECONDS / 3):
                        loop = asyncio.get_running_loop()
                        _, wire = await loop.create_connection(make_wire, str(address), target.port)
                        return wire
                except (OSError, TimeoutError):
                    if last:
                        raise
    except TimeoutError as error:
        raise Fault("connection_timeout", "The server did not take the connection in time.") from error
    except OSError as error:
        raise Fault("connection_refused", "The server refused the connection.") from error
    raise Fault("dns_not_found", "The host name has no address.")
