"""deploy.sh with a cloud of files behind it: fake.sh under the names of its tools, alone on PATH."""

import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.stage import ROOT

TOOLS = ("gcloud", "supabase", "curl", "docker", "sleep")
# What of the machine the script may use; a real gcloud is not among it.
MACHINE = [
    "bash",
    "cat",
    "cut",
    "date",
    "dirname",
    "env",
    "find",
    "grep",
    "head",
    "mkdir",
    "mktemp",
    "paste",
    "printf",
    "rm",
    "sed",
    "sha256sum",
    "sort",
    "tail",
    "tr",
    "wc",
    "cp",
    "git",
]
BASH = (
    os.environ.get("SIDEJOB_TEST_BASH") or shutil.which("bash") or "bash"
)  # try macOS's: SIDEJOB_TEST_BASH=…/bash-3.2
SECRETS = {
    "SUPABASE_SECRET_KEY": "sb_secret_only-for-tests",
    "SUPABASE_DB_PASSWORD": "database-password-only-for-tests",
}


@dataclass(frozen=True)
class Ran:
    """One run of deploy.sh."""

    code: int
    out: str
    err: str
    calls: list[str]  # of all tools, as they can be typed

    def changes(self) -> list[str]:
        """The calls that are no reads."""
        return [call for call in self.calls if not is_read(call)]


def is_read(call: str) -> bool:
    words = (
        "list", "describe", "get-iam-policy", "access", "--help", "--version", "--dry-run", "gcloud auth list", "supabase link",
    )  # fmt: skip
    return call.startswith("sleep") or any(f" {word}" in f" {call}" for word in words)


@dataclass
class Cloud:
    """The files behind the fakes, and an environment in which nothing real can be reached."""

    folder: Path
    url: str  # of the fake project
    users: dict[str, tuple[str, str]]  # of the project: address -> id and password
    members: list[dict[str, Any]]  # of its workspaces
    env: dict[str, str] = field(default_factory=dict)
    bash: str = BASH

    def __post_init__(self) -> None:
        fake, bin_, home = self.folder / "fake", self.folder / "bin", self.folder / "home"
        for path in (bin_, home, *(fake / name for name in ("services", "pools", "secrets", "edge"))):
            path.mkdir(parents=True)
        for name in TOOLS:
            (bin_ / name).symlink_to(Path(__file__).with_name("fake.sh"))
        for name in MACHINE:
            (bin_ / name).symlink_to(shutil.which(name) or name)
        (bin_ / "python3").symlink_to(sys.executable)
        self.write("account", "operator@example.test\n")
        self.write("supabase.account", "yes")
        self.write("supabase.version", "3.1.0\n")
        self.write("pools.group", "stable")
        self.write(
            "pending",
            "".join(f"{path.name}\n" for path in sorted((ROOT / "supabase/migrations").glob("*.sql"))),
        )
        apis = ("run", "cloudbuild", "artifactregistry", "secretmanager", "iam")
        self.write("apis", "".join(f"{name}.googleapis.com\n" for name in apis))
        for name in ("fail", "images", "accounts", "calls", "unknown", "environment", "curl.stdin"):
            self.write(name, "")
        self.env = {
            "PATH": str(bin_), "HOME": str(home), "CLOUDSDK_CONFIG": str(home), "TMPDIR": str(home), "FAKE": str(fake),
            "SIDEJOB_BUILD": str(self.folder / "build"), "SOURCE_DATE_EPOCH": "1764100000",
            "GOOGLE_CLOUD_PROJECT": "my-project", "GOOGLE_CLOUD_REGION": "europe-west1",
            "SUPABASE_PROJECT_REF": "abcdefghijklmnopqrst", "SUPABASE_URL": self.url,
            "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
            "OWNER_EMAIL": "owner@example.test", "WORKER_EMAIL": "worker@example.test",
            **SECRETS,
        }  # fmt: skip

    def write(self, name: str, text: str) -> None:
        (self.folder / "fake" / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / "fake" / name).read_text()

    def fail(self, *patterns: str) -> None:
        """Calls that match one of these, as `case` matches, fail from now on."""
        self.write("fail", "".join(f"{pattern}\n" for pattern in patterns))

    def deploy(self, *arguments: str, **env: str | None) -> Ran:
        """Runs deploy.sh; a variable that is None is left out. Asserts what must be true of every run."""
        self.write("calls", "")
        kept = {name: value for name, value in {**self.env, **env}.items() if value is not None}
        ran = subprocess.run(  # noqa: PLW1510  the code is what tests look at
            [self.bash, str(ROOT / "deploy.sh"), *arguments], env=kept, capture_output=True, text=True, cwd=self.folder, timeout=300,
        )  # fmt: skip
        calls = self.read("calls").splitlines()
        assert self.read("unknown") == "", f"not a command or flag of the real tools\n{ran.stderr}"
        said = "\n".join([ran.stdout, ran.stderr, *calls])
        for secret in [*SECRETS.values(), *self.passwords()]:
            assert secret not in said
        heirs = set(self.read("environment").splitlines())
        assert heirs <= {"supabase SUPABASE_DB_PASSWORD"}, "a secret that the tool does not need"
        return Ran(ran.returncode, ran.stdout, ran.stderr, calls)

    def passwords(self) -> list[str]:
        """Every value in the secret manager."""
        return [path.read_text() for path in (self.folder / "fake" / "secrets").glob("*/[0-9]*")]

    def serving(self, service: str) -> str:
        return self.read(f"services/{service}/serving")


