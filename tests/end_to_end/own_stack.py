"""A stack beside the one under test, for what would take the common one away from everybody else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import psycopg

from local import credentials
from local.layout import Layout
from local.setup import REPOSITORY
from local.suite import free_layout


class OwnStack:
    """A stack that a test may break."""

    def __init__(self, layout: Layout, objects_bytes: int) -> None:
        self.layout = replace(layout, workers=0)
        self.environment = {
            **os.environ,
            **self.layout.variables,
            "PYTHONPATH": str(REPOSITORY),
            "SIDEJOB_OBJECTS_LIMIT_BYTES": str(objects_bytes),
        }

    @classmethod
    @contextmanager
    def running(cls, kind: str, objects_bytes: int = 1_000_000) -> Iterator["OwnStack"]:
        """One that is up, and gone at the end. objects_bytes: that its Storage keeps in memory."""
        with free_layout(kind) as layout:
            own = cls(layout, objects_bytes)
            started = own.run("up", "-d")
            assert started.returncode == 0, started.stderr
            yield own
            assert own.run("down").returncode == 0
            shutil.rmtree(layout.home)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "local", *words]
        return subprocess.run(
            command,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    @property
    def env(self) -> dict[str, str]:
        return credentials.load(self.layout.env_file)

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.layout.state_file.read_text())
        return state

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"apikey": self.env["SUPABASE_SECRET_KEY"], **options.pop("headers", {})}
        return httpx.request(
            method, f"{self.layout.url}/{path}", headers=headers, timeout=60, trust_env=False, **options
        )

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.env["SUPABASE_DB_URL"], autocommit=True) as connection:
            done = connection.execute(text.encode())
            return done.fetchall() if done.description else []
