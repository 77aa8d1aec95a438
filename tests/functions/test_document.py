"""What the functions answer is what the OpenAPI document promises."""

import json
import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from deploy.stage import ROOT
from sidejob.openapi.operations import COLLAB, FUNCTIONS
from sidejob.openapi.schemas import ROWS, TABLES
from tests.functions.conftest import Load, bearer
from tests.functions.test_job_flow import assign, claim, lease, store
from tests.stack import Person, Stack, done

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
READING = [name for name, methods in FUNCTIONS.items() if "get" in methods]
READING_ROUTES = [path for path, methods in COLLAB.items() if "get" in methods]


def check(schema: dict[str, Any], instance: object) -> None:
    """Against a schema of the document, whose references lead to its components."""
    whole = {**schema, "components": DOCUMENT["components"]}
    faults = [fault.message for fault in Draft202012Validator(whole).iter_errors(instance)]
    assert not faults


def promised(path: str, method: str) -> dict[str, Any]:
    schema: dict[str, Any] = DOCUMENT["paths"][path][method]["responses"]["200"]["content"][
        "application/json"
    ]["schema"]
    return schema


def test_every_answer_fits_its_schema(member: Person, worker: Person, executor: str) -> None:
    job_id = assign(member, executor)["jobId"]
    second = assign(member, executor)["jobId"]
    job = claim(worker, executor)
    beat = {"agentId": f"agent-{executor}", "executorId": executor, "status": "busy"}
    report = {**lease(job), "ok": True, "artifact": store(worker, job)}
    answers: dict[tuple[str, str], httpx.Response] = {
        ("task-assign", "post"): member.post("task-assign", {"type": "figma.export", "executorId": executor}),
        ("task-claim", "post"): worker.post("task-claim", {"executorId": executor}),
        ("task-result", "post"): worker.post("task-result", report),
        ("job-cancel", "post"): member.post("job-cancel", {"jobId": second}),
        ("jobs-recent", "get"): member.get("jobs-recent", executorId=executor, limit=1),
        ("job-status", "get"): member.get("job-status", id=job_id),
        ("artifacts-list", "get"): member.get("artifacts-list", jobId=job_id),
        ("worker-heartbeat", "post"): worker.post("worker-heartbeat", beat),
        ("workers-active", "get"): member.get("workers-active"),
        ("leases-release", "post"): worker.post("leases-release", {}),
        ("metrics-overview", "get"): member.get("metrics-overview"),
        ("artifacts-sweep", "post"): worker.post("artifacts-sweep", {"after": "~"}),
    }
    doomed = assign(member, f"{executor}-doomed")["jobId"]
    worker.post("task-result", {**lease(claim(worker, f"{executor}-doomed")), "ok": False, "giveUp": True})
    answers["dlq-list", "get"] = member.get("dlq-list", limit=1)
    (letter,) = done(answers["dlq-list", "get"])["items"]
    assert letter["job_id"] == doomed
    answers["dlq-retry", "post"] = member.post("dlq-retry", {"dlqId": letter["id"]})
    answers["dlq-discard", "post"] = member.post("dlq-discard", {"dlqId": letter["id"]})
    file = done(answers["artifacts-list", "get"])["items"][0]["id"]
    answers["sign-artifact", "get"] = member.get("sign-artifact", artifactId=file)
    answers["sign-artifact", "post"] = member.post("sign-artifact", {"artifactId": file})
    for (function, method), answer in answers.items():
        check(promised(f"/functions/v1/{function}", method), done(answer))
    documented = {
        (path.removeprefix("/functions/v1/"), method)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/functions/")
        and not path.endswith("/openapi.json")
        and "application/json" in operation["responses"]["200"]["content"]
    }
    assert set(answers) == documented


@pytest.mark.parametrize("function", [*FUNCTIONS, "collab"])
def test_each_function_serves_its_own_part_of_the_document_to_anybody(nobody: Person, function: str) -> None:
    asked = nobody.collab("openapi.json") if function == "collab" else nobody.get(f"{function}/openapi.json")
    served = done(asked)
    methods = {path: set(names) for path, names in COLLAB.items()}
    if function != "collab":
        methods = {"": set(FUNCTIONS[function]), "/openapi.json": {"get"}}
    prefix = "/api/collab/" if function == "collab" else f"/functions/v1/{function}"
    assert {path: set(item) for path, item in served["paths"].items()} == {
        f"{prefix}{path}": names for path, names in methods.items()
    }
    text = json.dumps(served["paths"]) + json.dumps(served["components"])
    for kind, name in re.findall('"#/components/([a-z]+[A-Za-z]*)/([^"]+)"', text):
        assert served["components"][kind][name] == DOCUMENT["components"][kind][name]


def test_the_rows_of_the_document_have_the_columns_of_the_tables(stack: Stack) -> None:
    question = (
        "select column_name as name from information_schema.columns"
        " where table_schema = 'public' and table_name = %s"
    )
    for name, table in TABLES.items():
        columns = {row["name"] for row in stack.sql.execute(question, [table]).fetchall()}
        assert set(ROWS[name]["properties"]) == columns, f"sidejob/openapi/schemas.py, {name}"


def known(answer: object) -> list[str]:
    """The parameters that a refusal of an unknown one lists."""
    sentence = str(answer).partition("is not a parameter. ")[2]
    return (
        sentence.removeprefix("Known: ").removesuffix(".").split(", ") if sentence.startswith("Known") else []
    )


@pytest.mark.parametrize("function", READING)
def test_a_function_takes_the_documented_parameters_and_no_other(load: Load, function: str) -> None:
    answer = load(function).get("/?unheard=1", headers=bearer())
    assert answer.status_code == 400
    assert known(answer.get_json()["error"]) == [*FUNCTIONS[function]["get"].parameters]


@pytest.mark.parametrize("path", READING_ROUTES)
def test_a_collab_route_takes_the_documented_parameters_and_no_other(load: Load, path: str) -> None:
    filled = path.replace("{id}", "x").replace("{jobId}", "x")
    answer = load("collab").get(f"/api/collab/{filled}?unheard=1", headers=bearer())
    assert answer.status_code == 400
    assert known(answer.get_json()["error"]) == [*COLLAB[path]["get"].parameters]
