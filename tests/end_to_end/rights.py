"""Who may do what: the one table, as requests. A new table, function or Storage path gets its lines here."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import jwt

from sidejob import channels
from tests.stack import Person

# nobody: not even the publishable key; anon: that key, and no more. worker: holds the lease of the scene's job; colleague: another
# worker of the workspace; foreign: a worker of another one.
ACTORS = (
    "nobody",
    "anon",
    "stranger",
    "viewer",
    "member",
    "owner",
    "worker",
    "colleague",
    "foreign",
    "secret",
)
PEOPLE = "viewer member owner worker colleague"  # whoever is in the workspace; functions know people only, no secret key
WORKERS = "worker colleague"
ANY_WORKER = "worker colleague foreign"  # each for his own workspace
ASKED: set[str] = (
    set()
)  # "GET jobs", "POST rpc/enqueue_job", "POST functions/task-assign", "GET collab/job/{}", "hear agents:"


@dataclass(frozen=True)
class Scene:
    """A workspace with something of everything in it: a job that waits, one that a worker holds, a dead letter, a file."""

    workspace_id: str
    queued: str
    held: str
    lease: dict[
        str, object
    ]  # job_id, attempt, lease_token of the held job, which every actor here happens to know
    artifact_id: str
    path: str
    executor_id: str
    agent_id: str
    letter: int
    other_workspace_id: str  # an empty one
    somebody: str  # a viewer whom an owner may change
    earlier: str  # an artifact of a job that has ended

    def lease_of_functions(self) -> dict[str, object]:
        return {"jobId": self.held, "attempt": self.lease["attempt"], "leaseToken": self.lease["lease_token"]}

    def folder(self) -> str:
        return self.path.rsplit("/", 1)[0]


Ask = Callable[[Person, Scene], httpx.Response]


@dataclass(frozen=True)
class Right:
    what: str
    ask: Ask
    who: str  # actors who may, separated by spaces

    def __str__(self) -> str:
        return self.what


def rest(method: str, path: str, body: Callable[[Scene], object] | None = None, **query: str) -> Ask:
    """A request to PostgREST; `{name}` in a query value is the scene's."""
    ASKED.add(f"{method} {path}")

    def ask(who: Person, scene: Scene) -> httpx.Response:
        return who.rest(
            method,
            path,
            body(scene) if body else None,
            **{k: v.format(**vars(scene)) for k, v in query.items()},
        )

    return ask


def change(method: str, path: str, body: Callable[[Scene], object] | None = None, **query: str) -> Ask:
    """A PATCH or DELETE that answers with the rows it reached: none, where a policy hid them."""
    request = rest(method, path, body, **query)
    return lambda who, scene: request(who.adding(prefer="return=representation"), scene)


def rpc(name: str, arguments: Callable[[Scene], object] = lambda _: {}) -> Ask:
    return rest("POST", f"rpc/{name}", arguments)


def get(function: str, **query: str) -> Ask:
    ASKED.add(f"GET functions/{function}")
    return lambda who, scene: who.get(function, **{k: v.format(**vars(scene)) for k, v in query.items()})


def follow(job_id: str) -> Ask:
    """A stream, which is left as soon as it has begun."""
    ASKED.add("GET functions/job-events")

    def ask(who: Person, scene: Scene) -> httpx.Response:
        url = f"{who.stack.env['FUNCTIONS_URL']}/job-events?id={job_id.format(**vars(scene))}"
        with who.stack.http.stream("GET", url, headers=who.headers) as answer:
            if answer.status_code != 200:
                answer.read()
                return answer
            return httpx.Response(200, text=next(answer.iter_text()))

    return ask


def post(function: str, body: Callable[[Scene], object]) -> Ask:
    ASKED.add(f"POST functions/{function}")
    return lambda who, scene: who.post(function, body(scene))


def collab(path: str, body: Callable[[Scene], object] | None = None) -> Ask:
    ASKED.add(f"{'POST' if body else 'GET'} collab/{re.sub('{[^}]*}', '{}', path.partition('?')[0])}")
    return lambda who, scene: who.collab(path.format(**vars(scene)), body(scene) if body else None)


def storage(method: str, path: str, body: Callable[[Scene], object] | None = None) -> Ask:
    """A request to Storage; `{path}` is the object's, `{folder}` its folder."""

    def ask(who: Person, scene: Scene) -> httpx.Response:
        url = f"{who.stack.env['SUPABASE_URL']}/storage/v1/{path.format(path=scene.path, folder=scene.folder())}"
        headers = {"apikey": who.stack.env["SUPABASE_PUBLISHABLE_KEY"], **who.headers}
        return who.stack.http.request(method, url, json=body(scene) if body else None, headers=headers)

    return ask


