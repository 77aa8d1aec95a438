"""The table of rights, asked from outside: each line by each kind of caller, over HTTP as anyone would."""

import uuid
from typing import Any

import httpx
import pytest

from tests.end_to_end.rights import ACTORS, READ, WRITE, Right, Scene
from tests.stack import Person, Stack, done

DAY = "2026/01/31"


class NoKey(Person):
    """A caller without so much as the publishable key."""

    def rest(self, method: str, path: str, body: object = None, **query: str) -> httpx.Response:
        return self.stack.http.request(
            method, f"{self.stack.env['SUPABASE_URL']}/rest/v1/{path}", json=body, params=query
        )


def actor(stack: Stack, name: str) -> Person:
    match name:
        case "nobody":
            return NoKey(stack, {})
        case "anon":
            return Person(stack, {"apikey": stack.env["SUPABASE_PUBLISHABLE_KEY"]})
        case "secret":
            return Person(stack, {"apikey": stack.env["SUPABASE_SECRET_KEY"]})
    users = {"member": "DEMO", "stranger": "OTHER", "viewer": "VIEWER", "owner": "OWNER", "worker": "WORKER2"}
    return stack.sign_in(users[name])


def make_scene(stack: Stack) -> Scene:
    member, worker, executor_id = stack.sign_in("DEMO"), stack.sign_in("WORKER2"), f"rights-{uuid.uuid4()}"
    held, queued = (
        done(
            member.post(
                "task-assign", {"type": "test.rights", "executorId": executor_id, "priority": priority}
            )
        )["jobId"]
        for priority in (1, 0)
    )
    asked = {"executor_id": executor_id, "lease_seconds": 600}  # the shared scene is held as long as that
    (job,) = worker.rest("POST", "rpc/claim_one_job", asked).json()
    assert job["id"] == held
    path = f"{stack.env['DEMO_WORKSPACE_ID']}/{DAY}/{held}/1/a.txt"
    assert worker.upload(path, b"bytes", "text/plain").is_success
    row = {"job_id": held, "name": "a.txt", "size": 5, "path": path}
    assert worker.rest("POST", "artifacts", row).status_code == 201
    # The agent is also an Auth user of no workspace, whom an owner may add.
    agent_id = str(uuid.uuid4())
    stack.sql.execute(
        "insert into auth.users (id, email) values (%s, %s)", [agent_id, f"{agent_id}@example.com"]
    )
    done(worker.rest("POST", "rpc/worker_heartbeat", {"agent_id": agent_id}))
    stack.sql.execute(  # a disabled one, named like the executor
        "insert into public.schedules (workspace_id, name, cron, type, enabled)"
        " values (%s, %s, '@yearly', 'test.rights', false)",
        [stack.env["DEMO_WORKSPACE_ID"], executor_id],
    )
    found = stack.sql.execute("select id::text from public.artifacts where job_id = %s", [held]).fetchone()
    assert found is not None
    lease = {"job_id": held, "attempt": job["attempt"], "lease_token": job["lease_token"]}
    letter = dead_letter(stack, worker, f"{executor_id}-doomed")
    home = stack.env["DEMO_WORKSPACE_ID"]
    stack.sql.execute(
        "insert into public.job_limits (workspace_id, executor_id, max_running) values (%s, %s, 1000)",
        [home, executor_id],
    )
    stack.sql.execute("insert into public.paused_executors values (%s, %s)", [home, f"{executor_id}-paused"])
    child = {"type": "test.rights", "executorId": f"{executor_id}-later", "dependsOn": [held]}
    done(member.post("task-assign", child))
    return Scene(home, queued, held, lease, found["id"], path, executor_id, agent_id, letter)


def dead_letter(stack: Stack, worker: Person, executor_id: str) -> int:
    doomed = {"type": "test.rights", "executorId": executor_id}
    done(stack.sign_in("DEMO").post("task-assign", doomed))
    (job,) = worker.rest("POST", "rpc/claim_one_job", {"executor_id": executor_id}).json()
    lease = {"job_id": job["id"], "attempt": job["attempt"], "lease_token": job["lease_token"]}
    done(worker.rest("POST", "rpc/finish_job", {**lease, "ok": False, "give_up": True}))
    found = stack.sql.execute("select id from public.dead_letters where job_id = %s", [job["id"]]).fetchone()
    assert found is not None
    return int(found["id"])


