"""`python -m local.realtime`: serves until SIGTERM."""

import logging
from functools import partial

import uvicorn

from local.realtime.connection import Connection
from local.realtime.rest import application
from local.realtime.server import Server
from local.realtime.settings import Settings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("websockets.server").setLevel(logging.WARNING)
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    settings = Settings.read()
    server = Server(settings)
    uvicorn.Server(
        uvicorn.Config(
            application(server),
            host=settings.host,
            port=settings.port,
            ws=partial(Connection, server),  # type: ignore[arg-type]  # called as a class
            log_config=None,
            access_log=False,
            log_level="warning",
            backlog=4096,
            timeout_graceful_shutdown=3,
        )
    ).run()


if __name__ == "__main__":
    main()