def upload(path: Callable[[Scene], str]) -> Ask:
    return lambda who, scene: who.upload(path(scene), b"bytes", "text/plain")


def raise_oneself(change_of: dict[str, object]) -> Ask:
    """The caller changes his own membership; who has none changes nothing."""
    ASKED.add("PATCH workspace_members")

    def ask(who: Person, scene: Scene) -> httpx.Response:
        mine = (
            jwt.decode(who.token, options={"verify_signature": False})["sub"]
            if "Authorization" in who.headers
            else uuid.uuid4()
        )
        person = who.adding(prefer="return=representation")
        return person.rest(
            "PATCH",
            "workspace_members",
            change_of,
            user_id=f"eq.{mine}",
            workspace_id=f"eq.{scene.workspace_id}",
        )

    return ask


def new_job(scene: Scene) -> dict[str, object]:
    return {"workspace_id": scene.workspace_id, "type": "test.rights", "executor_id": scene.executor_id}


def a_result(scene: Scene) -> dict[str, object]:
    return {**scene.lease_of_functions(), "ok": True, "result": {}}


# fmt: off
READ = [
    Right("read jobs", rest("GET", "jobs", id="eq.{queued}"), f"{PEOPLE} secret"),
    Right("read events", rest("GET", "job_events", job_id="eq.{queued}"), f"{PEOPLE} secret"),
    Right("read artifacts", rest("GET", "artifacts", job_id="eq.{held}"), f"{PEOPLE} secret"),
    Right("read heartbeats", rest("GET", "worker_heartbeats_v2", agent_id="eq.{agent_id}"), f"{PEOPLE} secret"),
    Right("read dead letters", rest("GET", "dead_letters", workspace_id="eq.{workspace_id}", limit="1"), "member owner secret"),
    Right("read the audit log", rest("GET", "audit_log", workspace_id="eq.{workspace_id}", limit="1"), "member owner secret"),
    Right("read schedules", rest("GET", "schedules", name="eq.{executor_id}"), f"{PEOPLE} secret"),
    Right("see the workspace", rest("GET", "workspaces", id="eq.{workspace_id}"), f"{PEOPLE} secret"),
    Right("see who the owners are", rest("GET", "workspace_members", workspace_id="eq.{workspace_id}", role="eq.owner"), "owner secret"),
    Right("list jobs by RPC", rpc("recent_jobs", lambda s: {"executor_id": s.executor_id}), f"{PEOPLE} secret"),
    Right("read limits", rest("GET", "job_limits", workspace_id="eq.{workspace_id}"), f"{PEOPLE} secret"),
    Right("read pauses", rest("GET", "paused_executors", workspace_id="eq.{workspace_id}"), f"{PEOPLE} secret"),
    Right("read dependencies", rest("GET", "job_dependencies", workspace_id="eq.{workspace_id}"), f"{PEOPLE} secret"),
    Right("list dead letters by RPC", rpc("recent_dead_letters", lambda _: {"page_size": 1}), "member owner secret"),
    Right("dlq-list", get("dlq-list", limit="1"), "member owner"),
    Right("queue_depth", rpc("queue_depth", lambda s: {"executor_id": s.executor_id}), f"{PEOPLE} secret"),
    Right("list workers by RPC", rpc("active_workers"), f"{PEOPLE} secret"),
    Right("jobs-recent", get("jobs-recent", executorId="{executor_id}"), PEOPLE),
    Right("job-events", follow("{queued}"), PEOPLE),
    Right("metrics by RPC", rpc("metrics_overview"), f"{PEOPLE} secret"),
    Right("job-status", get("job-status", id="{queued}"), PEOPLE),
    Right("artifacts-list", get("artifacts-list", jobId="{held}"), PEOPLE),
    Right("sign-artifact by id", get("sign-artifact", artifactId="{artifact_id}"), PEOPLE),
    Right("sign-artifact by path", post("sign-artifact", lambda s: {"bucket": "artifacts", "path": s.path}), PEOPLE),
    Right("workers-active", get("workers-active"), PEOPLE),
    Right("metrics-overview", get("metrics-overview"), PEOPLE),
    Right("Collab: recent jobs", collab("jobs/recent?executorId={executor_id}"), PEOPLE),
    Right("Collab: a job", collab("job/{queued}"), PEOPLE),
    Right("Collab: a job's summary", collab("job/{queued}/summary"), PEOPLE),
    Right("Collab: artifacts", collab("artifacts/by-job/{held}"), PEOPLE),
    Right("Collab: events", collab("events/by-job/{queued}"), PEOPLE),
    Right("Collab: metrics", collab("metrics/overview"), PEOPLE),
    Right("Collab: workers", collab("workers/active"), PEOPLE),
    Right("fetch a stored file", storage("GET", "object/authenticated/artifacts/{path}"), f"{PEOPLE} secret"),
    Right("sign a stored file", storage("POST", "object/sign/artifacts/{path}", lambda _: {"expiresIn": 60}), f"{PEOPLE} secret"),
    Right("list stored files", storage("POST", "object/list/artifacts", lambda s: {"prefix": s.folder()}), f"{PEOPLE} secret"),
]

