"""No secret leaves its place: not in a log, not in a row that others may read."""

import os
import random
import re
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from sidejob.openapi.operations import COLLAB, FUNCTIONS
from tests.stack import Person, Stack, done

HOME = Path(os.environ.get("SIDEJOB_TEST_ENV", "")).parent


def test_no_log_holds_a_key_a_password_or_a_token(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    job_id = done(member.post("task-assign", {"type": "test.secret", "executorId": executor}))["jobId"]
    (job,) = worker.rest("POST", "rpc/claim_one_job", {"executor_id": executor}).json()
    path = f"{stack.env['DEMO_WORKSPACE_ID']}/2026/01/31/{job_id}/1/a.txt"
    assert worker.upload(path, b"bytes", "text/plain").is_success
    lease = {"jobId": job_id, "attempt": 1, "leaseToken": job["lease_token"]}
    artifact = {"name": "a.txt", "size": 5, "path": path}
    done(worker.post("task-result", {**lease, "ok": True, "artifact": artifact}))
    listed = done(member.get("artifacts-list", jobId=job_id))["items"]
    signed = done(member.get("sign-artifact", artifactId=listed[0]["id"]))["url"]
    assert stack.http.get(signed).content == b"bytes"
    worker.post("task-result", {**lease, "ok": False, "error": job["lease_token"]})

    secrets = {
        name: value
        for name, value in stack.env.items()
        if name.endswith(("_PASSWORD", "_SECRET_KEY", "_JWT_SECRET"))
    }
    secrets |= {
        "lease token": job["lease_token"],
        "access token": member.token,
        "worker's token": worker.token,
    }
    secrets |= {"signed URL": signed.partition("token=")[2]}
    logs = list((HOME / "logs").glob("*.log"))
    assert len(logs) > 15
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [name for name, value in secrets.items() if value in text], log.name
        assert not re.search(r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.", text), f"{log.name} has a token"


def varied(stack: Stack, dice: random.Random) -> httpx.Request:
    """Any function or route, any caller, the secret key among them; right and wrong in all they send."""
    functions = [f"{stack.env['FUNCTIONS_URL']}/{name}" for name in FUNCTIONS if name != "job-events"]
    routes = [f"{stack.env['COLLAB_URL']}/{path}" for path in COLLAB]
    url = dice.choice(functions + routes).replace("{id}", str(uuid.uuid4())).replace("{jobId}", "x")
    callers: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer wrong"},
        {"apikey": stack.env["SUPABASE_PUBLISHABLE_KEY"]},
        {"apikey": stack.env["SUPABASE_SECRET_KEY"]},
        {"apikey": stack.env["SUPABASE_SECRET_KEY"], "origin": "https://app.test"},
        {"authorization": f"Bearer {stack.env['SUPABASE_SECRET_KEY']}"},
        *(dict(stack.sign_in(name).headers) for name in ("DEMO", "OTHER", "VIEWER", "OWNER", "WORKER2")),
    ]
    queries = [
        {},
        {},
        {"id": str(uuid.uuid4())},
        {"jobId": "1"},
        {"limit": "0"},
        {"cursor": "null"},
        {"artifactId": str(uuid.uuid4())},
    ]
    bodies: list[object] = [
        {},
        [],
        None,
        {"jobId": str(uuid.uuid4())},
        {"type": "t", "executorId": "secrets"},
        {"dlqId": 2**40},
        {"type": 1},
    ]
    return stack.http.build_request(
        dice.choice(["GET", "GET", "POST", "POST", "PUT", "OPTIONS", "DELETE"]),
        f"{url}?{urlencode(dice.choice(queries))}",
        headers=dice.choice(callers),
        json=dice.choice(bodies),
    )  # fmt: skip


@pytest.mark.parametrize("requests", [150, pytest.param(1000, marks=pytest.mark.soak)])
def test_no_answer_shows_a_secret_whatever_is_asked(stack: Stack, requests: int) -> None:
    secrets = [stack.env[name].encode() for name in ("SUPABASE_SECRET_KEY", "SUPABASE_JWT_SECRET")]
    dice = random.Random(requests)
    asked = [varied(stack, dice) for _ in range(requests)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(stack.http.send, asked))
    assert set(Counter(answer.status_code for answer in answers)) >= {200, 204, 400, 401, 403, 405, 422}
    for answer in answers:
        shown = b"\n".join([*(part for header in answer.headers.raw for part in header), answer.content])
        assert not [secret for secret in secrets if secret in shown], f"{answer.request.method} {answer.url}"


def test_nothing_that_is_built_or_logged_holds_the_secret_key(stack: Stack) -> None:
    secrets = [stack.env[name].encode() for name in ("SUPABASE_SECRET_KEY", "SUPABASE_JWT_SECRET")]
    built = [path for path in (HOME / "functions").rglob("*") if path.is_file()]
    logs = list((HOME / "logs").iterdir())
    assert len(built) > 100
    assert len(logs) > 15
    holding = [path for path in built + logs if any(secret in path.read_bytes() for secret in secrets)]
    assert not holding
