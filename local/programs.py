"""The programs that make up a stack: their commands, and an environment of its own for each."""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deploy.stage import needs_secret_key, serving, target
from local import postgres, setup
from local.children import Program
from local.figma.world import TOKEN
from local.layout import Layout, StackError
from local.setup import REPOSITORY

_SQL = Path(__file__).parent / "sql"
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def base_environment() -> dict[str, str]:
    """What every process may know of the machine."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
    return {"LANG": "C.UTF-8", **{name: os.environ[name] for name in kept if name in os.environ}}


def http_status(url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> int:
    """The status of an answer, 0 for none."""
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}), method=method)  # noqa: S310 - ours
        with _NO_PROXY.open(request, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def _answers(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Callable[[], bool]:
    return lambda: 0 < http_status(url, headers, method) < 500


def database(layout: Layout, env: Mapping[str, str]) -> Program:
    return Program(
        "postgres",
        postgres.command(layout),
        base_environment(),
        Path("/"),
        lambda: postgres.answers(env["SUPABASE_DB_URL"]),
        ports=[layout.postgres_port],
        stop_signal=signal.SIGINT,  # fast: ends connections, loses nothing
        stop_seconds=20,
        death_signal=None if postgres.runs_as_another_user() else signal.SIGINT,
    )


def objects(layout: Layout) -> Program:
    environment = base_environment() | {"PYTHONPATH": str(REPOSITORY)}
    if limit := os.environ.get("SIDEJOB_OBJECTS_LIMIT_BYTES"):
        environment["SIDEJOB_OBJECTS_LIMIT_BYTES"] = limit
    command = [sys.executable, "-m", "local.objects", str(layout.objects), str(layout.objects_port)]
    url = f"http://127.0.0.1:{layout.objects_port}/storage"
    return Program("objects", command, environment, REPOSITORY, _answers(url), ports=[layout.objects_port])


def realtime(layout: Layout, env: Mapping[str, str]) -> Program:
    told = ("SUPABASE_DB_URL", "SUPABASE_JWT_SECRET", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY")
    environment = base_environment() | {
        **{name: value for name, value in os.environ.items() if name.startswith("REALTIME_")},
        **{name: env[name] for name in told},
        "REALTIME_PORT": str(layout.realtime_port),
        "PYTHONPATH": str(REPOSITORY),
    }
    url = f"http://127.0.0.1:{layout.realtime_port}/api/ping"
    return Program(
        "realtime",
        [sys.executable, "-m", "local.realtime"],
        environment,
        REPOSITORY,
        lambda: http_status(url) == 200,
        ports=[layout.realtime_port],
    )


def gateway(layout: Layout, env: Mapping[str, str], functions: Mapping[str, int]) -> Program:
    told = {
        "port": layout.gateway_port,
        "demoPort": layout.demo_port,
        "demoFolder": str(REPOSITORY / "local" / "demo"),
        "realtimePort": layout.realtime_port,
        "url": layout.url,
        "databaseUrl": env["SUPABASE_DB_URL"],
        "objectsUrl": f"http://127.0.0.1:{layout.objects_port}",
        "systemSchemas": (_SQL / "system_schemas.sql").read_text(),
        "functions": dict(functions),
        "publishableKey": env["SUPABASE_PUBLISHABLE_KEY"],
        "secretKey": env["SUPABASE_SECRET_KEY"],
        "jwtSecret": env["SUPABASE_JWT_SECRET"],
    }
    environment = base_environment() | {
        "SIDEJOB_GATEWAY": json.dumps(told),
        "LITE_TELEMETRY": "0",
        "EXPERIMENTAL_STORAGE": "1",
        "NODE_ENV": "production",
    }
    command = [node(), str(REPOSITORY / "local" / "gateway" / "main.mjs")]
    ready = _answers(f"{layout.url}/auth/v1/health", headers={"apikey": env["SUPABASE_PUBLISHABLE_KEY"]})
    return Program(
        "gateway",
        command,
        environment,
        REPOSITORY / "local",
        ready,
        ports=[layout.gateway_port, layout.demo_port],
    )


def node() -> str:
    found = setup.node_program()
    if not found:
        raise StackError("There is no node. ./local.sh installs one.")
    return str(found)


def function_ports(layout: Layout, names: list[str]) -> dict[str, int]:
    """Collab has the port that its clients know; the others follow each other by name."""
    ports = {name: layout.function_port(index) for index, name in enumerate(sorted(set(names) - {"collab"}))}
    return ports | ({"collab": layout.collab_port} if "collab" in names else {})


def function(env: Mapping[str, str], name: str, port: int, folder: Path) -> Program:
    environment = base_environment() | {
        "SUPABASE_URL": env["SUPABASE_URL"],
        "SUPABASE_PUBLISHABLE_KEY": env["SUPABASE_PUBLISHABLE_KEY"],
        "SUPABASE_JWT_SECRET": env["SUPABASE_JWT_SECRET"],
        "THREADS": "16",
        "FORWARDED_ALLOW_IPS": "",  # else gunicorn takes SCRIPT_NAME from anybody on this machine
    }
    limits = ("RATE_PER_SECOND", "STREAMS_PER_CALLER", "STREAMS_PER_INSTANCE", "TRUSTED_PROXIES")
    environment |= {name: os.environ[name] for name in limits if name in os.environ}
    if needs_secret_key(name):
        environment["SUPABASE_SECRET_KEY"] = env["SUPABASE_SECRET_KEY"]
    ready = _answers(f"http://127.0.0.1:{port}/", method="OPTIONS")
    return Program(
        f"function-{name}",
        serving(folder, target(name), port),
        environment,
        folder,
        ready,
        ports=[port],
        stop_seconds=2,
        death_signal=signal.SIGTERM,  # so that gunicorn takes its workers with it
    )


def worker(layout: Layout, env: Mapping[str, str], index: int) -> Program:
    """A worker is told what a deployed one is told: never the secret key, never the token's secret."""
    environment = base_environment() | {
        name: os.environ[name] for name in _worker_variables() if name in os.environ
    }
    health = layout.health_port(index)
    origins = [
        f"{layout.demo_origin}",
        f"http://localhost:{layout.demo_port}",
        environment.get("BROWSER_ALLOW_ORIGINS", ""),
    ]
    environment |= {
        "SUPABASE_URL": env["SUPABASE_URL"],
        "SUPABASE_PUBLISHABLE_KEY": env["SUPABASE_PUBLISHABLE_KEY"],
        "FUNCTIONS_URL": env["FUNCTIONS_URL"],
        "WORKER_EMAIL": env["WORKER_EMAIL"],
        "WORKER_PASSWORD": env["WORKER_PASSWORD"],
        "HEALTH_PORT": str(health),
        "BROWSER_ALLOW_ORIGINS": ",".join(filter(None, origins)),
        "PYTHONPATH": str(REPOSITORY),
    }
    if not environment.get("FIGMA_API_TOKEN"):  # its own Figma, or another that FIGMA_API_URL names
        environment["FIGMA_API_TOKEN"] = TOKEN
        environment["FIGMA_API_URL"] = (
            environment.get("FIGMA_API_URL") or f"http://127.0.0.1:{layout.figma_port}"
        )
    if setup.CHROMIUM_FILE.exists():
        environment.setdefault("BROWSER_EXECUTABLE", setup.CHROMIUM_FILE.read_text().strip())
    ready = f"http://127.0.0.1:{health}/readyz"
    return Program(
        f"worker-{index}",
        [sys.executable, "-m", "worker"],
        environment,
        REPOSITORY,
        lambda: http_status(ready) == 200,
        ports=[health],
        stop_seconds=15,  # it drains
        death_signal=signal.SIGTERM,  # so that it takes its browser with it
    )


def figma(layout: Layout) -> Program:
    """Stands in for Figma; a worker that has a token of Figma's own never asks it."""
    port = layout.figma_port
    return Program(
        "figma",
        [sys.executable, "-m", "local.figma", str(port)],
        base_environment() | {"PYTHONPATH": str(REPOSITORY)},
        REPOSITORY,
        _answers(f"http://127.0.0.1:{port}/"),
        ports=[port, port + 1],
    )


def _worker_variables() -> Iterator[str]:
    from worker.settings import VARIABLES

    yield from (variable.name for variable in VARIABLES)
    yield "PLAYWRIGHT_BROWSERS_PATH"
