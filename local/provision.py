"""The people, workers and workspaces of a fresh stack, made over Auth's admin API and REST."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from local.credentials import PEOPLE
from local.layout import StackError

_MEMBERS = {  # person → (workspace, role, worker_id)
    "OWNER": ("DEMO", "owner", None),
    "DEMO": ("DEMO", "member", None),
    "VIEWER": ("DEMO", "viewer", None),
    "WORKER": ("DEMO", "worker", "local-worker"),
    "WORKER2": ("DEMO", "worker", "local-worker-2"),
    "OTHER": ("OTHER", "owner", None),
}


def people_and_workspaces(env: Mapping[str, str]) -> None:
    """Makes what is missing and leaves the rest. Raises StackError when a request is refused."""
    with httpx.Client(
        base_url=env["SUPABASE_URL"],
        headers={"apikey": env["SUPABASE_SECRET_KEY"]},
        timeout=10,
        trust_env=False,
    ) as http:
        users = {person: _user(http, env, person) for person in PEOPLE}
        spaces = [{"id": env[f"{name}_WORKSPACE_ID"], "name": name.lower()} for name in ("DEMO", "OTHER")]
        members = [
            {
                "workspace_id": env[f"{space}_WORKSPACE_ID"],
                "user_id": users[person],
                "role": role,
                "is_default": True,
                "worker_id": worker_id,
            }
            for person, (space, role, worker_id) in _MEMBERS.items()
        ]
        _insert_missing(http, "workspaces", spaces, "id")
        _insert_missing(http, "workspace_members", members, "user_id,workspace_id")


def _user(http: httpx.Client, env: Mapping[str, str], person: str) -> str:
    email, password = env[f"{person}_EMAIL"], env[f"{person}_PASSWORD"]
    body = {"email": email, "password": password, "email_confirm": True}
    answer = http.post("/auth/v1/admin/users", json=body)
    if answer.status_code == 422 and answer.json().get("error_code") == "email_exists":
        pages = http.get("/auth/v1/admin/users", params={"page": 1, "per_page": 10_000})
        return next(str(user["id"]) for user in _checked(pages)["users"] if user["email"] == email)
    return str(_checked(answer)["id"])


def _insert_missing(http: httpx.Client, table: str, rows: list[dict[str, Any]], key: str) -> None:
    """A table that is missing is asked for again: the gateway may still be reading the new schema."""
    deadline = time.monotonic() + 10
    while True:
        headers = {"prefer": "resolution=ignore-duplicates,return=minimal"}
        answer = http.post(f"/rest/v1/{table}", params={"on_conflict": key}, json=rows, headers=headers)
        if answer.status_code != 404 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    _checked(answer)


def _checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        request = answer.request
        raise StackError(
            f"{request.method} {request.url.path} was refused: {answer.status_code} {answer.text}"
        )
    return answer.json() if answer.content else None
