"""What the documents say is checked against the code."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from deploy.stage import functions_in_repository
from local.realtime.settings import Settings as RealtimeSettings
from sidejob.errors import CODES, UPSTREAM
from worker.browser.faults import VERDICTS, invalid
from worker.browser.kinds import KINDS
from worker.browser.options.content import ContentOptions
from worker.browser.options.page import PageOptions
from worker.browser.options.pdf import Paper, PdfOptions
from worker.browser.options.screenshot import ScreenshotOptions
from worker.browser.schema import SCHEMA as BROWSER_SCHEMA
from worker.browser.work import Kind
from worker.figma import faults as figma
from worker.figma.jobs import KINDS as FIGMA_KINDS
from worker.figma.options import (
    CommentsOptions,
    ExportOptions,
    FigmaOptions,
    FileOptions,
    FillsOptions,
    Select,
    TokensOptions,
)
from worker.figma.schema import SCHEMA as FIGMA_SCHEMA
from worker.handlers import Verdict
from worker.payloads import read
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MIGRATIONS = "\n".join(path.read_text() for path in sorted((ROOT / "supabase" / "migrations").glob("*.sql")))


def table(document: str, *headings: str) -> list[list[str]]:
    """The rows of the table that has these first headings, cell by cell, without back quotes."""
    text = (DOCS / document).read_text()
    start = re.search(
        r"^\| " + r" \| ".join(map(re.escape, headings)) + r" \|.*\n\|[-| ]+\|\n", text, re.MULTILINE
    )
    assert start, f"{document} has no table {headings}"
    rows = re.match(r"(?:\|.*\|\n?)*", text[start.end() :])
    assert rows
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in rows[0].splitlines()
    ]


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = {row[0]: int(row[1]) for row in table("errors.md", "code", "status")}
    assert documented == {code: meaning.status for code, meaning in CODES.items()}


def test_every_sqlstate_is_documented_mapped_and_raised() -> None:
    documented = {row[0]: row[1].split(";")[0] for row in table("errors.md", "SQLSTATE", "code")}
    assert documented == {state: code for state, code in UPSTREAM.items() if state.startswith("SJ")}
    assert set(re.findall(r"'(SJ\d{3})'", MIGRATIONS)) == set(documented)


def test_every_error_of_the_worker_s_own_is_documented() -> None:
    sources = "".join((ROOT / "worker" / name).read_text() for name in ("attempt.py", "reports.py"))
    raised = set(re.findall(r'(?:Error|clean_error)\(\s*"([a-z_]+)"', sources))
    assert {row[0] for row in table("errors.md", "code of a job", "tried again")} == raised


@pytest.mark.parametrize(
    ("heading", "constraint"), [("status", "status_is_known"), ("event", "event_type_is_known")]
)
def test_every_state_and_event_is_documented(heading: str, constraint: str) -> None:
    known = re.search(constraint + r" check \(\w+ in \(([^)]*)\)", MIGRATIONS)
    assert known
    second = "who moves it on" if heading == "status" else "when"
    documented = [row[0] for row in table("lifecycle.md", heading, second)]
    assert sorted(documented) == sorted(re.findall(r"'([^']+)'", known[1]))


def test_every_argument_of_enqueue_job_is_documented_with_its_default() -> None:
    signature = re.search(r"create function public\.enqueue_job\((.*?)\)\nlanguage", MIGRATIONS, re.DOTALL)
    assert signature
    arguments = re.findall(
        r"(?:^|, |,\n\s+)(?:inout )?(\w+) [a-z]+(?:\[\])?(?: default ([^,]+))?(?=,|$)", signature[1].strip()
    )
    taken = {name: default.strip("'") for name, default in arguments if name != "out"}
    documented = {row[0]: row[1] for row in table("queue.md", "argument", "default")}
    assert set(documented) == set(taken)
    for name, default in taken.items():
        if default not in ("", "null"):
            assert documented[name] == default, name


def test_every_call_of_the_database_is_documented_with_its_arguments() -> None:
    head = r"create function public\.(\w+)\((.*?)\)\s*(?:returns|language)"
    declared: dict[str, list[str]] = {}
    for name, arguments in re.findall(head, MIGRATIONS, re.DOTALL):
        listed = [words.split() for words in re.split(r",(?![^(]*\))", arguments) if words.strip()]
        declared[name] = [words[words[0] == "inout"] for words in listed if words[0] != "out"]
    documented = {
        name: arguments.replace("fence", "job_id, attempt, lease_token").rstrip(")").split(", ")
        for name, _, arguments in (row[0].partition("(") for row in table("queue.md", "call", "who", "what"))
    }
    assert documented == {name: arguments or [""] for name, arguments in declared.items()}


def test_every_limit_of_the_local_realtime_is_documented_with_its_default() -> None:
    needed = ("port", "database_url", "jwt_secret", "publishable_key", "secret_key", "host")
    defaults: dict[str, Any] = {field.name: field.default for field in fields(RealtimeSettings)}
    limits = {
        f"REALTIME_{name.upper()}": str(int(default))
        for name, default in defaults.items()
        if name not in needed
    }
    assert {row[0]: row[1] for row in table("settings.md", "variable", "default", "limits")} == limits


def test_every_function_is_documented() -> None:
    assert {row[0] for row in table("http.md", "function", "method")} == set(functions_in_repository())


def test_every_collab_route_is_documented() -> None:
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "functions" / "collab" / "main.py").read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Route"
    ]
    served = set()
    for call in calls:
        method, *_ = [ast.literal_eval(argument) for argument in call.args[:1]]
        path = next((k.value for k in call.keywords if k.arg == "path"), call.args[-1])
        served.add((method, re.sub(r"\{\w+\}", ":id", ast.literal_eval(path))))
    http = (DOCS / "http.md").read_text()
    assert set(re.findall(r"^\| `([A-Z]+) /api/collab/([^`]+)`", http, re.MULTILINE)) == served


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for document in [ROOT / "README.md", *DOCS.glob("**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), (
                f"{document.name}: {target}"
            )


def test_every_local_command_in_the_readme_exists() -> None:
    commands = set(re.findall(r"\./local\.sh ([a-z][a-z-]*)", (ROOT / "README.md").read_text()))
    help_text = subprocess.run(
        [sys.executable, "-m", "local", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert commands
    assert all(re.search(rf"^\s+{command}\s", help_text, re.MULTILINE) for command in commands), commands


def test_every_setting_of_the_worker_is_documented() -> None:
    variables = [entry.metadata["variable"] for entry in fields(Settings)]
    documented = [row[:3] for row in table("settings.md", "variable", "default", "unit")]
    assert documented == [
        [v.name, "required" if v.default is None else v.default or "–", v.unit] for v in variables
    ]


def test_every_setting_of_the_functions_is_documented() -> None:
    read = set(re.findall(r'"([A-Z]+_[A-Z_]+)"', (ROOT / "sidejob" / "config.py").read_text()))
    assert {row[0] for row in table("settings.md", "variable", "default", "meaning")} == read


def options_in(heading: str) -> dict[str, tuple[str, str]]:
    """Fields with default and meaning, from the tables under this heading of browser.md."""
    text = (DOCS / "browser.md").read_text().partition(f"\n## {heading}")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*?) \|[^|]*\| ?(.*?) ?\|$", text, re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in rows}


@pytest.mark.parametrize(
    ("heading", "model", "inherited"),
    [
        ("The page", PageOptions, None),
        ("browser.screenshot", ScreenshotOptions, PageOptions),
        ("browser.pdf", PdfOptions, PageOptions),
        ("browser.content", ContentOptions, PageOptions),
    ],
)
def test_every_option_of_a_browser_job_is_documented_with_its_default_and_its_meaning(
    heading: str, model: type[BaseModel], inherited: type[BaseModel] | None
) -> None:
    options = {
        str(field.alias): field
        for name, field in model.model_fields.items()
        if inherited is None or name not in inherited.model_fields
    }
    if model is PdfOptions:
        options |= {str(field.alias): field for field in Paper.model_fields.values()}
    documented = options_in(heading)
    assert set(options) == set(documented)
    for alias, field in options.items():
        default, (written, meaning) = field.get_default(call_default_factory=True), documented[alias]
        if default is not None and not isinstance(default, BaseModel):
            assert written == (str(default).lower() if isinstance(default, bool) else str(default)), alias
        described = " ".join((field.description or "").removesuffix(".").split())
        assert described.lower() == meaning.replace("`", "").lower(), "the schema says what the document says"


def test_the_schema_of_browser_jobs_is_what_the_worker_takes() -> None:
    """After a change: python -m worker.browser.schema > docs/browser.schema.json"""
    assert json.loads((DOCS / "browser.schema.json").read_text()) == BROWSER_SCHEMA


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.action)
def test_the_examples_of_browser_jobs_fit_the_schema_and_the_worker(kind: Kind[Any]) -> None:
    text = (DOCS / "browser.md").read_text()
    jobs = [json.loads(line) for line in re.findall(r'^\{"type": .*\}$', text, re.MULTILINE)]
    (job,) = [job for job in jobs if job["type"] == f"browser.{kind.action}"]
    jsonschema.validate(job, BROWSER_SCHEMA)
    read(kind.model, job["payload"], invalid)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**job, "payload": {**job["payload"], "colour": 1}}, BROWSER_SCHEMA)


def test_every_failure_of_a_browser_job_is_documented_with_its_verdict() -> None:
    documented: dict[str, str] = {}
    for codes, again in table("browser.md", "code", "tried again"):
        documented |= dict.fromkeys(codes.split(", "), again.split(",")[0])
    assert documented == {
        code: {Verdict.GIVE_UP: "no"}.get(verdict, "yes") for code, verdict in VERDICTS.items()
    } | {"http_status": "on 408"}


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("Every job", FigmaOptions),
        ("figma.export", ExportOptions),
        ("figma.file", FileOptions),
        ("figma.tokens", TokensOptions),
        ("figma.fills", FillsOptions),
        ("figma.comments", CommentsOptions),
    ],
)
def test_every_option_of_a_figma_job_is_documented_with_its_default(
    heading: str, model: type[FigmaOptions]
) -> None:
    text = (DOCS / "figma.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    documented = dict(
        re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text.split("field of `select`")[0], re.MULTILINE)
    )
    own = {
        str(field.alias): "required" if field.is_required() else _written(field.default)
        for name, field in model.model_fields.items()
        if model is FigmaOptions or name not in FigmaOptions.model_fields
    }
    assert documented.keys() == own.keys()
    assert {name: documented[name] for name in own} == {
        name: documented[name] if default is None else default for name, default in own.items()
    }


def _written(default: object) -> str | None:
    """As a document writes it; None for one that takes words."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return ", ".join(map(str, default)) or "[]"
    return None if default is None else str(default)


