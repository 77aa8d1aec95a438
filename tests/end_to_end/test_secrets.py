"""No secret leaves its place: not in a log, not in a row that others may read."""

import os
import re
from pathlib import Path

from tests.stack import Person, Stack, done


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
    logs = list((Path(os.environ["SIDEJOB_TEST_ENV"]).parent / "logs").glob("*.log"))
    assert len(logs) > 15
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [name for name, value in secrets.items() if value in text], log.name
        assert not re.search(r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.", text), f"{log.name} has a token"
