"""`python -m worker`. Exit codes: 0 drained, 1 port in use or no browser, 2 wrong settings or sign-in."""

import asyncio
import logging
import os
import signal
import sys

from worker import VERSION, log
from worker.attempt import Workshop
from worker.browser.engine import Engine, NoBrowser
from worker.browser.launching import Launch
from worker.browser.screenshot import Screenshot
from worker.browser.targets import Targets
from worker.errors import Refused, SignInRefused
from worker.handlers import Handler
from worker.health import serving
from worker.metrics import Metrics
from worker.project import Project
from worker.runner import Runner
from worker.settings import Settings, SettingsError


async def work(settings: Settings) -> None:
    """Runs until drained. Raises NoBrowser, SignInRefused, Refused, OSError at the start; nothing later."""
    logger = logging.getLogger("worker")
    metrics = Metrics()
    launch = Launch(
        executable=settings.browser_executable,
        channel=settings.browser_channel,
        headless=settings.headless,
        sandbox=settings.browser_sandbox,
    )
    if settings.allow_origins:
        logger.warning(
            "some origins may be opened in spite of a private address: %s", sorted(settings.allow_origins)
        )
    async with Engine.running(launch, on_start=lambda: metrics.add("browser_starts_total")) as engine:
        screenshot = Screenshot(
            engine, Targets(settings.allow_origins), settings.nav_timeout_ms / 1000, settings.force_success
        )
        handlers: dict[str, Handler] = {"browser.screenshot": screenshot.handle}
        async with Project.open(settings) as project:
            shop = Workshop(project, handlers, metrics, settings.lease_seconds, settings.work_folder)
            runner = Runner(settings, project, shop, metrics, lambda: engine.ready)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, runner.drain)
            async with serving(runner, settings.health_host, settings.health_port) as port:
                logger.info("worker %s", VERSION, extra=log.fields(healthPort=port, pid=os.getpid()))
                await runner.run()


def main() -> int:
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        print("The worker cannot start:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2
    log.configure(settings.log_level, frozenset({settings.password, settings.publishable_key}))
    try:
        asyncio.run(work(settings))
    except (SignInRefused, Refused) as error:
        print(f"The worker cannot start: {error}", file=sys.stderr)
        return 2
    except NoBrowser as error:
        print(f"The worker cannot start: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The worker cannot start: HEALTH_PORT {settings.health_port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
