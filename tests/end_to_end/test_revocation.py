"""Whose membership is taken away has no rights at his next request, with the token that he still holds."""

import uuid
from collections.abc import Iterator

import pytest

from tests.functions.test_job_flow import assign
from tests.stack import Person, Stack, done, refused


@pytest.fixture
def newcomer(stack: Stack, owner: Person) -> Iterator[tuple[Person, str]]:
    """A member whom the owner has just added, and his id."""
    url, sign_in = (
        stack.env["SUPABASE_URL"],
        {"email": f"{uuid.uuid4()}@example.com", "password": str(uuid.uuid4())},
    )
    server = {"apikey": stack.env["SUPABASE_SECRET_KEY"]}
    made = stack.http.post(
        f"{url}/auth/v1/admin/users", headers=server, json={**sign_in, "email_confirm": True}
    )
    user_id = made.json()["id"]
    member = {"workspace_id": stack.env["DEMO_WORKSPACE_ID"], "user_id": user_id, "role": "member"}
    assert owner.rest("POST", "workspace_members", member).status_code == 201
    key = {"apikey": stack.env["SUPABASE_PUBLISHABLE_KEY"]}
    session = stack.http.post(f"{url}/auth/v1/token?grant_type=password", headers=key, json=sign_in)
    yield Person(stack, {"Authorization": f"Bearer {session.json()['access_token']}"}), user_id
    stack.sql.execute("delete from public.workspace_members where user_id = %s", [user_id])


def test_a_revoked_member_can_do_nothing_at_his_next_request(
    stack: Stack, owner: Person, newcomer: tuple[Person, str], executor: str
) -> None:
    person, user_id = newcomer
    home = {"workspaceId": stack.env["DEMO_WORKSPACE_ID"]}
    job_id = assign(person, executor, **home)["jobId"]
    assert done(person.get("job-status", id=job_id))["job"]["created_by"] == user_id
    assert done(person.get("jobs-recent", executorId=executor))["count"] == 1

    assert owner.rest("DELETE", "workspace_members", user_id=f"eq.{user_id}").is_success

    refused(person.get("job-status", id=job_id), 404, "not_found")
    refused(person.collab(f"job/{job_id}"), 404, "not_found")
    refused(person.get("job-events", id=job_id), 404, "not_found")
    refused(person.post("job-cancel", {"jobId": job_id}), 404, "not_found")
    refused(person.post("task-assign", {"type": "test.x", "executorId": executor, **home}), 404, "not_found")
    assert done(person.get("jobs-recent", executorId=executor))["items"] == []
    assert person.rest("GET", "jobs", id=f"eq.{job_id}").json() == []
    assert not any(done(person.get("metrics-overview"))["counts"].values())
