"""What the project's owner wrote down must work as written: his shell loop, his payloads, his flow with curl alone."""

import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping

import pytest

from tests.stack import Person, Stack, done

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="the documents' commands need curl and jq"
)

PAGING_LOOP = """
BASE="http://localhost:3100/api/collab/jobs/recent?limit=5&executorId=verify-demo"
CUR=$(curl -sS -H "Authorization: Bearer $TOKEN" "$BASE" | jq -r '.nextCursor')
while [ "$CUR" != "null" ] && [ -n "$CUR" ]; do
  RESP=$(curl -sS -H "Authorization: Bearer $TOKEN" "$BASE&cursor=$CUR")
  echo "$RESP" | jq '.items | length'
  CUR=$(echo "$RESP" | jq -r '.nextCursor')
done
"""


def shell(script: str, variables: Mapping[str, str]) -> str:
    """What the script prints. Any failing command ends it, and the test."""
    path = "/usr/local/bin:/usr/bin:/bin"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def at_home(script: str, stack: Stack, executor: str) -> str:
    """The documents' addresses and names, put in the place of this stack's."""
    port = stack.env["COLLAB_URL"].split(":")[2].split("/")[0]
    return script.replace("localhost:3100", f"localhost:{port}").replace("verify-demo", executor)


@pytest.mark.parametrize("tied", [0, 12, 23], ids="{} of 23 jobs share one created_at".format)
def test_the_paging_loop_sees_every_job_once(stack: Stack, member: Person, executor: str, tied: int) -> None:
    for _ in range(23):
        done(member.post("task-assign", {"type": "test.page", "executorId": executor}))
    stack.sql.execute(
        "update public.jobs set created_at = date_trunc('hour', now()) where id in"
        " (select id from public.jobs where executor_id = %s order by id limit %s)",
        [executor, tied],
    )
    script = at_home(PAGING_LOOP, stack, executor)
    assert shell(script, {"TOKEN": member.token}).split() == ["5", "5", "5", "3"], "the pages after the first"

    ids = shell(script.replace("jq '.items | length'", "jq -c '[.items[].id]'"), {"TOKEN": member.token})
    first = member.collab(f"jobs/recent?limit=5&executorId={executor}").json()
    seen = [job["id"] for job in first["items"]] + [job for page in ids.split() for job in json.loads(page)]
    assert (len(seen), len(set(seen))) == (23, 23)
    assert first["count"] == 5


def test_the_owners_insert_and_assign_payloads_are_taken_as_they_are(member: Person) -> None:
    insert = '{"id":"<uuid>","type":"browser.screenshot","status":"queued","executor_id":"default","payload":{"url":"https://supabase.com"}}'
    assign = '{"jobId":"<uuid>","type":"browser.screenshot","payload":{"url":"https://supabase.com"}}'
    # On an executor of the test's own: the machine may have no way to supabase.com.
    executor = f"test-{uuid.uuid4()}"
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    row = json.loads(insert.replace("<uuid>", first).replace('"default"', f'"{executor}"'))
    assert member.rest("POST", "jobs", row).status_code == 201
    body = {**json.loads(assign.replace("<uuid>", second)), "executorId": executor}
    assert done(member.collab("task.assign", body)) == {"jobId": second, "queued": True, "status": "queued"}
    listed = done(member.get("jobs-recent", executorId=executor, fields="id,payload"))["items"]
    assert [job["id"] for job in listed] == [second, first]
    assert [job["payload"] for job in listed] == [{"url": "https://supabase.com"}] * 2


