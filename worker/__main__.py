"""`python -m worker`. Exit codes: 0 drained, 1 port in use or no browser, 2 wrong settings or sign-in, 3 a
bug, which the log tells of.

A project that does not answer is waited for, with /readyz saying 503."""

import asyncio
import logging
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager

from worker import VERSION, log
from worker.attempt import Workshop
from worker.browser import kinds
from worker.browser.egress.limits import Limits
from worker.browser.egress.proxy import Egress
from worker.browser.engine import Engine, NoBrowser
from worker.browser.launching import Launch
from worker.browser.targets import Targets
from worker.browser.visit import Visitor
from worker.computing.pool import Pool
from worker.errors import Refused, SignInRefused
from worker.figma.client import Access
from worker.figma.jobs import ANY_FILE, Figma
from worker.figma.limiter import Limiter
from worker.handlers import Handler
from worker.health import serving
from worker.metrics import Metrics
from worker.project import Project
from worker.runner import Runner
from worker.settings import Settings, SettingsError

# What children have imported before they are asked: that takes longer than most computations.
_COMPUTED = ("worker.browser.markdown", "worker.browser.measuring", "worker.figma.pictures")


async def work(settings: Settings) -> None:
    """Runs until drained. Raises NoBrowser, SignInRefused, Refused, OSError at the start; later SignInRefused
    alone. A signal that comes while the browser starts cancels."""
    logger = logging.getLogger("worker")
    loop = asyncio.get_running_loop()
    if starting := asyncio.current_task():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, starting.cancel)
    metrics = Metrics()
    launch = Launch(
        executable=settings.browser_executable,
        channel=settings.browser_channel,
        headless=settings.headless,
        sandbox=settings.browser_sandbox,
        page_bytes=settings.page_mb * 1024 * 1024,
    )
    if settings.allow_origins:
        logger.warning(
            "some origins may be opened in spite of a private address: %s", sorted(settings.allow_origins)
        )
    received_bytes = settings.max_received_mb * 1024 * 1024
    limits = Limits(settings.max_requests, received_bytes, sent_bytes=received_bytes)
    egress = Egress(Targets(settings.allow_origins), limits, metrics.add)
    async with (
        Pool.open(
            settings.max_jobs, settings.computing_mb * 1024 * 1024, _COMPUTED, metrics.add
        ) as computing,
        Engine.running(
            launch,
            on_start=lambda: metrics.add("browser_starts_total"),
            restart_jobs=settings.restart_jobs,
            restart_bytes=settings.restart_mb * 1024 * 1024,
            most_bytes=settings.browser_mb * 1024 * 1024,
        ) as engine,
    ):
        metrics.read_from(computing.gauges)
        visitor = Visitor(
            engine,
            egress,
            settings.nav_timeout_ms / 1000,
            settings.allow_insecure_tls,
            computing=computing,
        )
        handlers: dict[str, Handler] = kinds.handlers(visitor, settings.force_success)
        async with _figma(settings, computing) as figma, Project.open(settings) as project:
            handlers |= figma.handlers()
            shop = Workshop(
                project,
                handlers,
                metrics,
                settings.lease_seconds,
                settings.work_folder,
                settings.job_seconds,
            )
            runner = Runner(settings, project, shop, metrics, lambda: engine.ready, browserless="figma.")
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, runner.drain)
            async with serving(
                runner, settings.health_host, settings.health_port, computing.readiness
            ) as port:
                logger.info("worker %s", VERSION, extra=log.fields(healthPort=port, pid=os.getpid()))
                await runner.run()


def _figma(settings: Settings, computing: Pool) -> AbstractAsyncContextManager[Figma]:
    if settings.figma_token and ANY_FILE in settings.figma_files:
        logging.getLogger("worker").warning(
            "FIGMA_ALLOWED_FILES is *: whoever may enqueue jobs reads every file that the token's owner sees"
        )
    access = Access(settings.figma_url, settings.figma_token, settings.figma_timeout_seconds)
    limiter = Limiter({1: settings.figma_tier1, 2: settings.figma_tier2, 3: settings.figma_tier3})
    return Figma.open(access, limiter, settings.figma_files, computing)


def main() -> int:
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        print("The worker cannot start:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2
    log.configure(
        settings.log_level, frozenset({settings.password, settings.publishable_key, settings.figma_token})
    )
    try:
        asyncio.run(work(settings))
    except asyncio.CancelledError:
        return 0
    except (SignInRefused, Refused) as error:
        print(f"The worker cannot work: {error}", file=sys.stderr)
        return 2
    except NoBrowser as error:
        print(f"The worker cannot start: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The worker cannot start: HEALTH_PORT {settings.health_port}: {error}", file=sys.stderr)
        return 1
    except Exception:
        logging.getLogger("worker").critical("the worker met a bug and ends", exc_info=True)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