def test_the_schema_of_figma_jobs_is_what_the_worker_takes() -> None:
    """After a change: python -m worker.figma.schema > docs/figma.schema.json"""
    assert json.loads((DOCS / "figma.schema.json").read_text()) == FIGMA_SCHEMA


@pytest.mark.parametrize("job_type", FIGMA_KINDS)
def test_the_examples_of_figma_jobs_fit_the_schema_and_the_worker(job_type: str) -> None:
    text = (DOCS / "figma.md").read_text()
    jobs = [json.loads(line) for line in re.findall(r'^\{"type": .*\}$', text, re.MULTILINE)]
    examples = [job for job in jobs if job["type"] == job_type]
    assert examples
    for job in examples:
        jsonschema.validate(job, FIGMA_SCHEMA)
        read(FIGMA_KINDS[job_type][0], job["payload"], figma.invalid)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**job, "payload": {**job["payload"], "colour": 1}}, FIGMA_SCHEMA)


def test_every_field_of_a_figma_selection_is_documented() -> None:
    documented = {row[0]: row[1] for row in table("figma.md", "field of `select`", "default", "meaning")}
    assert documented == {str(field.alias): _written(field.default) for field in Select.model_fields.values()}


def test_every_failure_of_a_figma_job_is_documented_with_its_verdict() -> None:
    documented: dict[str, str] = {}
    for codes, again, _ in table("figma.md", "code", "tried again"):
        documented |= dict.fromkeys(codes.split(", "), again)
    assert documented == {
        code: "no" if verdict is Verdict.GIVE_UP else "yes" for code, verdict in figma.VERDICTS.items()
    }