@pytest.fixture(scope="module")
def shared_scene(stack: Stack) -> Scene:
    return make_scene(stack)


def granted(answer: httpx.Response) -> bool:
    """Was something shown or done? An empty list, no job, no counts are as good as a refusal."""
    if not answer.is_success:
        assert answer.status_code in (400, 401, 403, 404, 409), f"{answer.status_code} {answer.text}"
        return False
    if not answer.headers.get("content-type", "").startswith("application/json") or not answer.content:
        return True
    body: Any = answer.json()
    if isinstance(body, dict) and "counts" in body:
        return any(body["counts"].values())
    if isinstance(body, dict):
        return body.get("items", True) != [] and body.get("job", True) is not None
    return bool(body != [])


ALL_THAT_A_WRITE_COULD_CHANGE = """
select
  (select jsonb_agg(j order by j.id) from public.jobs j where j.executor_id = %(executor_id)s) as jobs,
  (select count(*) from public.job_events where job_id::text in (%(queued)s, %(held)s)) as events,
  (select count(*) from public.artifacts where job_id::text = %(held)s) as artifacts,
  (select count(*) from storage.objects where path_tokens && array[%(queued)s, %(held)s]) as objects,
  (select count(*) from public.dead_letters where job_id::text = %(queued)s) as letters,
  (select to_jsonb(l) from public.dead_letters l where l.id = %(letter)s) as letter,
  (select jsonb_agg(l) from public.job_limits l where l.executor_id = %(executor_id)s) as limits,
  (select count(*) from public.paused_executors where starts_with(executor_id, %(executor_id)s)) as pauses,
  (select count(*) from public.job_dependencies) as dependencies,
  (select count(*) from public.audit_log) as audit,
  (select jsonb_agg(s order by s.id) from public.schedules s) as schedules,
  (select count(*) from public.workspaces) as workspaces,
  (select last_seen from public.worker_heartbeats_v2 where agent_id = %(agent_id)s) as last_seen,
  (select jsonb_agg(m order by m.user_id) from public.workspace_members m) as members
"""


def fingerprint(stack: Stack, scene: Scene) -> list[dict[str, Any]]:
    return stack.sql.execute(ALL_THAT_A_WRITE_COULD_CHANGE, vars(scene)).fetchall()


@pytest.mark.parametrize("who", ACTORS)
@pytest.mark.parametrize("right", READ, ids=str)
def test_reading(stack: Stack, shared_scene: Scene, right: Right, who: str) -> None:
    answer = right.ask(actor(stack, who), shared_scene)
    assert granted(answer) == (who in right.who.split()), f"{answer.status_code} {answer.text[:300]}"


@pytest.mark.parametrize("who", ACTORS)
@pytest.mark.parametrize("right", WRITE, ids=str)
def test_writing(stack: Stack, shared_scene: Scene, right: Right, who: str) -> None:
    if who in right.who.split():
        answer = right.ask(actor(stack, who), make_scene(stack))
        assert granted(answer), f"{answer.status_code} {answer.text[:300]}"
        return
    before = fingerprint(stack, shared_scene)
    answer = right.ask(actor(stack, who), shared_scene)
    assert not granted(answer), f"{answer.status_code} {answer.text[:300]}"
    assert fingerprint(stack, shared_scene) == before, "refused, and yet something was written"


def test_no_response_holds_the_secret_key_or_a_lease_token(stack: Stack, shared_scene: Scene) -> None:
    for right in READ:
        for who in ACTORS:
            text = right.ask(actor(stack, who), shared_scene).text
            assert stack.env["SUPABASE_SECRET_KEY"] not in text
            assert str(shared_scene.lease["lease_token"]) not in text
