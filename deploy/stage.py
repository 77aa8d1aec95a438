"""Stages a function: the folder that is deployed, started locally, and tested.

    python -m deploy.stage jobs-recent build/

The folder holds main.py, the modules of `sidejob` that it reaches, and a requirements.txt derived from the
imports of both and pinned as the repository's own. The same sources give the same bytes and modes everywhere.
"""

import ast
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = {
    "collab": {"openapi.json": "docs/openapi.json"}
}  # function -> file beside main.py -> where it comes from
SERVER = "functions-framework"  # starts every function; only the one that streams imports it

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[(?P<extras>[^\]]*)\])?[^;]*(?:;\s*(?P<marker>.*))?"
)


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
    files |= {name: (ROOT / source).read_bytes() for name, source in DATA.get(function, {}).items()}
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


def _files_of(name: str) -> Iterator[Path]:
    """The files that importing this name of `sidejob` runs: the module and the packages above it."""
    parts = name.split(".")
    if parts[0] != "sidejob":
        return
    for depth in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:depth])
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file():
                yield path


def requirements(main: Path) -> str:
    """The function's requirements.txt: what it and its modules import, with all that needs, pinned.

    Needs the packages to be installed where this runs. Raises ValueError for an import without a pin.
    """
    pins = read_pins()
    wanted = {(SERVER, frozenset[str]())}
    wanted |= {_distribution(name) for name in third_party(main)}
    closed: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        name, extras = item = wanted.pop()
        if name not in pins:
            raise ValueError(f"{name} is not pinned in requirements.txt")
        closed.add(item)
        wanted |= set(_required_by(name, extras, frozenset(pins))) - closed
    return "".join(f"{pins[name]}\n" for name in sorted({name for name, _ in closed}))


def third_party(main: Path) -> set[str]:
    """The top-level packages outside the standard library that main.py and its modules import."""
    files = [main, *reached_modules(main)]
    names = {name.partition(".")[0] for file in files for name in imported_names(file)}
    return names - set(sys.stdlib_module_names) - {"sidejob"}


def read_pins(file: Path = ROOT / "requirements.txt") -> dict[str, str]:
    """Normalised name -> the whole line, marker included: `{"cffi": "cffi==2.1.1 ; platform_…"}`."""
    lines = [line.strip() for line in file.read_text().splitlines()]
    return {normalised(line.partition("==")[0]): line for line in lines if line and not line.startswith("#")}


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _distribution(module: str) -> tuple[str, frozenset[str]]:
    """The distribution that provides a module, with the extras that pyproject.toml asks for."""
    provided_by = _installed().get(module)
    if not provided_by:
        raise ValueError(f"No installed package provides {module!r}")
    name = normalised(provided_by[0])
    return name, direct_requirements("functions").get(name, frozenset())


@cache
def _installed() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def direct_requirements(*groups: str) -> dict[str, frozenset[str]]:
    """What these groups of pyproject.toml ask for, or all of them: normalised name -> extras."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    found: dict[str, frozenset[str]] = {}
    for group in groups or table:
        for name, extras, _ in map(_parsed, table[group]):
            found[name] = found.get(name, frozenset()) | extras
    return found


def _required_by(
    name: str, extras: frozenset[str], pinned: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    """What a distribution requires. Its markers for platforms and Pythons are not asked: the root's compiled
    list knows, and each pin carries its own marker, so the result is the same wherever this runs."""
    for requirement in metadata.requires(name) or ():
        required, wanted_extras, marker = _parsed(requirement)
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
        if (extra is None or extra.group(1) in extras) and required in pinned:
            yield required, wanted_extras


def _parsed(requirement: str) -> tuple[str, frozenset[str], str]:
    """Name, extras and marker of a requirement as PEP 508 writes it."""
    match = _REQUIREMENT.match(requirement.strip())
    if match is None:
        raise ValueError(f"Not a requirement: {requirement!r}")
    extras = frozenset(part.strip() for part in (match["extras"] or "").split(",") if part.strip())
    return normalised(match["name"]), extras, match["marker"] or ""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m deploy.stage <function> <into>")
    sys.stdout.write(f"{stage(sys.argv[1], Path(sys.argv[2]))}\n")
