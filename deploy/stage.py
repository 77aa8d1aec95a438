"""Stages a function: the folder that is deployed, started locally, and tested.

    python -m deploy.stage build/ jobs-recent collab

The folder holds main.py, the modules of `sidejob` that it reaches, and a requirements.txt derived from the
imports of both: pinned as the repository's own, with hashes. The same sources give the same bytes and modes
everywhere, and so the same fingerprint. Nothing but Python itself is needed.
"""

import ast
import compileall
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from py_compile import PycInvalidationMode

from deploy import pins

ROOT = pins.ROOT
SERVER = "functions-framework"  # starts every function; only the one that streams imports it
_DISTRIBUTIONS = {"jwt": "pyjwt"}  # module -> distribution, where the names differ


def functions_in_repository() -> list[str]:
    """The names of all functions, sorted: `artifacts-list`, `collab`, …"""
    return sorted(path.parent.name for path in (ROOT / "functions").glob("*/main.py"))


def target(function: str) -> str:
    """The Python name that functions-framework is told: `jobs_recent` of `jobs-recent`."""
    return function.replace("-", "_")


def stage(function: str, into: Path) -> Path:
    """Make `into/<function>` anew and return it. Raises ValueError for a function that is not there."""
    main = ROOT / "functions" / function / "main.py"
    if function not in functions_in_repository():
        raise ValueError(f"No function {function!r}. There are: {', '.join(functions_in_repository())}")
    folder = into / function
    shutil.rmtree(folder, ignore_errors=True)
    files = {"main.py": main.read_bytes()}
    files |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in reached_modules(main)}
    files["openapi.json"] = document(function).encode()
    files["requirements.txt"] = requirements(main).encode()
    for name, content in sorted(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    return folder


def serving(folder: Path, name: str, port: int, python: Path = Path(sys.executable)) -> list[str]:
    """The command that serves a staged folder on this machine as the cloud does; name: its `target`."""
    return [
        str(python.with_name(SERVER)), "--source", str(folder / "main.py"), "--target", name,
        "--signature-type", "http", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip


def document(function: str) -> str:
    """The function's part of docs/openapi.json: its own paths, with the components that they need."""
    whole = json.loads((ROOT / "docs" / "openapi.json").read_text())
    prefix = "/api/collab/" if function == "collab" else f"/functions/v1/{function}"
    whole["paths"] = {path: item for path, item in whole["paths"].items() if path.startswith(prefix)}
    components = whole["components"]
    text, needed = json.dumps(whole["paths"]), set[tuple[str, str]]()
    while more := {*re.findall(r'"#/components/(\w+)/([\w.-]+)"', text)} - needed:
        needed |= more
        text = json.dumps([components[kind][name] for kind, name in more])
    whole["components"] = {
        kind: {
            name: part for name, part in parts.items() if (kind, name) in needed or kind == "securitySchemes"
        }
        for kind, parts in components.items()
    }
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def compile_bytecode(folder: Path) -> None:
    """What Google's buildpack does to a function's sources while it builds: bytecode that is never checked.

    It is no part of the fingerprint: each Python has its own. Source: GoogleCloudPlatform/buildpacks,
    pkg/python/python.go.
    """
    compileall.compile_dir(
        folder, quiet=2, stripdir=str(folder), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of a staged folder's files, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def needs_secret_key(function: str) -> bool:
    """Does it act with the project's secret key? It does where it asks Storage for what nobody else may, and
    where a cron caller may show the key instead of a user's token."""
    main = ROOT / "functions" / function / "main.py"
    words = {node.value for node in ast.walk(ast.parse(main.read_text())) if isinstance(node, ast.Constant)}
    return "user or secret" in words or ROOT / "sidejob" / "storage.py" in reached_modules(main)


def probe(function: str) -> tuple[str, str]:
    """A method and a path that ask a credential first: what a smoke test sends without one."""
    if function == "collab":
        return "GET", "/api/collab/metrics/overview"
    tree = ast.parse((ROOT / "functions" / function / "main.py").read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    decorated = next(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "endpoint")
    return str(ast.literal_eval(decorated.args[0])), "/"


def reached_modules(main: Path) -> list[Path]:
    """The files of `sidejob` that main.py needs, with those that they need, late imports included."""
    found: set[Path] = set()
    waiting = [main]
    while waiting:
        for name in imported_names(waiting.pop()):
            for path in _files_of(name):
                if path not in found:
                    found.add(path)
                    waiting.append(path)
    return sorted(found)


def imported_names(file: Path) -> Iterator[str]:
    """Every dotted name that the file imports anywhere: `a.b` and `a.b.c` for `from a.b import c`."""
    return iter(_imports(file))


@cache
def _imports(file: Path) -> tuple[str, ...]:
    return tuple(_read_imports(file))


def _read_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(
                    f"{file}:{node.lineno}: relative imports are not followed; write the whole name"
                )
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _files_of(name: str) -> tuple[Path, ...]:
    """The files that importing this name of `sidejob` runs: the module and the packages above it."""
    parts = name.split(".")
    if parts[0] != "sidejob":
        return ()
    bases = [ROOT.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    paths = (path for base in bases for path in (base / "__init__.py", base.with_suffix(".py")))
    return tuple(path for path in paths if path.is_file())


def requirements(main: Path) -> str:
    """The function's requirements.txt: what it and its modules import, with all that needs, pinned.

    Raises ValueError for an import without a pin.
    """
    wanted = {SERVER} | {_DISTRIBUTIONS.get(name, pins.normalised(name)) for name in third_party(main)}
    return "".join(pin.text() for pin in pins.closure(wanted, _pins()))


@cache
def _pins() -> dict[str, pins.Pin]:
    return pins.read(pins.FUNCTIONS)


def third_party(main: Path) -> set[str]:
    """The top-level packages outside the standard library that main.py and its modules import."""
    files = [main, *reached_modules(main)]
    names = {name.partition(".")[0] for file in files for name in imported_names(file)}
    return names - set(sys.stdlib_module_names) - {"sidejob"}


def main(arguments: list[str]) -> int:
    """Stages into a folder; a line a function says `name|target|fingerprint|needs the key|method|path`."""
    if not arguments:
        print("usage: python -m deploy.stage <into> [function…]", file=sys.stderr)
        return 2
    into, *names = arguments
    try:
        for name in names or functions_in_repository():
            folder = stage(name, Path(into))
            secret = "yes" if needs_secret_key(name) else "no"
            print(name, target(name), fingerprint(folder), secret, *probe(name), sep="|")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
