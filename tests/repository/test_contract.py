"""The OpenAPI document, the functions' folders, the Collab routes and the error codes say the same."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.stage import ROOT, functions_in_repository, target
from sidejob.errors import CODES, UPSTREAM
from sidejob.openapi import document, reference
from sidejob.openapi.operations import COLLAB, FUNCTIONS
from sidejob.query import STATES


def test_the_committed_documents_are_what_the_code_makes() -> None:
    for name, made in (("openapi.json", document.text()), ("reference.md", reference.text())):
        assert (ROOT / "docs" / name).read_text() == made, "Run: python -m sidejob.openapi"


def test_every_function_is_in_the_document_and_back() -> None:
    assert sorted([*FUNCTIONS, "collab"]) == functions_in_repository()


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_functions_methods_are_the_documented_ones(function: str) -> None:
    text = (ROOT / "functions" / function / "main.py").read_text()
    assert f"{target(function)} = endpoint(" in text
    methods = set(re.findall(r'"(GET|POST)"', text))
    assert methods == {method.upper() for method in FUNCTIONS[function]}


def test_collabs_routes_are_the_documented_ones() -> None:
    text = (ROOT / "functions" / "collab" / "main.py").read_text()
    routes = {(method.lower(), path) for method, path in re.findall(r'Route\("(\w+)",.*"([^"]+)"\)', text)}
    assert routes == {(method, path) for path, methods in COLLAB.items() for method in methods}


def test_every_code_is_used_and_every_used_code_is_known() -> None:
    texts = [path.read_text() for path in (ROOT / "sidejob").rglob("*.py") if path.name != "errors.py"]
    used = set(UPSTREAM.values()) | set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', "".join(texts)))
    by_service = {
        "database_unavailable",
        "storage_unavailable",
        "auth_unavailable",
    }  # f"{service}_unavailable"
    assert set(CODES) <= used | by_service
    raised = re.findall(r'(?:Refused|Unavailable|SidejobError|_refused)\(\s*"(\w+)"', "".join(texts))
    assert set(raised) <= set(CODES)


def test_the_migrations_raise_the_codes_that_the_table_knows() -> None:
    texts = "".join(path.read_text() for path in sorted((ROOT / "supabase" / "migrations").glob("*.sql")))
    assert set(re.findall(r"'(SJ\d{3})'", texts)) <= set(UPSTREAM)
    (states,) = re.findall(r"constraint status_is_known check \(status in \(([^)]*)\)", texts)
    assert tuple(re.findall(r"'(\w+)'", states)) == STATES


def test_main_files_have_the_right_types(tmp_path: Path) -> None:
    """mypy cannot take thirteen files called main.py at once, so it gets copies with other names."""
    for function in functions_in_repository():
        text = (ROOT / "functions" / function / "main.py").read_text()
        (tmp_path / f"function_{target(function)}.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        str(tmp_path),
    ]
    ran = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_the_document_is_valid_json_schema_throughout() -> None:
    from jsonschema import Draft202012Validator

    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert document["openapi"].startswith("3.1")
