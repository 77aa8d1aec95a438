"""`functions.invoke` of both official clients: its user can read the sentence that says what is wrong."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions
from supabase_functions.errors import FunctionsHttpError

from local.setup import NODE_FOLDER, node_program
from tests.stack import Stack

JOB = "0f0e0d0c-0b0a-4908-8706-050403020100"
SENTENCES = {
    "signed_out": (401, "A user's access token is needed"),
    "bad_field": (422, "`priority`"),
    "bad_query": (400, "`limit` must be a whole number from 1 to 100."),
    "not_found": (404, "`jobId`: there is no such job, or not for you."),
    "wrong_method": (405, "POST is not allowed here. Allowed: GET, HEAD, OPTIONS."),
}


def javascript(stack: Stack) -> dict[str, Any]:
    script = Path(__file__).with_name("invoke.mjs")
    command = [str(node_program()), str(script), str(NODE_FOLDER)]
    done = subprocess.run(
        command, env=dict(stack.env), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def python(stack: Stack) -> dict[str, Any]:
    with httpx.Client(trust_env=False, timeout=60) as http:
        options = SyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
        client = create_client(stack.env["SUPABASE_URL"], stack.env["SUPABASE_PUBLISHABLE_KEY"], options)
        seen = {"signed_out": told(client, "jobs-recent", {"method": "GET"})}
        client.auth.sign_in_with_password(
            {"email": stack.env["DEMO_EMAIL"], "password": stack.env["DEMO_PASSWORD"]}
        )
        body = {"type": "browser.screenshot", "priority": 99}
        seen["bad_field"] = told(client, "task-assign", {"body": body})
        seen["bad_query"] = told(client, "jobs-recent?limit=0", {"method": "GET"})
        seen["not_found"] = told(client, "job-cancel", {"body": {"jobId": JOB}})
        seen["wrong_method"] = told(client, "jobs-recent", {"body": {}})
        read = client.functions.invoke("jobs-recent?limit=1", {"method": "GET"})
        return {**seen, "read": json.loads(bytes(read))["count"]}


def told(client: Client, function: str, options: Mapping[str, Any]) -> dict[str, Any]:
    with pytest.raises(FunctionsHttpError) as error:
        client.functions.invoke(function, dict(options))
    return {"status": error.value.status, "error": error.value.message}


@pytest.mark.parametrize("client", [javascript, python])
def test_the_user_reads_the_errors_sentence(stack: Stack, client: Any) -> None:
    seen = client(stack)
    assert seen["read"] <= 1
    for case, (status, sentence) in SENTENCES.items():
        assert seen[case]["status"] == status, seen[case]
        assert sentence in seen[case]["error"], seen[case]
