"""The table of rights, asked from outside: each line by each kind of caller, over HTTP as anyone would."""

import re
import uuid
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from deploy.stage import functions_in_repository
from sidejob import channels
from sidejob.openapi.operations import COLLAB, FUNCTIONS
from tests.end_to_end.rights import ACTORS, ASKED, READ, TOPICS, WRITE, Right, Scene
from tests.realtime.sockets import Socket
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
    return stack.sign_in(USERS[name])


USERS = {
    "member": "DEMO", "stranger": "OTHER", "viewer": "VIEWER", "owner": "OWNER", "worker": "WORKER2",
    "colleague": "WORKER", "foreign": "FOREIGN",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def foreign_worker(stack: Stack) -> None:
    """A worker of the stranger's workspace, with a sign-in of his own."""
    url, name = stack.env["SUPABASE_URL"], f"foreign-{uuid.uuid4()}"
    sign_in = {"email": f"{name}@example.com", "password": str(uuid.uuid4())}
    key = {"apikey": stack.env["SUPABASE_SECRET_KEY"]}
    made = stack.http.post(f"{url}/auth/v1/admin/users", headers=key, json={**sign_in, "email_confirm": True})
    stack.sql.execute(
        "insert into public.workspace_members (workspace_id, user_id, role, worker_id)"
        " select m.workspace_id, %s, 'worker', %s from public.workspace_members m join auth.users u on u.id = m.user_id"
        " where u.email = %s",
        [made.json()["id"], name, stack.env["OTHER_EMAIL"]],
    )
    key = {"apikey": stack.env["SUPABASE_PUBLISHABLE_KEY"]}
    session = stack.http.post(f"{url}/auth/v1/token?grant_type=password", headers=key, json=sign_in)
    stack._tokens["FOREIGN"] = session.json()["access_token"]


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
    earlier = ended_artifact(stack, worker, f"{executor_id}-earlier")
    home = stack.env["DEMO_WORKSPACE_ID"]
    stack.sql.execute(
        "insert into public.job_limits (workspace_id, executor_id, max_running) values (%s, %s, 1000)",
        [home, executor_id],
    )
    stack.sql.execute("insert into public.paused_executors values (%s, %s)", [home, f"{executor_id}-paused"])
    child = {"type": "test.rights", "executorId": f"{executor_id}-later", "dependsOn": [held]}
    done(member.post("task-assign", child))
    somebody = str(uuid.uuid4())
    stack.sql.execute(
        "insert into auth.users (id, email) values (%s, %s)", [somebody, f"{somebody}@example.com"]
    )
    stack.sql.execute(
        "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, 'viewer')",
        [home, somebody],
    )
    (empty,) = stack.sql.execute(
        "insert into public.workspaces (name) values (%s) returning id::text", [executor_id]
    ).fetchall()
    return Scene(
        home,
        queued,
        held,
        lease,
        found["id"],
        path,
        executor_id,
        agent_id,
        letter,
        empty["id"],
        somebody,
        earlier,
    )


def ended_artifact(stack: Stack, worker: Person, executor_id: str) -> str:
    done(stack.sign_in("DEMO").post("task-assign", {"type": "test.rights", "executorId": executor_id}))
    (job,) = worker.rest("POST", "rpc/claim_one_job", {"executor_id": executor_id}).json()
    path = f"{job['workspace_id']}/{DAY}/{job['id']}/1/a.txt"
    assert worker.upload(path, b"bytes", "text/plain").is_success
    lease = {"job_id": job["id"], "attempt": job["attempt"], "lease_token": job["lease_token"]}
    artifacts = [{"name": "a.txt", "size": 5, "path": path}]
    done(worker.rest("POST", "rpc/finish_job", {**lease, "ok": True, "artifacts": artifacts}))
    found = stack.sql.execute("select id::text from public.artifacts where path = %s", [path]).fetchone()
    assert found is not None
    return str(found["id"])


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
        assert answer.status_code in (400, 401, 403, 404, 406, 409), f"{answer.status_code} {answer.text}"
        return False
    if not answer.headers.get("content-type", "").startswith("application/json") or not answer.content:
        return True
    body: Any = answer.json()
    if isinstance(body, dict) and "counts" in body:
        return any(body["counts"].values())
    if isinstance(body, dict) and "claimed" in body:
        return any(body.values())
    if isinstance(body, dict):
        return body.get("items", True) != [] and body.get("job", True) is not None
    # finish_jobs tells each report that came too late by a status that is null.
    return body != [] and not (isinstance(body, list) and all(row.get("status", 0) is None for row in body))


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
  (select jsonb_agg(w order by w.id) from public.workspaces w) as workspaces,
  (select jsonb_agg(a) from public.artifacts a where a.job_id::text = %(held)s) as files,
  (select last_seen from public.worker_heartbeats_v2 where agent_id = %(agent_id)s) as last_seen,
  (select jsonb_agg(m order by m.user_id) from public.workspace_members m) as members
"""


def fingerprint(stack: Stack, scene: Scene) -> list[dict[str, Any]]:
    return stack.sql.execute(ALL_THAT_A_WRITE_COULD_CHANGE, vars(scene)).fetchall()


@pytest.mark.parametrize("right", READ, ids=str)
def test_reading(stack: Stack, shared_scene: Scene, right: Right) -> None:
    seen = "update public.worker_heartbeats_v2 set last_seen = clock_timestamp() where agent_id = %s"
    stack.sql.execute(seen, [shared_scene.agent_id])
    for who in ACTORS:
        answer = right.ask(actor(stack, who), shared_scene)
        assert granted(answer) == (who in right.who.split()), (
            f"{who}: {answer.status_code} {answer.text[:300]}"
        )


@pytest.mark.parametrize("right", [right for right in WRITE if right.who], ids=str)
def test_who_may_write_does(stack: Stack, right: Right) -> None:
    for who in right.who.split():
        answer = right.ask(actor(stack, who), make_scene(stack))
        assert granted(answer), f"{who}: {answer.status_code} {answer.text[:300]}"


@pytest.mark.parametrize("right", WRITE, ids=str)
def test_who_may_not_write_changes_nothing(stack: Stack, shared_scene: Scene, right: Right) -> None:
    before = fingerprint(stack, shared_scene)
    for who in ACTORS:
        if who not in right.who.split():
            answer = right.ask(actor(stack, who), shared_scene)
            assert not granted(answer), f"{who}: {answer.status_code} {answer.text[:300]}"
    assert fingerprint(stack, shared_scene) == before, "refused, and yet something was written"


PUBLIC_TABLES = """
select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm', 'p', 'f')"""
PUBLIC_FUNCTIONS = """
select distinct proname as name from pg_proc p where pronamespace = 'public'::regnamespace
  and (has_function_privilege('authenticated', p.oid, 'execute') or has_function_privilege('service_role', p.oid, 'execute'))"""


def test_every_table_function_and_route_there_is_has_its_lines(stack: Stack) -> None:
    wanted = {
        f"{method} {row['name']}"
        for row in stack.sql.execute(PUBLIC_TABLES).fetchall()
        for method in ("GET", "POST", "PATCH", "DELETE")
    }
    wanted |= {f"POST rpc/{row['name']}" for row in stack.sql.execute(PUBLIC_FUNCTIONS).fetchall()}
    for name in set(functions_in_repository()) - {"collab"}:
        wanted |= {f"{method.upper()} functions/{name}" for method in FUNCTIONS.get(name, {"post": None})}
    for path, methods in COLLAB.items():
        wanted |= {f"{method.upper()} collab/{re.sub('{[^}]*}', '{}', path)}" for method in methods}
    open_to_all = {"GET collab/health", "GET collab/openapi.json"}
    assert wanted - open_to_all - ASKED == set()


def test_the_private_schema_is_open_to_nobody(stack: Stack, shared_scene: Scene) -> None:
    tables = stack.sql.execute(
        "select c.relname as name, role, has_table_privilege(role, c.oid, 'select, insert, update, delete') as open from pg_class c,"
        " unnest('{anon,authenticated}'::text[]) as role where relnamespace = 'sidejob'::regnamespace and relkind in ('r', 'v')"
    ).fetchall()
    assert tables
    assert [row for row in tables if row["open"]] == []
    for who in ACTORS:
        asked = actor(stack, who).adding(accept_profile="sidejob", prefer="count=exact")
        for name in {row["name"] for row in tables}:
            assert not granted(asked.rest("GET", name, workspace_id=f"eq.{shared_scene.workspace_id}"))


def test_every_kind_of_topic_has_its_line() -> None:
    kinds = {topic.partition(":")[0] for topic in TOPICS}
    made = {make("x").partition(":")[0] for make in (channels.job, channels.agent)}
    made |= {channels.executor("x", "y").partition(":")[0], channels.SYSTEM_EVENTS.partition(":")[0]}
    older = {topic for group in channels.CHANNELS.values() for topic in group.values()}
    assert kinds == made | older


@pytest.mark.parametrize("who", ACTORS)
def test_topics(stack: Stack, shared_scene: Scene, who: str) -> None:
    """Joining is hearing; a broadcast that is acknowledged was spoken."""
    person = actor(stack, who)
    if who == "nobody":
        with pytest.raises(InvalidStatus):
            Socket.open(stack.env["SUPABASE_URL"], "")
        return
    token = person.headers.get("Authorization", "").removeprefix("Bearer ") or None
    heard: dict[str, bool] = {}
    spoken: dict[str, bool] = {}
    with Socket.open(stack.env["SUPABASE_URL"], stack.env["SUPABASE_PUBLISHABLE_KEY"]) as socket:
        for topic in TOPICS:
            name = topic.format(**vars(shared_scene))
            reply = socket.join(name, token, private=True, broadcast={"ack": True})
            heard[topic] = reply.payload["status"] == "ok"
            if heard[topic]:
                said = {"type": "broadcast", "event": "job.succeeded", "payload": {"seq": 9}}
                spoken[topic] = socket.reply(f"realtime:{name}", "broadcast", said)["status"] == "ok"
    assert {topic for topic, yes in heard.items() if yes} == {
        topic for topic, (hears, _) in TOPICS.items() if who in hears.split()
    }
    assert {topic for topic, yes in spoken.items() if yes} == {
        topic for topic, (_, speaks) in TOPICS.items() if who in speaks.split()
    }


def test_a_worker_sweeps_his_own_workspace_alone(stack: Stack) -> None:
    scene = make_scene(stack)
    stack.sql.execute(
        "update public.jobs set lease_until = now() - interval '1 hour' where id = %s", [scene.held]
    )
    foreign = actor(stack, "foreign")
    for sweep in ("release_expired_leases", "settle_dependencies", "tend_queue", "remove_old_jobs"):
        assert foreign.rest("POST", f"rpc/{sweep}", {}).is_success
    done(foreign.post("leases-release", {}))
    (job,) = stack.sql.execute("select status from public.jobs where id = %s", [scene.held]).fetchall()
    assert job["status"] == "assigned"


def test_no_response_holds_the_secret_key_or_a_lease_token(stack: Stack, shared_scene: Scene) -> None:
    for right in READ:
        for who in ACTORS:
            text = right.ask(actor(stack, who), shared_scene).text
            assert stack.env["SUPABASE_SECRET_KEY"] not in text
            assert str(shared_scene.lease["lease_token"]) not in text
