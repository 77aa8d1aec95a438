"""A file that several jobs share: who may share it, and how long it stays."""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.database.callers import Caller, Row, Workspace, lease
from tests.database.test_tending import put, sweepable

FILE = {"mime": "image/png", "size": 3, "sha256": "0" * 64, "width": 4, "height": 5}


def made(workspace: Workspace, worker: Caller | None = None, days: float = 0.1) -> Row:
    """The artifact of a job that ended so many days ago, its file in Storage."""
    worker = worker or workspace.worker
    job_id = workspace.enqueue()
    path = put(workspace.server, f"{workspace.id}/2026/11/25/{job_id}/1/a.png")
    entry = {"name": "a.png", "path": path, **FILE}
    worker.call("finish_job", **lease(worker.claim()), ok=True, artifacts=[entry])
    row = only(workspace, job_id)
    age(workspace, job_id, days)
    return row


def age(workspace: Workspace, job_id: object, days: float) -> None:
    ago = timedelta(days=days)
    workspace.server.run("update public.jobs set finished_at = now() - %s where id = %s", ago, job_id)


def only(workspace: Workspace, job_id: object) -> Row:
    (row,) = workspace.server.rows("select * from public.artifacts where job_id = %s", job_id)
    return row


def entry(artifact: Row, **more: Any) -> dict[str, Any]:
    return {"name": "again.png", "same_as": str(artifact["id"]), **more}


def shared(workspace: Workspace, artifact: Row) -> Row:
    """The artifact of a job that shares this one's file."""
    job_id = workspace.enqueue()
    workspace.worker.call(
        "finish_job", **lease(workspace.worker.claim()), ok=True, artifacts=[entry(artifact)]
    )
    return only(workspace, job_id)


def delete(server: Caller, paths: list[str]) -> None:
    """As Storage does it."""
    server.run("set storage.allow_delete_query = 'true'")
    server.run("delete from storage.objects where name = any(%s)", paths)


def remove_old(workspace: Workspace) -> int:
    return int(workspace.worker.rpc("remove_old_jobs")[0]["remove_old_jobs"])


def test_a_shared_file_is_the_first_ones_whoever_is_named(workspace: Workspace) -> None:
    first = made(workspace)
    second = shared(workspace, first)
    age(workspace, second["job_id"], 0.1)
    third = shared(workspace, second)
    same = ("path", "bucket", "workspace_id", *FILE)
    for row, source in ((second, first), (third, second)):
        assert [row[column] for column in same] == [first[column] for column in same]
        assert (row["name"], row["attempt"], row["same_as"]) == ("again.png", 1, source["id"])
    assert first["same_as"] is None
    (seen,) = workspace.viewer.rows("select id, same_as from public.artifacts where id = %s", third["id"])
    assert seen["same_as"] == second["id"]


def test_a_shared_file_stays_as_long_as_one_row_names_it(workspace: Workspace) -> None:
    first = made(workspace, days=31)
    second = shared(workspace, first)
    assert remove_old(workspace) == 1
    assert only(workspace, second["job_id"])["path"] == first["path"]
    assert first["path"] not in sweepable(workspace.worker, 1000)
    age(workspace, second["job_id"], 31)
    assert remove_old(workspace) == 1
    assert first["path"] in sweepable(workspace.worker, 1000)


def test_the_first_jobs_file_stays_when_the_later_job_goes(workspace: Workspace) -> None:
    first = made(workspace)
    second = shared(workspace, first)
    age(workspace, second["job_id"], 31)
    assert remove_old(workspace) == 1
    assert first["path"] not in sweepable(workspace.worker, 1000)