WRITE = [
    Right("insert a job", rest("POST", "jobs", new_job), "member owner secret"),
    Right("enqueue_job", rpc("enqueue_job", new_job), "member owner secret"),
    Right("task-assign", post("task-assign", lambda s: {"type": "test.rights", "executorId": s.executor_id, "workspaceId": s.workspace_id}), "member owner"),
    Right("Collab: task.assign", collab("task.assign", lambda s: {"type": "test.rights", "executorId": s.executor_id, "workspaceId": s.workspace_id}), "member owner"),
    Right("cancel_job", rpc("cancel_job", lambda s: {"job_id": s.queued}), "member owner secret"),
    Right("job-cancel", post("job-cancel", lambda s: {"jobId": s.queued}), "member owner"),
    Right("claim_one_job", rpc("claim_one_job", lambda s: {"executor_id": s.executor_id}), WORKERS),
    Right("claim_jobs", rpc("claim_jobs", lambda s: {"executor_id": s.executor_id, "max_jobs": 5}), WORKERS),
    Right("task-claim", post("task-claim", lambda s: {"executorId": s.executor_id}), WORKERS),
    Right("Collab: task.claim", collab("task.claim", lambda s: {"executorId": s.executor_id}), WORKERS),
    Right("start_job", rpc("start_job", lambda s: s.lease), "worker"),
    Right("renew_lease", rpc("renew_lease", lambda s: s.lease), "worker"),
    Right("report_progress", rpc("report_progress", lambda s: {**s.lease, "progress": {"n": 1}}), "worker"),
    Right("release_job", rpc("release_job", lambda s: s.lease), "worker"),
    Right("finish_job", rpc("finish_job", lambda s: {**s.lease, "ok": True}), "worker"),
    Right("task-result", post("task-result", a_result), "worker"),
    Right("Collab: task.result", collab("task.result", a_result), "worker"),
    Right("record an artifact", rest("POST", "artifacts", lambda s: {"job_id": s.held, "name": "b.txt", "size": 5, "path": f"{s.folder()}/b.txt"}), "worker"),
    Right("share an earlier job's file", rpc("finish_job", lambda s: {**s.lease, "ok": True, "artifacts": [{"name": "b.txt", "same_as": s.earlier}]}), "worker"),
    Right("share an earlier job's file by function", post("task-result", lambda s: {**a_result(s), "artifact": {"name": "b.txt", "sameAs": s.earlier}}), "worker"),
    Right("record an earlier job's file by hand", rest("POST", "artifacts", lambda s: {"job_id": s.held, "name": "b.txt", "size": 5, "path": s.path, "same_as": s.earlier}), ""),
    Right("store a file under the lease", upload(lambda s: f"{s.folder()}/b.txt"), "worker secret"),
    Right("store a file under another job", upload(lambda s: s.path.replace(s.held, s.queued)), "secret"),
    Right("store a file under no job", upload(lambda s: f"{s.workspace_id}/{uuid.uuid4()}.txt"), "secret"),
    Right("delete a stored file", storage("DELETE", "object/artifacts", lambda s: {"prefixes": [s.path]}), "secret"),
    Right("worker_heartbeat", rpc("worker_heartbeat", lambda s: {"agent_id": s.agent_id}), "worker"),
    Right("worker-heartbeat", post("worker-heartbeat", lambda s: {"agentId": s.agent_id, "executorId": s.executor_id, "status": "idle"}), "worker"),
    Right("Collab: heartbeat", collab("workers/heartbeat", lambda s: {"agentId": s.agent_id, "executorId": s.executor_id, "status": "idle"}), "worker"),
    Right("finish_jobs", rpc("finish_jobs", lambda s: {"reports": [{**s.lease, "ok": True}]}), "worker"),
    Right("finish_and_claim", rpc("finish_and_claim", lambda s: {"executor_id": s.executor_id}), WORKERS),
    Right("enqueue_jobs", rpc("enqueue_jobs", lambda s: {"jobs": [{"type": "test.rights", "executor_id": s.executor_id}], "workspace_id": s.workspace_id}), "member owner secret"),
    Right("retry_dead_letter", rpc("retry_dead_letter", lambda s: {"id": s.letter}), "member owner secret"),
    Right("dlq-retry", post("dlq-retry", lambda s: {"dlqId": s.letter}), "member owner"),
    Right("discard_dead_letter", rpc("discard_dead_letter", lambda s: {"id": s.letter}), "member owner secret"),
    Right("dlq-discard", post("dlq-discard", lambda s: {"dlqId": s.letter}), "member owner"),
    Right("set a limit", rest("POST", "job_limits", lambda s: {"workspace_id": s.workspace_id, "executor_id": s.executor_id, "type_prefix": str(uuid.uuid4()), "max_running": 9}), "owner secret"),
    Right("pause_executor", rpc("pause_executor", lambda s: {"executor_id": s.executor_id, "workspace_id": s.workspace_id}), "owner secret"),
    Right("resume_executor", rpc("resume_executor", lambda s: {"executor_id": s.executor_id, "workspace_id": s.workspace_id}), "owner secret"),
    Right("write a dependency", rest("POST", "job_dependencies", lambda s: {"job_id": s.queued, "parent_id": s.held, "workspace_id": s.workspace_id, "on_parent_failure": "run"}), ""),
    Right("remove_old_jobs", rpc("remove_old_jobs"), f"{ANY_WORKER} secret"),
    Right("objects_to_sweep", rpc("objects_to_sweep"), f"{ANY_WORKER} secret"),
    Right("artifacts-sweep", post("artifacts-sweep", lambda _: {"after": "~"}), f"{ANY_WORKER} secret"),
    Right("tend_queue", rpc("tend_queue"), f"{ANY_WORKER} secret"),
    Right("release_expired_leases", rpc("release_expired_leases"), f"{ANY_WORKER} secret"),
    Right("settle_dependencies", rpc("settle_dependencies"), f"{ANY_WORKER} secret"),
    Right("remove_leftovers", rpc("remove_leftovers"), f"{ANY_WORKER} secret"),
    Right("begin_object_sweep", rpc("begin_object_sweep"), f"{ANY_WORKER} secret"),
    Right("leases-release", post("leases-release", lambda _: {}), f"{ANY_WORKER} secret"),
    Right("make a schedule", rest("POST", "schedules", lambda s: {"workspace_id": s.workspace_id, "name": s.agent_id, "cron": "@yearly", "type": "test.rights", "enabled": False}), "owner secret"),
    Right("change a schedule", change("PATCH", "schedules", lambda _: {"priority": 1}, name="eq.{executor_id}"), "owner secret"),
    Right("remove a schedule", change("DELETE", "schedules", name="eq.{executor_id}"), "owner secret"),
    Right("say when a schedule runs next", change("PATCH", "schedules", lambda _: {"next_run_at": "2026-01-01T00:00:00Z"}, name="eq.{executor_id}"), "secret"),
    Right("run_schedules", rpc("run_schedules"), f"{ANY_WORKER} secret"),
    Right("add a viewer", rest("POST", "workspace_members", lambda s: {"workspace_id": s.workspace_id, "user_id": s.agent_id, "role": "viewer"}), "owner secret"),
    Right("add a worker", rest("POST", "workspace_members", lambda s: {"workspace_id": s.workspace_id, "user_id": s.agent_id, "role": "worker", "worker_id": s.agent_id}), "secret"),
    Right("make a workspace", rest("POST", "workspaces", lambda _: {"name": "mine"}), "secret"),
    Right("choose a default workspace", rpc("set_default_workspace", lambda s: {"workspace_id": s.workspace_id}), PEOPLE),
    Right("update a job by hand", rest("PATCH", "jobs", lambda _: {"status": "succeeded"}, id="eq.{held}"), "" ),
    Right("delete a job", rest("DELETE", "jobs", id="eq.{queued}"), ""),
    Right("write an event", rest("POST", "job_events", lambda s: {"job_id": s.queued, "workspace_id": s.workspace_id, "seq": 2, "event_type": "job.failed", "attempt": 0}), ""),
    Right("write a dead letter", rest("POST", "dead_letters", lambda s: {"job_id": s.queued, "workspace_id": s.workspace_id, "reason": "gave_up", "payload": {}}), ""),
    Right("write a heartbeat row", rest("POST", "worker_heartbeats_v2", lambda s: {"worker_id": "x", "agent_id": s.agent_id + "x", "workspace_id": s.workspace_id}), ""),
    Right("write the audit log", rest("POST", "audit_log", lambda s: {"workspace_id": s.workspace_id, "actor_role": "x", "action": "x", "subject": {}}), ""),
    Right("clean the audit log", rest("DELETE", "audit_log", workspace_id="eq.{workspace_id}"), ""),
    Right("delete artifacts", rest("DELETE", "artifacts", job_id="eq.{held}"), ""),
]