FLOW = """
sign_in() {
  curl -sS --fail-with-body -H "apikey: $SUPABASE_PUBLISHABLE_KEY" -H 'Content-Type: application/json' \
    -d "{\\"email\\":\\"$1\\",\\"password\\":\\"$2\\"}" "$SUPABASE_URL/auth/v1/token?grant_type=password" | jq -r .access_token
}
MEMBER=$(sign_in "$DEMO_EMAIL" "$DEMO_PASSWORD")
WORKER=$(sign_in "$WORKER2_EMAIL" "$WORKER2_PASSWORD")
as_member() { curl -sS --fail-with-body -H "apikey: $SUPABASE_PUBLISHABLE_KEY" -H "Authorization: Bearer $MEMBER" -H 'Content-Type: application/json' "$@"; }
as_worker() { curl -sS --fail-with-body -H "apikey: $SUPABASE_PUBLISHABLE_KEY" -H "Authorization: Bearer $WORKER" "$@"; }

as_member "$SUPABASE_URL/rest/v1/jobs" -d "{\\"id\\":\\"$JOB\\",\\"type\\":\\"browser.screenshot\\",\\"status\\":\\"queued\\",\\"executor_id\\":\\"$EXECUTOR\\",\\"payload\\":{\\"url\\":\\"https://supabase.com\\"}}"
LEASE=$(as_worker -H 'Content-Type: application/json' "$SUPABASE_URL/rest/v1/rpc/claim_one_job" -d "{\\"executor_id\\":\\"$EXECUTOR\\"}")
[ "$(echo "$LEASE" | jq -r '.[0].id')" = "$JOB" ]
FILE="$(echo "$LEASE" | jq -r '.[0].workspace_id')/$(date -u +%Y/%m/%d)/$JOB/$(echo "$LEASE" | jq -r '.[0].attempts')/screenshot.png"
printf 'not quite a picture' | as_worker -X POST -H 'Content-Type: image/png' --data-binary @- "$SUPABASE_URL/storage/v1/object/artifacts/$FILE" >&2
as_worker -H 'Content-Type: application/json' "$FUNCTIONS_URL/task-result" -d "$(echo "$LEASE" | jq -c --arg file "$FILE" \
  '.[0] | {jobId: .id, attempt: .attempts, leaseToken: .lease_token, ok: true, action: "screenshot", url: "https://supabase.com",
           artifact: {name: "screenshot.png", mime: "image/png", size: 19, path: $file}}')" >&2
ARTIFACT=$(as_member "$FUNCTIONS_URL/artifacts-list?jobId=$JOB" | jq -r '.items[0].id')
URL=$(as_member "$FUNCTIONS_URL/sign-artifact" -d "{\\"artifactId\\":\\"$ARTIFACT\\"}" | jq -r .url)
curl -sS --fail-with-body "$URL"
"""


def test_the_whole_flow_works_with_curl_alone(stack: Stack, member: Person, executor: str) -> None:
    job_id = str(uuid.uuid4())
    names = ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "FUNCTIONS_URL")
    people = ("DEMO_EMAIL", "DEMO_PASSWORD", "WORKER2_EMAIL", "WORKER2_PASSWORD")
    fetched = shell(
        FLOW, {"JOB": job_id, "EXECUTOR": executor, **{name: stack.env[name] for name in names + people}}
    )
    assert fetched == "not quite a picture"
    status = done(member.get("job-status", id=job_id))
    assert [event["event_type"] for event in status["events"]] == [
        "job.queued",
        "job.claimed",
        "job.succeeded",
    ]
    assert [event["seq"] for event in status["events"]] == [1, 2, 3]
    assert status["job"]["result"] == {"action": "screenshot", "url": "https://supabase.com"}


def test_an_older_workers_result_is_taken_from_the_holder_of_the_lease(
    stack: Stack, member: Person, worker: Person, other_worker: Person, executor: str
) -> None:
    report = (
        '{"ok":true,"action":"screenshot","url":"https://supabase.com","artifact":{"name":"screenshot.png","size":744734,'
        '"url":"<signed-url>"},"artifactRecorded":true,"jobId":"<uuid>"}'
    )
    job_id = done(member.post("task-assign", {"type": "browser.screenshot", "executorId": executor}))["jobId"]
    signed = f"{stack.env['SUPABASE_URL']}/storage/v1/object/sign/artifacts/x.png?token=secret"
    body = json.loads(report.replace("<uuid>", job_id).replace("<signed-url>", signed))
    assert worker.post("task-result", body).status_code == 409, "nobody holds the lease yet"
    worker.rest("POST", "rpc/claim_one_job", {"executor_id": executor})
    assert other_worker.post("task-result", body).status_code == 409
    assert done(worker.post("task-result", body)) == {"ok": True, "jobId": job_id, "status": "succeeded"}
    assert done(worker.post("task-result", body))["status"] == "succeeded", "a repeat is no second result"
    assert done(member.get("artifacts-list", jobId=job_id))["items"] == [], "artifactRecorded adds no row"
    kept = member.rest("GET", "jobs", id=f"eq.{job_id}").text
    assert "token=secret" not in kept