def reports(workspace: Workspace, given: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The same report in the words of all three calls that end attempts."""
    report = {**lease(workspace.worker.claim()), "ok": True, "artifacts": given}
    plain = {name: str(value) if name == "job_id" else value for name, value in report.items()}
    return [
        ("finish_job", report),
        ("finish_jobs", {"reports": [plain]}),
        ("finish_and_claim", {"reports": [plain], "max_jobs": 0}),
    ]


def test_what_is_gone_strange_or_not_ended_cannot_be_shared(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    """Nobody learns which of these it was. A worker of both workspaces shares within one of them alone."""
    workspace.server.run(
        "insert into public.workspace_members (workspace_id, user_id, role, worker_id) values (%s, %s, 'worker', %s)",
        other_workspace.id, workspace.worker.user_id, f"other-{workspace.worker.user_id}",
    )  # fmt: skip
    foreign = made(other_workspace)
    without_bytes = made(workspace)
    delete(workspace.server, [without_bytes["path"]])
    running = workspace.enqueue()
    workspace.worker.claim()
    workspace.worker.run(
        "insert into public.artifacts (job_id, name, size, path) values (%s, 'a.png', 1, %s)",
        running,
        put(workspace.server, f"{workspace.id}/2026/11/25/{running}/1/a.png"),
    )
    job_id = workspace.enqueue()
    calls = reports(workspace, [])
    for source in (foreign, without_bytes, only(workspace, running), {"id": uuid.uuid4()}):
        for call, arguments in calls:
            report = arguments if call == "finish_job" else arguments["reports"][0]
            report["artifacts"] = [entry(made(workspace)), entry(source, name="b.png")]
            with pytest.raises(psycopg.Error) as error:
                workspace.worker.rpc(call, **arguments)
            assert (error.value.sqlstate, error.value.diag.message_detail) == ("SJ305", str(source["id"]))
            assert str(error.value).startswith("same_as: ")
    assert workspace.job(job_id)["status"] == "assigned"
    assert workspace.events(job_id) == ["queued", "claimed"]
    assert workspace.server.rows("select from public.artifacts where job_id = %s", job_id) == []


@pytest.mark.parametrize("besides", ["path", "bucket", *FILE])
def test_what_the_file_is_cannot_be_said_anew(workspace: Workspace, besides: str) -> None:
    first = made(workspace)
    job_id = workspace.enqueue()
    said = {"path": f"{workspace.id}/2026/11/25/{job_id}/1/a.png", "bucket": "artifacts", **FILE}
    for call, arguments in reports(workspace, [entry(first, **{besides: said[besides]})]):
        with pytest.raises(psycopg.Error) as error:
            workspace.worker.rpc(call, **arguments)
        assert error.value.sqlstate == "SJ100"
        assert str(error.value).startswith("same_as: ")


def test_nobody_shares_by_hand(workspace: Workspace) -> None:
    """Neither the column nor another job's path can be inserted."""
    first = made(workspace)
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    for caller in (workspace.worker, workspace.member, workspace.owner):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            caller.run(
                "insert into public.artifacts (job_id, name, size, path, same_as) values (%s, 'a.png', 3, %s, %s)",
                job_id, first["path"], first["id"],
            )  # fmt: skip
    for call in (
        lambda: workspace.worker.run(
            "insert into public.artifacts (job_id, name, size, path) values (%s, 'a.png', 3, %s)",
            job_id, first["path"],
        ),
        lambda: workspace.worker.call(
            "finish_job", **lease(job), ok=True, artifacts=[{"name": "a.png", "path": first["path"], **FILE}]
        ),
    ):  # fmt: skip
        with pytest.raises(psycopg.errors.CheckViolation) as error:
            call()
        assert error.value.diag.constraint_name == "path_is_in_the_folder_of_its_job"


@pytest.mark.parametrize(
    "path",
    ["{other}/2026/11/25/{job}/1/a.png", "{workspace}/notes.txt", "{workspace}/2026/11/25/{job}/1/.."],
)
def test_even_a_shared_path_lies_in_its_own_workspace(workspace: Workspace, path: str) -> None:
    first = made(workspace)
    moved = path.format(other=uuid.uuid4(), workspace=workspace.id, job=first["job_id"])
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        workspace.server.run(
            "update public.artifacts set path = %s, same_as = id where id = %s", moved, first["id"]
        )
    assert error.value.diag.constraint_name == "path_is_in_the_folder_of_its_job"


def test_a_report_that_is_repeated_needs_the_earlier_job_no_more(workspace: Workspace) -> None:
    first = made(workspace, days=31)
    job_id = workspace.enqueue()
    calls = reports(workspace, [entry(first)])
    workspace.worker.rpc(*calls[0][:1], **calls[0][1])
    before = only(workspace, job_id)
    assert remove_old(workspace) == 1
    for call, arguments in calls:
        (answer,) = workspace.worker.rpc(call, **arguments)
        told = answer["finish_and_claim"]["finished"][0] if call == "finish_and_claim" else answer
        assert told["status"] == "succeeded"
    assert only(workspace, job_id) == before
    assert workspace.events(job_id) == ["queued", "claimed", "succeeded"]


def test_a_row_that_the_worker_inserted_becomes_a_shared_one_and_back(workspace: Workspace) -> None:
    """Its own path goes with the row's word; a retry that stored the file itself says so."""
    first = made(workspace)
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    own = f"{workspace.id}/2026/11/25/{job_id}/1/again.png"
    workspace.worker.run(
        "insert into public.artifacts (job_id, name, size, path) values (%s, 'again.png', 1, %s)", job_id, own
    )
    with workspace.worker.session.transaction(force_rollback=True):
        workspace.worker.call("finish_job", **lease(job), ok=True, artifacts=[entry(first)])
        (row,) = workspace.worker.rows("select * from public.artifacts where job_id = %s", job_id)
        assert (row["path"], row["size"], row["same_as"]) == (first["path"], 3, first["id"])
    workspace.server.run("update public.artifacts set path = %s, same_as = %s where job_id = %s",
                         first["path"], first["id"], job_id)  # fmt: skip
    workspace.worker.call(
        "finish_job", **lease(job), ok=True, artifacts=[{"name": "again.png", "path": own, **FILE}]
    )
    row = only(workspace, job_id)
    assert (row["path"], row["same_as"]) == (own, None)


def waiting(server: Caller, session: psycopg.Connection[Any]) -> bool:
    (row,) = server.rows("select cardinality(pg_blocking_pids(%s)) > 0 as blocked", session.info.backend_pid)
    return bool(row["blocked"])


def test_retention_passes_a_job_by_while_its_file_is_being_shared(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    first = made(workspace, days=31)
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    tidying = sign_in(workspace.worker.user_id)
    tidying.run("set lock_timeout = '10s'")
    with workspace.worker.session.transaction():
        workspace.worker.call("finish_job", **lease(job), ok=True, artifacts=[entry(first)])
        assert tidying.rpc("remove_old_jobs")[0]["remove_old_jobs"] == 0, "neither removed nor waited for"
        assert first["path"] not in sweepable(tidying, 1000)
    assert tidying.rpc("remove_old_jobs")[0]["remove_old_jobs"] == 1
    assert only(workspace, job_id)["path"] == first["path"]
    assert first["path"] not in sweepable(tidying, 1000)


@pytest.mark.parametrize("removed", [True, False])
def test_who_shares_waits_for_retention_and_believes_what_became_of_it(
    workspace: Workspace, sign_in: Callable[[str | None], Caller], removed: bool
) -> None:
    first = made(workspace, days=31)
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    tidying, refused = sign_in(workspace.worker.user_id), list[str | None]()

    def finish() -> None:
        try:
            workspace.worker.call("finish_job", **lease(job), ok=True, artifacts=[entry(first)])
        except psycopg.Error as error:
            refused.append(error.sqlstate)

    with tidying.session.transaction(force_rollback=not removed):
        assert tidying.rpc("remove_old_jobs")[0]["remove_old_jobs"] == 1
        finishing = threading.Thread(target=finish)
        finishing.start()
        ends = time.monotonic() + 60
        while not waiting(workspace.server, workspace.worker.session):
            assert time.monotonic() < ends, "nobody waits"
    finishing.join(timeout=60)
    assert refused == (["SJ305"] if removed else [])
    assert workspace.job(job_id)["status"] == ("assigned" if removed else "succeeded")
    assert (first["path"] in sweepable(tidying, 1000)) == removed
