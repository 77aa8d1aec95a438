"""The worker's settings: one frozen class, read once from the environment."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from worker import cores


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, as documents and the local stack list it."""

    name: str
    meaning: str
    default: str | None  # None: required; otherwise the text that stands for "not set"
    unit: str
    secret: bool  # never printed, never logged
    parse: Callable[[str], Any]


class SettingsError(Exception):
    """Settings are missing or wrong; `problems` has one sentence for each, all of them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _setting(
    name: str,
    meaning: str,
    parse: Callable[[str], Any] = str,
    *,
    default: str | None = None,
    unit: str = "text",
    secret: bool = False,
) -> Any:
    return field(
        repr=not secret, metadata={"variable": Variable(name, meaning, default, unit, secret, parse)}
    )


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://example.supabase.co")
    return text.rstrip("/")


def _publishable_key(text: str) -> str:
    if text.startswith("sb_secret_"):
        raise ValueError("holds a secret key; the worker takes the publishable key (sb_publishable_…) only")
    return text


def _short_name(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError("must be 1 to 100 letters, digits, dots, dashes or underscores")
    return text


def _flag(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError("must be true or false")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", text) or not low <= float(text) <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(text)

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def _jobs(text: str) -> int:
    return cores.available() + 1 if text == "cores + 1" else _whole(1, 64)(text)


def _executable(text: str) -> str:
    if text and not os.access(text, os.X_OK):
        raise ValueError("names no program that can be started")
    return text


def _folder(text: str) -> str:
    if text and not (Path(text).is_dir() and os.access(text, os.W_OK)):
        raise ValueError("names no folder that can be written")
    return text


def _origins(text: str) -> frozenset[str]:
    """Origins as written, `scheme://host:port`; the port may be left out where it is the scheme's own."""
    origins = set()
    for origin in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(https?)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?", origin)
        if not match:
            raise ValueError(f"has {origin!r}, which is not scheme://host:port")
        scheme, host, port = match.groups()
        origins.add(f"{scheme}://{host.lower()}:{port or ('443' if scheme == 'https' else '80')}")
    return frozenset(origins)


def _files(text: str) -> frozenset[str]:
    """Keys of Figma files; one `*` stands for all."""
    keys = frozenset(filter(None, (part.strip() for part in text.split(","))))
    if wrong := [key for key in sorted(keys - {"*"}) if not re.fullmatch(r"[A-Za-z0-9]{10,128}", key)]:
        raise ValueError(f"has {wrong[0]!r}, which is no file key")
    return keys


