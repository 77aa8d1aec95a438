"""Who may import whom, and what may stand in which folder."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stage import ROOT, functions_in_repository, imported_names, reached_modules

OURS = {"sidejob", "functions", "worker", "local", "deploy", "bench", "tests"}
# What each folder may import of this repository.
MAY_IMPORT: dict[str, set[str]] = {
    "sidejob": {"sidejob"},
    "functions": {"sidejob"},
    "worker": {"worker", "sidejob"},
    "deploy": {"deploy", "sidejob"},
    "local": {"local", "deploy", "sidejob", "worker"},  # of worker: the names of its settings
}
NEVER_IN: dict[str, set[str]] = {
    "worker": {"flask", "functions_framework", "fastapi", "starlette", "aiohttp", "uvicorn", "gunicorn"},
    "sidejob": {"functions_framework", "supabase", "playwright", "psycopg"},
    "functions": {"flask", "functions_framework", "httpx", "pydantic", "jwt"},
}
# Of those, what one file is there for.
BUT_IN: dict[str, set[str]] = {
    "sidejob/streaming.py": {"functions_framework"},  # marks a function as ASGI
    "sidejob/watch.py": {"supabase"},  # the type of what its users bring
}
SQL = re.compile(r"\b(select .+ from|insert into|update \w+ set|delete from|create table)\b", re.IGNORECASE)
# Read by everybody's machine, so they name nobody's.
MACHINE = re.compile(r"/(?:root|home|Users)/\w+|/work/|/tmp/lab|file:///opt")
REGISTRY = re.compile(
    r"https?://(?:[\w.-]*pypi[\w.-]*|registry\.[\w.-]+|[\w.-]*npmjs[\w.-]*|files\.pythonhosted\.org)"
)
TEXT = {".py", ".sh", ".mjs", ".js", ".json", ".sql", ".toml", ".txt", ".md", ".yml", ".yaml", ".html"}


def sources(folder: str) -> Iterator[Path]:
    skipped = {"node_modules", "__pycache__"}
    return (path for path in sorted((ROOT / folder).rglob("*.py")) if not skipped & set(path.parts))


def top_level(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported_names(path)}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in top_level(path)
        & (OURS - MAY_IMPORT[folder] | NEVER_IN.get(folder, set()))
        - BUT_IN.get(path.relative_to(ROOT).as_posix(), set())
    }
    assert not wrong


def test_a_function_imports_no_file_beside_it() -> None:
    for path in sources("functions"):
        assert path.name == "main.py", f"{path} would be shared with other functions of the same process"


@pytest.mark.parametrize("function", functions_in_repository())
def test_no_function_ships_what_is_for_clients(function: str) -> None:
    shipped = {path.name for path in reached_modules(ROOT / "functions" / function / "main.py")}
    assert "watch.py" not in shipped
    assert not {"endpoint.py", "streaming.py"} <= shipped, "one server a function"


def test_functions_that_serve_do_not_import_the_making_of_the_openapi_document() -> None:
    for folder in ("functions", "sidejob"):
        for path in sources(folder):
            if path.parent.name != "openapi":
                assert "sidejob.openapi" not in set(imported_names(path)), path


@pytest.mark.parametrize("function", functions_in_repository())
def test_a_functions_file_is_short_and_says_what_it_is(function: str) -> None:
    text = (ROOT / "functions" / function / "main.py").read_text()
    assert len(text.splitlines()) < 60
    first = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    assert function == "collab" or re.match(rf"(GET|POST|GET or POST) {function}: ", first)


@pytest.mark.parametrize("folder", ["sidejob", "functions", "worker", "deploy"])
def test_there_is_no_sql_outside_of_the_migrations(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]
    assert not wrong


def test_the_secret_key_is_read_in_one_place() -> None:
    """`sidejob.config` takes it from the environment; what is done with it stands in `sidejob.secret_key`."""
    nodes = [
        (path.relative_to(ROOT).as_posix(), node)
        for folder in ("sidejob", "functions", "worker")
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    named = {
        path for path, node in nodes if isinstance(node, ast.Constant) and node.value == "SUPABASE_SECRET_KEY"
    }
    read = {path for path, node in nodes if isinstance(node, ast.Attribute) and node.attr == "secret_key"}
    assert read == {"sidejob/secret_key.py"}
    assert named == {"sidejob/secret_key.py", "sidejob/config.py"}


def test_supabase_is_no_package() -> None:
    """A package of that name in the repository would hide the official client."""
    assert not list((ROOT / "supabase").rglob("__init__.py"))


def test_no_file_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    texts = [ROOT / name for name in listed if Path(name).suffix in TEXT and (ROOT / name) != Path(__file__)]
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in texts
        if path.is_file()
        for match in [*MACHINE.finditer(path.read_text()), *REGISTRY.finditer(path.read_text())]
    ]
    assert not wrong
