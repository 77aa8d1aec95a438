"""requirements.txt is what pyproject.toml asks for, and every import is asked for."""

import contextlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from deploy import pins
from deploy.pins import ROOT, normalised
from deploy.stage import imported_names

# The groups that the imports of a folder may come from.
GROUPS = {
    "sidejob": ["functions"],
    "functions": ["functions"],
    "worker": ["worker"],
    "deploy": [],
    "local": ["local"],
    "tests": ["functions", "worker", "local", "test"],
}
# What a file takes from another group: whoever uses it has that.
ALSO = {"sidejob/watch.py": "worker"}
# Packages that are imported as parts of the one that is asked for: its types are theirs.
PARTS = {
    "flask": {"werkzeug"},
    "functions-framework": {"starlette"},
    "psycopg": {"psycopg-pool"},
    "pydantic": {"pydantic-core"},
    "pyjwt": {"cryptography"},
    "pytest": {"packaging"},
    "supabase": {"postgrest", "realtime", "storage3", "supabase-auth", "supabase-functions"},
}
NOT_INSTALLED = {"_typeshed"}  # mypy's own


def project() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return groups


def direct_requirements() -> dict[str, frozenset[str]]:
    """What the groups ask for: name -> extras."""
    found: dict[str, frozenset[str]] = {}
    for requirement in (Requirement(line) for lines in project().values() for line in lines):
        name = normalised(requirement.name)
        found[name] = found.get(name, frozenset()) | frozenset(requirement.extras)
    return found


def read_pins() -> dict[str, str]:
    """Name -> the whole line, marker included."""
    return {name: pin.line for name, pin in pins.read(ROOT / "requirements.txt").items()}


@pytest.mark.parametrize(("group", "file"), [("functions", pins.FUNCTIONS), ("worker", pins.WORKER)])
def test_a_deployables_own_list_has_the_same_pins_with_hashes(group: str, file: Path) -> None:
    ours = pins.read(file)
    every = read_pins()
    assert {name: pin.line for name, pin in ours.items()} == {name: every[name] for name in ours}
    assert all(pin.hashes for pin in ours.values())
    assert {pin.name for pin in pins.closure(names(group), ours)} == set(ours), "nothing is left over"


def names(group: str) -> set[str]:
    return {normalised(Requirement(line).name) for line in project()[group]}


def test_every_direct_dependency_is_pinned_and_explained() -> None:
    assert set(direct_requirements()) <= set(read_pins())
    block = (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]")[2].partition("\n[")[0]
    for line in block.splitlines():
        if line.strip().startswith('"'):
            assert re.search(r"#\s+\w", line), f"no reason given: {line}"


def test_every_pin_is_exact_and_none_says_where_it_came_from() -> None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.match(r"\s*#|[A-Za-z0-9._-]+==[^ ]+( ; .+)?$", line), line
        assert "--" not in line or line.startswith("#")


def test_the_pins_are_closed_and_fit_each_other() -> None:
    """Whatever an installed pinned package requires here is pinned too, at a version that it takes."""
    pinned = {name: Requirement(line) for name, line in read_pins().items()}
    environment = {name: str(value) for name, value in default_environment().items()} | {"extra": ""}
    extras = direct_requirements()
    for name, pin in pinned.items():
        if pin.marker and not pin.marker.evaluate():
            continue
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            wanted = ["", *extras.get(name, ())]
            if needed.marker and not any(
                needed.marker.evaluate(environment | {"extra": extra}) for extra in wanted
            ):
                continue
            other = pinned.get(normalised(needed.name))
            assert other is not None, f"{name} needs {needed}, which is not pinned"
            (version,) = other.specifier
            assert needed.specifier.contains(version.version, prereleases=True), f"{name} needs {needed}"


def test_no_pin_is_left_over() -> None:
    reached: set[tuple[str, frozenset[str]]] = set()
    waiting = list(direct_requirements().items())
    while waiting:
        name, extras = item = waiting.pop()
        if item in reached:
            continue
        reached.add(item)
        with contextlib.suppress(metadata.PackageNotFoundError):  # of another platform
            for needed in map(Requirement, metadata.requires(name) or ()):
                asked = re.search(r"extra == ['\"]([^'\"]+)", str(needed.marker or ""))
                if not asked or asked.group(1) in extras:
                    waiting.append((normalised(needed.name), frozenset(needed.extras)))
    assert set(read_pins()) <= {name for name, _ in reached}


@pytest.mark.parametrize("folder", GROUPS)
def test_what_a_folder_imports_is_a_direct_dependency_of_its_group(folder: str) -> None:
    provided = metadata.packages_distributions()
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"supabase"}
    wrong = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in _sources(folder)
        for module in {name.partition(".")[0] for name in imported_names(path)}
        - ours
        - NOT_INSTALLED
        - set(sys.stdlib_module_names)
        if not {normalised(name) for name in provided.get(module, [])} & _allowed(folder, path)
    }
    assert not wrong


def _allowed(folder: str, path: Path) -> set[str]:
    groups = [*GROUPS[folder], *filter(None, [ALSO.get(path.relative_to(ROOT).as_posix())])]
    allowed = {name for group in groups for name in names(group)}
    return allowed | {part for name in allowed for part in PARTS.get(name, ())}


def _sources(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]