def _header(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{0,1000}", text):
        raise ValueError("must be printable ASCII without spaces")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the worker can be told. `Settings.read(os.environ)` makes one or says all that is wrong."""

    supabase_url: str = _setting("SUPABASE_URL", "Address of the Supabase project", _address, unit="URL")
    publishable_key: str = _setting(
        "SUPABASE_PUBLISHABLE_KEY",
        "The project's publishable key; never the secret one",
        _publishable_key,
        secret=True,
    )
    email: str = _setting("WORKER_EMAIL", "The worker's own Auth user")
    password: str = _setting("WORKER_PASSWORD", "That user's password", secret=True)
    functions_url: str = _setting(
        "FUNCTIONS_URL",
        "Where results are posted; not set: SUPABASE_URL + /functions/v1",
        lambda text: _address(text) if text else "",
        default="",
        unit="URL",
    )
    executor_id: str = _setting(
        "EXECUTOR_ID", "Which jobs to claim: those of this executor", _short_name, default="default"
    )
    agent_id: str = _setting(
        "AGENT_ID",
        "This process's name, unique in the project; not set: worker id + random",
        _short_name,
        default="",
    )
    max_jobs: int = _setting("MAX_JOBS", "Jobs worked on at once", _jobs, default="cores + 1", unit="jobs")
    lease_seconds: int = _setting(
        "LEASE_SECONDS",
        "How long a claim holds without renewal",
        _whole(15, 600),
        default="60",
        unit="seconds",
    )
    poll_seconds: float = _setting(
        "POLL_SECONDS",
        "Pause between looks at an empty queue",
        _number(0.05, 300),
        default="2",
        unit="seconds",
    )
    idle_poll_seconds: float = _setting(
        "IDLE_POLL_SECONDS",
        "The same while Realtime tells of new jobs: finds those that became due",
        _number(0.05, 300),
        default="5",
        unit="seconds",
    )
    realtime: bool = _setting(
        "REALTIME",
        "false: no socket; the queue is polled and the worker shows no presence",
        _flag,
        default="true",
    )
    sweep_seconds: float = _setting(
        "SWEEP_SECONDS",
        "Pause between sweeps of expired leases",
        _number(1, 3600),
        default="15",
        unit="seconds",
    )
    heartbeat_seconds: float = _setting(
        "HEARTBEAT_SECONDS", "Pause between heartbeats", _number(0.2, 15), default="5", unit="seconds"
    )
    job_seconds: int = _setting(
        "JOB_SECONDS",
        "Longest a job may be worked on; then it is stopped, which costs an attempt",
        _whole(60, 86_400),
        default="3600",
        unit="seconds",
    )
    drain_seconds: float = _setting(
        "DRAIN_SECONDS",
        "How long running jobs may go on after SIGTERM",
        _number(0, 3600),
        default="8",
        unit="seconds",
    )
    health_host: str = _setting(
        "HEALTH_HOST",
        "Where /healthz, /readyz and /metrics listen; 0.0.0.0 in a container",
        default="127.0.0.1",
    )
    health_port: int = _setting(
        "HEALTH_PORT", "Their port; 0 picks a free one", _whole(0, 65535), default="3200"
    )
    log_level: str = _setting(
        "LOG_LEVEL",
        "Least level that is logged",
        _choice("debug", "info", "warning", "error"),
        default="info",
    )
    work_folder: str = _setting(
        "WORK_FOLDER", "Where jobs keep files while they run; not set: the system's own", _folder, default=""
    )
    headless: bool = _setting("HEADLESS", "false opens a window (needs a display)", _flag, default="true")
    browser_channel: str = _setting(
        "BROWSER_CHANNEL", "An installed browser that Playwright knows, such as chrome", default=""
    )
    browser_executable: str = _setting(
        "BROWSER_EXECUTABLE",
        "The browser's program; not set: BROWSER_CHANNEL, then PATH, then Playwright's own",
        _executable,
        default="",
        unit="path",
    )
    browser_sandbox: str = _setting(
        "BROWSER_SANDBOX",
        "Chromium's sandbox; auto: on unless root",
        _choice("auto", "on", "off"),
        default="auto",
    )
    nav_timeout_ms: int = _setting(
        "BROWSER_NAV_TIMEOUT_MS", "Longest a page may load", _whole(100, 120_000), default="30000", unit="ms"
    )
    computing_mb: int = _setting(
        "COMPUTING_MAX_MB",
        "Memory of a process that computes on what pages and Figma gave; there may be one for each job at"
        " once",
        _whole(256, 100_000),
        default="1024",
        unit="MB",
    )
    force_success: bool = _setting(
        "BROWSER_FORCE_SUCCESS", "A last failure yields a 1×1 PNG marked fallback", _flag, default="false"
    )
    allow_insecure_tls: bool = _setting(
        "BROWSER_ALLOW_INSECURE_TLS", "Jobs may ask for ignoreTlsErrors", _flag, default="false"
    )
    restart_jobs: int = _setting(
        "BROWSER_RESTART_JOBS",
        "Jobs after which the browser is replaced; 0: never",
        _whole(0, 1_000_000),
        default="500",
        unit="jobs",
    )
    restart_mb: int = _setting(
        "BROWSER_RESTART_MB",
        "Memory of its own after which the browser is replaced; 0: never",
        _whole(0, 1_000_000),
        default="2048",
        unit="MB",
    )
    page_mb: int = _setting(
        "BROWSER_PAGE_MB",
        "Memory beyond which a page is ended (Linux); 0: never",
        _whole(0, 1_000_000),
        default="2048",
        unit="MB",
    )
    browser_mb: int = _setting(
        "BROWSER_MAX_MEMORY_MB",
        "Memory beyond which a browser is ended with all of its pages (Linux); 0: never",
        _whole(0, 1_000_000),
        default="8192",
        unit="MB",
    )
    max_requests: int = _setting(
        "BROWSER_MAX_REQUESTS",
        "Requests that one job may make",
        _whole(1, 1_000_000),
        default="2000",
        unit="requests",
    )
    max_received_mb: int = _setting(
        "BROWSER_MAX_MB",
        "What one job may receive, and may send",
        _whole(1, 100_000),
        default="100",
        unit="MB",
    )
    allow_origins: frozenset[str] = _setting(
        "BROWSER_ALLOW_ORIGINS",
        "Origins that may be opened in spite of a private address",
        _origins,
        default="",
        unit="scheme://host:port, comma-separated",
    )
    figma_url: str = _setting(
        "FIGMA_API_URL",
        "Where Figma's API is; downloads from its host are allowed too",
        _address,
        default="https://api.figma.com",
        unit="URL",
    )
    figma_token: str = _setting(
        "FIGMA_API_TOKEN",
        "A personal or plan access token; not set: Figma jobs fail",
        _header,
        default="",
        secret=True,
    )
    figma_files: frozenset[str] = _setting(
        "FIGMA_ALLOWED_FILES",
        "Files that jobs may ask for; *: all that the token's owner sees",
        _files,
        default="*",
        unit="file keys, comma-separated",
    )
    figma_tier1: int = _setting(
        "FIGMA_TIER1_PER_MINUTE",
        "Renders and files: 10 in Pro, 15 in Organization, 20 in Enterprise plans; divided among workers",
        _whole(1, 10_000),
        default="10",
        unit="requests",
    )
    figma_tier2: int = _setting(
        "FIGMA_TIER2_PER_MINUTE",
        "Fills, comments, variables: 25, 50, 100 likewise",
        _whole(1, 10_000),
        default="25",
        unit="requests",
    )
    figma_tier3: int = _setting(
        "FIGMA_TIER3_PER_MINUTE",
        "Metadata and libraries: 50, 100, 150 likewise",
        _whole(1, 10_000),
        default="50",
        unit="requests",
    )
    figma_timeout_seconds: float = _setting(
        "FIGMA_TIMEOUT_SECONDS",
        "How long an answer may take to begin; Figma gives a render up after about 55",
        _number(1, 600),
        default="60",
        unit="seconds",
    )

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises SettingsError with every missing and wrong variable. An empty value counts as not set."""
        values, problems = {}, []
        for name, variable in _fields():
            text = environment.get(variable.name, "").strip() or variable.default
            if text is None:
                problems.append(f"{variable.name} is not set ({variable.meaning})")
                continue
            try:
                values[name] = variable.parse(text)
            except ValueError as error:
                problems.append(f"{variable.name} {error}")
        if problems:
            raise SettingsError(problems)
        values["functions_url"] = values["functions_url"] or f"{values['supabase_url']}/functions/v1"
        return cls(**values)


def _fields() -> Iterator[tuple[str, Variable]]:
    for entry in fields(Settings):
        yield entry.name, entry.metadata["variable"]


VARIABLES: tuple[Variable, ...] = tuple(variable for _, variable in _fields())
