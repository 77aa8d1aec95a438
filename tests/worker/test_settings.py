"""Settings: all that is wrong is said at once, and nothing secret is shown."""

import os
import subprocess
import sys
from typing import Any

import pytest

from worker import cores
from worker.settings import VARIABLES, Settings, SettingsError

GOOD = {
    "SUPABASE_URL": "https://x.supabase.co/",
    "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_abc",
    "WORKER_EMAIL": "worker@example.com",
    "WORKER_PASSWORD": "hunter2-and-more",
}


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = Settings.read(GOOD)
    assert settings.supabase_url == "https://x.supabase.co"
    assert settings.functions_url == "https://x.supabase.co/functions/v1"
    assert settings.max_jobs == cores.available() + 1
    assert (settings.lease_seconds, settings.poll_seconds, settings.heartbeat_seconds) == (60, 2, 5)
    assert (settings.headless, settings.force_success, settings.allow_origins) == (True, False, frozenset())
    assert settings == Settings.read({**GOOD, "EXECUTOR_ID": "  ", "MAX_JOBS": ""}), "empty means not set"


def test_everything_missing_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.read({})
    named = [problem.split()[0] for problem in caught.value.problems]
    assert named == ["SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "WORKER_EMAIL", "WORKER_PASSWORD"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUPABASE_URL", "x.supabase.co"),
        ("SUPABASE_PUBLISHABLE_KEY", "sb_secret_abc"),
        ("FUNCTIONS_URL", "functions"),
        ("EXECUTOR_ID", "a b"),
        ("AGENT_ID", "-x"),
        ("MAX_JOBS", "0"),
        ("MAX_JOBS", "two"),
        ("LEASE_SECONDS", "14"),
        ("LEASE_SECONDS", "601"),
        ("POLL_SECONDS", "-1"),
        ("POLL_SECONDS", "nan"),
        ("HEALTH_PORT", "65536"),
        ("HEADLESS", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("WORK_FOLDER", "/nowhere/at/all"),
        ("BROWSER_EXECUTABLE", "/nowhere/chromium"),
        ("BROWSER_SANDBOX", "yes"),
        ("BROWSER_NAV_TIMEOUT_MS", "1.5"),
        ("BROWSER_ALLOW_ORIGINS", "localhost:3000"),
        ("BROWSER_ALLOW_ORIGINS", "http://localhost:3000/path"),
        ("BROWSER_ALLOW_ORIGINS", "http://ann@localhost:3000"),
        ("FIGMA_API_URL", "api.figma.com"),
        ("FIGMA_API_TOKEN", "a b"),
        ("FIGMA_ALLOWED_FILES", "abc/def"),
        ("FIGMA_TIER1_PER_MINUTE", "0"),
    ],
)
def test_a_wrong_value_is_named_and_the_others_with_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.read({**GOOD, "WORKER_EMAIL": "", name: value})
    assert {problem.split()[0] for problem in caught.value.problems} == {name, "WORKER_EMAIL"}


def test_allowed_origins_are_read_as_written() -> None:
    text = "http://127.0.0.1:54324, https://Intra.example ,http://[::1]:3000/,"
    origins = Settings.read({**GOOD, "BROWSER_ALLOW_ORIGINS": text}).allow_origins
    assert origins == {"http://127.0.0.1:54324", "https://intra.example:443", "http://[::1]:3000"}


def test_secrets_are_not_shown() -> None:
    shown = repr(Settings.read(GOOD))
    assert "hunter2" not in shown
    assert "sb_publishable" not in shown
    assert {variable.name for variable in VARIABLES if variable.secret} == {
        "SUPABASE_PUBLISHABLE_KEY",
        "WORKER_PASSWORD",
        "FIGMA_API_TOKEN",
    }


def test_every_variable_says_what_it_means() -> None:
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)
    assert all(variable.meaning and variable.unit for variable in VARIABLES)
    readable: dict[str, Any] = {v.name: v.parse(v.default) for v in VARIABLES if v.default is not None}
    assert len(readable) == len(VARIABLES) - 4


def test_a_worker_without_settings_exits_with_2_and_names_them() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "worker"],
        env={"PATH": os.environ["PATH"], "MAX_JOBS": "many"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    for name in ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "WORKER_EMAIL", "WORKER_PASSWORD", "MAX_JOBS"):
        assert name in ran.stderr
    assert "Traceback" not in ran.stderr
