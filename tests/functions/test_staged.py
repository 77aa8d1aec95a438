"""Staged folders: small, the same bytes everywhere, quick to import, able to start alone."""

import hashlib
import os
import socket
import stat
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from deploy import pins
from deploy.stage import (
    SERVER,
    compile_bytecode,
    fingerprint,
    functions_in_repository,
    needs_secret_key,
    serving,
    stage,
    target,
)
from tests.functions.conftest import ISSUER, SECRET, bearer

# Functions that take a body, and so ship pydantic; the others do without it.
WITH_BODY = {
    "artifacts-sweep", "collab", "dlq-discard", "dlq-retry", "job-cancel", "leases-release", "sign-artifact",
    "task-assign", "task-claim", "task-result", "worker-heartbeat",
}  # fmt: skip
ENVIRONMENT = {
    "SUPABASE_URL": "http://127.0.0.1:9",
    "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_test",
    "SUPABASE_JWT_SECRET": SECRET,
    "SUPABASE_JWT_ISSUER": ISSUER,
    "THREADS": "4",
}


# Each function in a process that has loaded what functions-framework loads: flask, and under ASGI starlette.
_LOADED_AT_START = """if True:
    import os, sys, functions_framework.aio
    before = set(sys.modules)
    for folder in sys.argv[1:]:
        if os.fork() == 0:
            os.chdir(folder)  # the first place where -c looks for main
            import main
            loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
            print(os.path.basename(folder), *loaded - set(sys.stdlib_module_names) - {"main", "sidejob"})
            sys.exit()
        assert os.wait()[1] == 0, folder
"""


@pytest.fixture(scope="module")
def loaded_at_start(staged: dict[str, Path]) -> dict[str, list[str]]:
    command = [sys.executable, "-c", _LOADED_AT_START, *map(str, staged.values())]
    ran = subprocess.run(command, env=_bare(), capture_output=True, text=True, check=True)
    return {name: packages for name, *packages in map(str.split, ran.stdout.splitlines())}


@pytest.mark.parametrize("function", functions_in_repository())
def test_a_function_loads_no_package_at_its_start(
    loaded_at_start: dict[str, list[str]], function: str
) -> None:
    """pydantic comes with the first body, PyJWT with a token."""
    assert loaded_at_start[function] == []


@pytest.mark.parametrize(("function", "pydantic"), [("jobs-recent", False), ("task-assign", True)])
def test_the_first_request_loads_only_what_it_needs(
    staged: dict[str, Path], function: str, pydantic: bool
) -> None:
    """No other web framework, no official client, no HTTP/2, no command line, though all are installed, and
    nothing for public keys where tokens have a secret."""
    script = f"""if True:
        import os, sys, functions_framework
        app = functions_framework.create_app({target(function)!r}, "main.py", "http")
        headers = {{"Authorization": "Bearer " + os.environ["TOKEN"]}}
        client = app.test_client()
        options = {{"method": "POST", "json": {{"type": "t"}}}} if {pydantic} else {{"method": "GET"}}
        answer = client.open("/", headers=headers, **options)
        print(answer.status_code, *{{name.partition(".")[0] for name in sys.modules}}, file=sys.stderr)
    """
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=staged[function],
        env=_bare() | ENVIRONMENT | {"TOKEN": bearer()["Authorization"].removeprefix("Bearer ")},
        capture_output=True,
        text=True,
        check=True,
    )
    status, *loaded = ran.stderr.split()
    assert status == "503", "as far as the database, which is not there"
    assert {"flask", "jwt"} <= set(loaded)
    assert ("pydantic" in loaded) == pydantic
    assert not {
        "starlette",
        "supabase",
        "playwright",
        "h2",
        "rich",
        "pygments",
        "requests",
        "httpx",
        "certifi",
        "cryptography",
    } & set(loaded)