class Project(BaseHTTPRequestHandler):
    """As much of Auth and REST as provisioning asks for."""

    users: dict[str, tuple[str, str]]
    members: list[dict[str, Any]]

    def do_GET(self) -> None:
        if self.path.startswith("/auth/v1/admin/users"):
            users = [{"id": id_, "email": email} for email, (id_, _) in self.users.items()]
            return self.answer(200, {"users": users if "page=1&" in self.path else []})
        return self.answer(200, self.members)

    def do_PUT(self) -> None:
        body = self.body()
        for email, (id_, _) in self.users.items():
            if self.path.endswith(id_):
                self.users[email] = (id_, body["password"])
        self.answer(200, {})

    def do_POST(self) -> None:
        body = self.body()
        if self.path.startswith("/auth/v1/token"):
            id_, password = self.users.get(body["email"], ("", ""))
            if password != body["password"]:
                return self.answer(
                    400, {"error_code": "invalid_credentials", "msg": "Invalid login credentials"}
                )
            return self.answer(200, {"access_token": "token-of-the-smoke-test", "user": {"id": id_}})
        if self.path.startswith("/auth/v1/admin/users"):
            if body["email"] in self.users:
                return self.answer(422, {"error_code": "email_exists", "msg": "already registered"})
            self.users[body["email"]] = (str(uuid.uuid4()), body["password"])
            return self.answer(200, {"id": self.users[body["email"]][0]})
        if "workspace_members" in self.path:
            known = {(row["user_id"], row["workspace_id"]) for row in self.members}
            self.members.extend(row for row in body if (row["user_id"], row["workspace_id"]) not in known)
        return self.answer(201, None)

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def answer(self, status: int, body: object) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def cloud_in(folder: Path, port: int = 0) -> Iterator[Cloud]:
    """A cloud with a project of its own, whose address is part of what is deployed: clouds that are compared
    have the same port, one after the other."""

    class Own(Project):
        users: dict[str, tuple[str, str]] = {}  # noqa: RUF012  the handlers of one server share them
        members: list[dict[str, Any]] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", port), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Cloud(folder, f"http://127.0.0.1:{server.server_port}", Own.users, Own.members)
    server.shutdown()
    server.server_close()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with cloud_in(tmp_path) as cloud:
        yield cloud