# What nobody may do over REST, or owners alone, so that each table has its line for each method.
WRITE += [
    Right("change an event", change("PATCH", "job_events", lambda _: {"payload": {}}, job_id="eq.{queued}"), ""),
    Right("delete events", change("DELETE", "job_events", job_id="eq.{queued}"), ""),
    Right("change an artifact", change("PATCH", "artifacts", lambda _: {"name": "c.txt"}, job_id="eq.{held}"), ""),
    Right("change a heartbeat row", change("PATCH", "worker_heartbeats_v2", lambda _: {"status": "idle"}, agent_id="eq.{agent_id}"), ""),
    Right("delete a heartbeat row", change("DELETE", "worker_heartbeats_v2", agent_id="eq.{agent_id}"), ""),
    Right("change a dead letter", change("PATCH", "dead_letters", lambda _: {"reason": "gave_up"}, id="eq.{letter}"), ""),
    Right("delete a dead letter", change("DELETE", "dead_letters", id="eq.{letter}"), ""),
    Right("change the audit log", change("PATCH", "audit_log", lambda _: {"action": "x"}, workspace_id="eq.{workspace_id}"), ""),
    Right("rename the workspace", change("PATCH", "workspaces", lambda _: {"name": "renamed"}, id="eq.{workspace_id}"), "owner secret"),
    Right("delete the workspace", change("DELETE", "workspaces", id="eq.{other_workspace_id}"), "secret"),
    Right("change a member's role", change("PATCH", "workspace_members", lambda _: {"role": "member"}, user_id="eq.{somebody}"), "owner secret"),
    Right("remove a member", change("DELETE", "workspace_members", user_id="eq.{somebody}"), "owner secret"),
    Right("make oneself an owner", raise_oneself({"role": "owner"}), "owner"),
    Right("make oneself a worker", raise_oneself({"role": "worker", "worker_id": "mine"}), ""),
    Right("move oneself to another workspace", raise_oneself({"workspace_id": str(uuid.uuid4())}), ""),
    Right("change a dependency", change("PATCH", "job_dependencies", lambda _: {"on_parent_failure": "run"}, parent_id="eq.{held}"), ""),
    Right("delete a dependency", change("DELETE", "job_dependencies", parent_id="eq.{held}"), ""),
    Right("change a limit", change("PATCH", "job_limits", lambda _: {"max_running": 8}, executor_id="eq.{executor_id}"), "owner secret"),
    Right("remove a limit", change("DELETE", "job_limits", executor_id="eq.{executor_id}"), "owner secret"),
    Right("write a pause", rest("POST", "paused_executors", lambda s: {"workspace_id": s.workspace_id, "executor_id": s.agent_id}), ""),
    Right("change a pause", change("PATCH", "paused_executors", lambda _: {"executor_id": "x"}, executor_id="eq.{executor_id}-paused"), ""),
    Right("delete a pause", change("DELETE", "paused_executors", executor_id="eq.{executor_id}-paused"), ""),
    Right("overwrite a stored file", storage("PUT", "object/artifacts/{path}", lambda _: {}), "worker secret"),
    Right("move a stored file", storage("POST", "object/move", lambda s: {"bucketId": "artifacts", "sourceKey": s.path, "destinationKey": f"{s.workspace_id}/{uuid.uuid4()}.txt"}), "secret"),
    Right("copy a stored file out of its folder", storage("POST", "object/copy", lambda s: {"bucketId": "artifacts", "sourceKey": s.path, "destinationKey": f"{s.workspace_id}/{uuid.uuid4()}.txt"}), "secret"),
]
# fmt: on

SOMEBODY = f"{PEOPLE} stranger foreign"  # who is a member of any workspace
# Topic -> who hears it, and who speaks on it.
TOPICS: dict[str, tuple[str, str]] = {
    "jobs:{queued}": (PEOPLE, ""),
    "agents:{agent_id}": (PEOPLE, "worker"),
    "executors:{workspace_id}:{executor_id}": (WORKERS, ""),
    channels.SYSTEM_EVENTS: (SOMEBODY, ""),
    **{topic: (SOMEBODY, "") for group in channels.CHANNELS.values() for topic in group.values()},
}