def test_only_functions_with_a_body_ship_pydantic(staged: dict[str, Path]) -> None:
    names = {function: set(pins.read(folder / "requirements.txt")) for function, folder in staged.items()}
    assert {function for function, needed in names.items() if "pydantic" in needed} == WITH_BODY
    for needed in names.values():
        assert {"functions-framework", "certifi", "pyjwt", "cryptography"} <= needed
        assert not needed & {"supabase", "playwright", "moto", "pytest", "psycopg"}


def test_the_secret_key_is_for_the_functions_that_sign_remove_and_sweep() -> None:
    holders = {function for function in functions_in_repository() if needs_secret_key(function)}
    assert holders == {"artifacts-sweep", "leases-release", "sign-artifact"}


def test_a_staged_folder_holds_only_what_the_function_reaches(tmp_path: Path) -> None:
    for function in functions_in_repository():
        folder = stage(function, tmp_path)  # afresh: in the shared one others have run Python
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert {"main.py", "requirements.txt", "sidejob/__init__.py"} <= files
        assert not [name for name in files if "__pycache__" in name]
        assert not [name for name in files if name.startswith("sidejob/openapi/")]
        assert ("sidejob/storage.py" in files) == (function in ("artifacts-sweep", "sign-artifact"))
        assert "openapi.json" in files


def test_staging_twice_gives_the_same_bytes_and_modes(tmp_path: Path) -> None:
    def print_of(folder: Path) -> dict[str, tuple[str, int]]:
        return {
            path.relative_to(folder).as_posix(): (
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
                stat.S_IMODE(path.stat().st_mode),
            )
            for path in folder.rglob("*")
        }

    before = os.umask(0o077)
    try:
        private = stage("task-assign", tmp_path / "private")
    finally:
        os.umask(before)
    (private / "left-over.py").touch()
    assert print_of(stage("task-assign", tmp_path / "private")) == print_of(
        stage("task-assign", tmp_path / "open")
    )


def test_the_fingerprint_follows_the_sources_and_nothing_else(tmp_path: Path) -> None:
    here, there = stage("task-assign", tmp_path / "here"), stage("task-assign", tmp_path / "there")
    compile_bytecode(there)
    assert list(there.rglob("*.pyc"))
    assert fingerprint(here) == fingerprint(there)
    (there / "sidejob" / "auth.py").rename(there / "sidejob" / "auth2.py")
    assert fingerprint(here) != fingerprint(there)
    (there / "sidejob" / "auth2.py").rename(there / "sidejob" / "auth.py")
    (there / "main.py").write_text((here / "main.py").read_text() + "\n")
    assert fingerprint(here) != fingerprint(there)


def test_the_fingerprint_is_the_same_for_another_python_that_has_no_packages(tmp_path: Path) -> None:
    """As an operator's machine: no environment, another folder, another umask, another order of the disk."""
    ran = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "deploy.stage", str(tmp_path), "collab", "job-events"],
        env=_bare() | {"PYTHONPATH": str(pins.ROOT), "PYTHONHASHSEED": "7"},
        umask=0o077, capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = {name: fingerprint(stage(name, tmp_path / "again")) for name in ("collab", "job-events")}
    told = (line.split("|") for line in ran.stdout.splitlines())
    assert {name: printed for name, _, printed, *_ in told} == here


def test_an_unknown_function_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs-recent"):
        stage("job-recent", tmp_path)


@pytest.fixture(scope="module")
def python_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The Python of an environment that has these requirements and nothing else."""

    @cache
    def made(requirements: str) -> Path:
        folder = tmp_path_factory.mktemp("alone")
        (folder / "requirements.txt").write_text(requirements)
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        python = folder / "venv" / "bin" / "python"
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"]
        subprocess.run([*install, "-r", str(folder / "requirements.txt")], check=True, timeout=300)
        return python

    return made


@pytest.fixture
def linked(tmp_path: Path) -> Callable[[Path], Path]:
    """As `python_with`, in a second: packages of this environment, in the versions asked for."""

    def made(requirements: Path) -> Path:
        venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
        bin_ = tmp_path / "venv" / "bin"
        (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
        for name, pin in pins.read(requirements).items():
            package = metadata.distribution(name)
            assert pin.line.startswith(f"{name}=={package.version}")
            for part in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
                (site / part).symlink_to(str(package.locate_file(part)))
        (script,) = metadata.entry_points(group="console_scripts", name=SERVER)
        (bin_ / SERVER).write_text(
            f"#!{bin_ / 'python'}\nfrom {script.module} import {script.attr}\n{script.attr}()\n"
        )
        (bin_ / SERVER).chmod(0o755)
        return bin_ / "python"

    return made


def test_a_function_starts_alone_with_nothing_but_its_own_requirements(
    tmp_path: Path, linked: Callable[[Path], Path]
) -> None:
    folder = stage("task-assign", tmp_path)
    starts_alone(linked(folder / "requirements.txt"), folder, "task-assign")


@pytest.mark.soak
@pytest.mark.parametrize("function", functions_in_repository())
def test_every_function_starts_alone_with_nothing_but_what_pip_installs_of_its_requirements(
    tmp_path: Path, python_with: Callable[[str], Path], function: str
) -> None:
    folder = stage(function, tmp_path)
    starts_alone(python_with((folder / "requirements.txt").read_text()), folder, function)


ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
ASKED_FOR = {"job-status": f"?id={ID}", "job-events": f"?id={ID}", "artifacts-list": f"?jobId={ID}"}
BODIES: dict[str, dict[str, object]] = {
    "collab": {"type": "t"},
    "dlq-discard": {"dlqId": 1},
    "dlq-retry": {"dlqId": 1},
    "job-cancel": {"jobId": ID},
    "sign-artifact": {"artifactId": ID},
    "task-assign": {"type": "t"},
    "task-claim": {"executorId": "default"},
    "task-result": {"jobId": ID, "attempt": 1, "leaseToken": "x", "ok": True},
    "worker-heartbeat": {"agentId": "a", "executorId": "default", "status": "idle"},
}


def starts_alone(python: Path, folder: Path, function: str) -> None:
    with (
        started(python, folder, function) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        assert client.options("/").status_code == 204
        path = "/api/collab/task.assign" if function == "collab" else "/"
        method = "POST" if "POST" in client.options(path).headers["allow"] else "GET"
        path += ASKED_FOR.get(function, "")
        body = BODIES.get(function, {}) if method == "POST" else None
        assert client.request(method, path, json=body).status_code == 401
        # Deep enough to need all imports: past the token and the body, on the way to the database.
        reached = client.request(method, path, json=body, headers=bearer())
        assert (reached.status_code, reached.json()["code"]) == (503, "database_unavailable")
        if method == "POST":
            large = b"x" * 3 * 1024 * 1024
            headers = {**bearer(), "Content-Type": "application/json"}
            assert client.post(path, content=large, headers=headers).status_code == 413
            chunked = client.post(path, content=iter([large[:1000]] * 3000), headers=headers)
            assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")


@contextmanager
def started(python: Path, folder: Path, function: str) -> Iterator[str]:
    """The function as it is deployed: functions-framework under gunicorn, started in its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = serving(folder, target(function), port, python)
    log = folder.parent / f"{function}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=_bare() | ENVIRONMENT, stdout=output, stderr=output
        )
        try:
            _wait_for(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=120)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns as soon as the port is open. The kernel queues connections from then on."""
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(f"The function ended: {log.read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    pytest.fail(f"The port did not open: {log.read_text()[-2000:]}")


def _bare() -> dict[str, str]:
    names = ("PATH", "HOME", "TMPDIR")
    return {name: os.environ[name] for name in names if name in os.environ} | {"PYTHONDONTWRITEBYTECODE": "1"}
