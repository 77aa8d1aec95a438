"""The life of a job, transition by transition."""

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database.callers import Workspace, lease

SOMEBODY = "0f0e0d0c-0b0a-4908-8706-050403020100"


def refused(error: pytest.ExceptionInfo[psycopg.Error]) -> str | None:
    return error.value.sqlstate


def test_a_job_that_succeeds_writes_one_event_a_transition(workspace: Workspace) -> None:
    job_id = workspace.enqueue(payload={"n": 1})
    job = workspace.worker.claim()
    workspace.worker.call("start_job", **lease(job))
    workspace.worker.call("report_progress", **lease(job), progress={"percent": 50})
    answer = workspace.worker.call("finish_job", **lease(job), ok=True, result={"n": 2})

    assert answer["status"] == "succeeded"
    assert workspace.events(job_id) == ["queued", "claimed", "started", "progress", "succeeded"]
    row = workspace.job(job_id)
    assert (row["status"], row["result"], row["attempts"], row["lease_until"]) == (
        "succeeded",
        {"n": 2},
        1,
        None,
    )
    assert row["created_at"] <= row["started_at"] <= row["finished_at"]


def test_an_empty_queue_is_no_row(workspace: Workspace) -> None:
    assert workspace.worker.rpc("claim_one_job") == []
    assert workspace.worker.rpc("claim_jobs", max_jobs=10) == []


def test_the_token_stands_in_the_claims_answer_alone(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    token = workspace.worker.claim()["lease_token"]
    everything = str(workspace.server.rows("select to_jsonb(j) from public.jobs j where id = %s", job_id))
    everything += str(
        workspace.server.rows("select to_jsonb(e) from public.job_events e where job_id = %s", job_id)
    )
    assert token not in everything


def test_claims_take_the_highest_priority_first_and_then_the_longest_due(workspace: Workspace) -> None:
    late, early, urgent = workspace.enqueue(), workspace.enqueue(), workspace.enqueue(priority=5)
    workspace.server.run(
        "update public.jobs set next_run_at = next_run_at - interval '1 minute' where id = %s", early
    )
    assert [str(job["id"]) for job in workspace.worker.rpc("claim_jobs", max_jobs=10)] == [
        urgent,
        early,
        late,
    ]


def test_a_claim_keeps_to_its_executor_type_and_time(workspace: Workspace) -> None:
    workspace.enqueue(executor_id="elsewhere")
    workspace.enqueue(type="figma.export")
    workspace.enqueue(type="browser.pdf", run_at=datetime.now(UTC) + timedelta(hours=1), priority=9)
    mine = workspace.enqueue(type="browser.pdf")
    assert [
        str(job["id"]) for job in workspace.worker.rpc("claim_jobs", max_jobs=10, type_prefix="browser.")
    ] == [mine]


def test_a_failed_attempt_is_tried_again_later_and_the_last_one_is_a_dead_letter(
    workspace: Workspace,
) -> None:
    job_id = workspace.enqueue(max_attempts=2, payload={"keep": "me"})
    error = {"code": "boom", "message": "It broke."}

    job = workspace.worker.claim()
    assert workspace.worker.call("finish_job", **lease(job), ok=False, error=error)["status"] == "queued"
    row = workspace.job(job_id)
    assert row["error"] == error
    assert timedelta(seconds=2) < row["next_run_at"] - row["updated_at"] <= timedelta(seconds=5)
    assert workspace.worker.rpc("claim_one_job") == [], "the delay must be kept"

    workspace.server.run("update public.jobs set next_run_at = now() where id = %s", job_id)
    job = workspace.worker.claim()
    assert workspace.worker.call("finish_job", **lease(job), ok=False, error=error)["status"] == "failed"
    assert workspace.events(job_id) == [
        "queued",
        "claimed",
        "retry_scheduled",
        "claimed",
        "failed",
        "dead_lettered",
    ]
    (letter,) = workspace.member.rows(
        "select reason, error, payload from public.dead_letters where job_id = %s", job_id
    )
    assert letter == {"reason": "attempts_exhausted", "error": error, "payload": {"keep": "me"}}


def test_giving_up_spends_all_attempts_at_once(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    assert (
        workspace.worker.call("finish_job", **lease(job), ok=False, error={"code": "bad"}, give_up=True)[
            "status"
        ]
        == "failed"
    )
    (letter,) = workspace.server.rows("select reason from public.dead_letters where job_id = %s", job_id)
    assert letter["reason"] == "gave_up"


def test_a_worker_may_say_when_to_try_again(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    later = datetime.now(UTC) + timedelta(minutes=30)
    workspace.worker.call(
        "finish_job", **lease(workspace.worker.claim()), ok=False, error={"code": "busy"}, retry_at=later
    )
    assert workspace.job(job_id)["next_run_at"] == later


def test_a_hand_back_costs_no_attempt(workspace: Workspace) -> None:
    job_id = workspace.enqueue(max_attempts=1)
    for _ in range(10):
        workspace.worker.call("release_job", **lease(workspace.worker.claim()), reason="drain")
    workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=True)
    row = workspace.job(job_id)
    assert (row["status"], row["attempts"], row["released"]) == ("succeeded", 11, 10)


def test_only_the_last_attempt_and_its_token_may_write(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    first = workspace.worker.claim()
    workspace.expire(job_id)
    assert workspace.worker.rpc("release_expired_leases")[0]["release_expired_leases"] == 1
    second = workspace.worker2.claim()

    for stale in (
        lease(first),
        {**lease(first), "attempt": 2},
        {**lease(second), "lease_token": "guess"},
        {**lease(second), "attempt": 1},
    ):
        for name, more in (
            ("start_job", {}),
            ("renew_lease", {}),
            ("report_progress", {"progress": {}}),
            ("release_job", {}),
            ("finish_job", {"ok": True}),
        ):
            for caller in (workspace.worker, workspace.worker2):
                with pytest.raises(psycopg.Error) as error:
                    caller.call(name, **stale, **more)
                assert refused(error) == "SJ300", name
                assert error.value.diag.message_detail == "assigned"
    assert workspace.worker2.call("finish_job", **lease(second), ok=True)["status"] == "succeeded"
    assert workspace.events(job_id) == ["queued", "claimed", "lease_expired", "claimed", "succeeded"]


def test_a_stolen_token_is_no_good_to_another_worker(workspace: Workspace) -> None:
    workspace.enqueue()
    job = workspace.worker.claim()
    with pytest.raises(psycopg.Error) as error:
        workspace.worker2.call("finish_job", **lease(job), ok=True)
    assert refused(error) == "SJ300"


def test_a_lease_is_held_until_a_sweep_takes_it(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    workspace.expire(job_id)
    assert workspace.worker.call("renew_lease", **lease(job), lease_seconds=60)["lease_until"] > datetime.now(
        UTC
    )
    assert workspace.worker.rpc("release_expired_leases")[0]["release_expired_leases"] == 0
    workspace.expire(job_id)
    assert workspace.worker.call("finish_job", **lease(job), ok=True)["status"] == "succeeded"


def test_the_last_expiry_fails_the_job(workspace: Workspace) -> None:
    job_id = workspace.enqueue(max_attempts=1)
    workspace.worker.claim()
    workspace.expire(job_id)
    workspace.worker.rpc("release_expired_leases")
    assert workspace.events(job_id) == ["queued", "claimed", "lease_expired", "failed", "dead_lettered"]
    assert workspace.job(job_id)["error"]["code"] == "lease_expired"


@pytest.mark.parametrize("ok", [True, False])
def test_the_same_report_twice_changes_nothing_and_another_one_is_refused(
    workspace: Workspace, ok: bool
) -> None:
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    report = {"ok": ok, "result": {"a": 1} if ok else None, "error": None if ok else {"code": "x"}}
    first = workspace.worker.call("finish_job", **lease(job), **report)
    before = workspace.job(job_id)
    assert workspace.worker.call("finish_job", **lease(job), **report) == first
    assert workspace.job(job_id) == before
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.call("finish_job", **lease(job), ok=ok, result={"a": 2}, error={"code": "y"})
    assert refused(error) == "SJ300"
    assert workspace.job(job_id) == before


def test_an_older_worker_without_a_token_is_heard_while_no_other_attempt_was_its_own(
    workspace: Workspace,
) -> None:
    nameless = {"attempt": None, "lease_token": None}
    job_id = workspace.enqueue()
    workspace.worker.claim()
    with pytest.raises(psycopg.Error) as error:
        workspace.worker2.call("finish_job", job_id=job_id, **nameless, ok=True)
    assert refused(error) == "SJ300"
    workspace.worker.call("finish_job", job_id=job_id, **nameless, ok=True)

    job_id = workspace.enqueue()
    workspace.worker.call("release_job", **lease(workspace.worker.claim()))
    workspace.worker.claim()
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.call("finish_job", job_id=job_id, **nameless, ok=True)
    assert refused(error) == "SJ300"


def test_cancel_ends_a_job_at_once_and_its_worker_is_told(workspace: Workspace) -> None:
    queued, running = workspace.enqueue(), workspace.enqueue(priority=1)
    job = workspace.worker.claim()
    assert str(job["id"]) == running
    for job_id in (queued, running):
        for _ in range(2):
            assert workspace.member.call("cancel_job", job_id=job_id)["status"] == "cancelled"
        assert workspace.events(job_id)[-1] == "cancelled"
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.call("renew_lease", **lease(job))
    assert (refused(error), error.value.diag.message_detail) == ("SJ300", "cancelled")
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.call("finish_job", **lease(job), ok=True)
    assert refused(error) == "SJ300"
    assert workspace.worker.rpc("claim_one_job") == []


def test_a_key_or_an_id_stands_for_one_job(workspace: Workspace, other_workspace: Workspace) -> None:
    job_id = str(uuid.uuid4())
    for again in ({"idempotency_key": "k"}, {"job_id": job_id}):
        first = workspace.member.call("enqueue_job", type="a.b", payload={"x": 1}, **again)
        second = workspace.member.call("enqueue_job", type="a.b", payload={"x": 1}, **again)
        assert (first["queued"], second["queued"]) == (True, False)
        assert first["job_id"] == second["job_id"]
        for change in ({"payload": {"x": 2}}, {"type": "a.c"}, {"executor_id": "e"}):
            with pytest.raises(psycopg.Error) as error:
                workspace.member.call(
                    "enqueue_job", **{"type": "a.b", "payload": {"x": 1}, **change, **again}
                )
            assert refused(error) == "SJ301"
    with pytest.raises(psycopg.Error) as error:
        other_workspace.member.call("enqueue_job", type="a.b", payload={"x": 1}, job_id=job_id)
    assert refused(error) == "SJ302"
    assert other_workspace.member.call("enqueue_job", type="a.b", payload={"x": 1}, idempotency_key="k")[
        "queued"
    ]


def test_progress_is_shown_at_once_and_kept_once_a_second(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    kept = [
        workspace.worker.call("report_progress", **lease(job), progress={"n": n})["stored"] for n in range(5)
    ]
    assert kept == [True, False, False, False, False]
    assert workspace.job(job_id)["progress"] == {"n": 4}
    workspace.server.run(
        "update public.jobs set progress_at = progress_at - interval '1 second' where id = %s", job_id
    )
    assert workspace.worker.call("report_progress", **lease(job), progress={"n": 9}, checkpoint={"page": 3})[
        "stored"
    ]
    assert workspace.events(job_id) == ["queued", "claimed", "progress", "progress"]

    workspace.worker.call("release_job", **lease(job))
    assert workspace.worker.claim()["checkpoint"] == {"page": 3}, "the next attempt must find the checkpoint"


def artifact(
    workspace: Workspace, job_id: str, attempt: int, name: str = "a.png", **changes: object
) -> dict[str, object]:
    return {
        "name": name,
        "mime": "image/png",
        "size": 3,
        "sha256": "0" * 64,
        "width": 1,
        "height": 1,
        "path": f"{workspace.id}/2026/01/31/{job_id}/{attempt}/{name}",
        **changes,
    }


def test_artifacts_are_recorded_with_the_result(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    workspace.worker.run(
        "insert into public.artifacts (job_id, name, size, path) values (%s, 'a.png', 1, %s)",
        job_id,
        f"{workspace.id}/2026/01/31/{job_id}/1/a.png",
    )
    workspace.worker.call(
        "finish_job",
        **lease(job),
        ok=True,
        artifacts=[artifact(workspace, job_id, 1), artifact(workspace, job_id, 1, "b.png")],
    )
    rows = workspace.member.rows(
        "select name, size, attempt, workspace_id::text, bucket from public.artifacts where job_id = %s order by name",
        job_id,
    )
    assert [row["name"] for row in rows] == ["a.png", "b.png"]
    assert all(
        (row["size"], row["attempt"], row["workspace_id"], row["bucket"]) == (3, 1, workspace.id, "artifacts")
        for row in rows
    )


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"path": "{other}/2026/01/31/{job}/1/a.png"}, "path_is_in_the_folder_of_its_job"),
        ({"path": "{workspace}/2026/01/31/{other}/1/a.png"}, "path_is_in_the_folder_of_its_job"),
        ({"path": "{workspace}/2026/01/31/{job}/2/a.png"}, "path_is_in_the_folder_of_its_job"),
        ({"path": "{workspace}/2026/01/31/{job}/1/../a.png"}, "path_is_in_the_folder_of_its_job"),
        ({"path": "{workspace}/2026/01/31/{job}/1/.."}, "path_is_in_the_folder_of_its_job"),
        ({"bucket": "avatars"}, "bucket_is_artifacts"),
        ({"size": -1}, "size_is_at_most_256_mib"),
        ({"sha256": "zz"}, "sha256_is_64_hex_digits"),
        ({"mime": "no media type"}, "mime_is_a_media_type"),
        ({"name": "a\nb"}, "name_is_1_to_255_characters"),
        ({"width": 0}, "width_and_height_are_positive"),
    ],
)
def test_a_wrong_artifact_is_refused_whole(
    workspace: Workspace, change: dict[str, object], constraint: str
) -> None:
    job_id = workspace.enqueue()
    job = workspace.worker.claim()
    named = {
        key: value.format(other=uuid.uuid4(), job=job_id, workspace=workspace.id)
        if isinstance(value, str)
        else value
        for key, value in change.items()
    }
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        workspace.worker.call(
            "finish_job", **lease(job), ok=True, artifacts=[artifact(workspace, job_id, 1) | named]
        )
    assert error.value.diag.constraint_name == constraint
    assert workspace.job(job_id)["status"] == "assigned"
    assert workspace.server.rows("select from public.artifacts where job_id = %s", job_id) == []


def test_a_raw_update_is_refused_with_the_right_call_for_a_hint(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    workspace.worker.claim()
    for caller in (workspace.worker, workspace.member, workspace.owner):
        with pytest.raises(psycopg.Error) as error:
            caller.run("update public.jobs set status = 'succeeded' where id = %s", job_id)
        assert refused(error) == "SJ101"
        assert "finish_job" in (error.value.diag.message_hint or "")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "succeeded"),
        ("lease_owner", SOMEBODY),
        ("attempts", 5),
        ("created_at", "2020-01-01"),
        ("result", Jsonb({})),
        ("worker_id", "x"),
        ("finished_at", "2020-01-01"),
        ("event_seq", 9),
        ("event_seq", 0),
        ("last_event", "job.succeeded"),
        ("last_event", None),
        ("released", 1),
        ("created_by", SOMEBODY),
        ("blocked_by", 1),
    ],
)
def test_an_insert_may_not_set_what_the_queue_writes(
    workspace: Workspace, column: str, value: object
) -> None:
    with pytest.raises(psycopg.Error) as error:
        workspace.member.run(f"insert into public.jobs (type, {column}) values ('a.b', %s)", value)
    assert refused(error) == "SJ101"
    assert str(error.value).startswith(f"{column}:")


def test_the_owners_insert_goes_to_the_callers_default_workspace(workspace: Workspace) -> None:
    job_id = str(uuid.uuid4())
    workspace.member.run(
        "insert into public.jobs (id, type, status, executor_id, payload) values (%s, 'browser.screenshot', 'queued', 'default', %s)",
        job_id,
        Jsonb({"url": "https://supabase.com"}),
    )
    row = workspace.job(job_id)
    assert (str(row["workspace_id"]), str(row["created_by"])) == (workspace.id, workspace.member.user_id)
    assert workspace.events(job_id) == ["queued"]


@pytest.mark.parametrize(
    ("arguments", "constraint"),
    [
        ({"type": ""}, "type_is_a_short_name"),
        ({"type": "a" * 10_000}, "type_is_a_short_name"),
        ({"type": "a\nb"}, "type_is_a_short_name"),
        ({"type": "a.b\n"}, "type_is_a_short_name"),
        ({"executor_id": "a b"}, "executor_id_is_a_short_name"),
        ({"priority": -1}, "priority_is_0_to_9"),
        ({"priority": 10}, "priority_is_0_to_9"),
        ({"priority": 2_000_000_000}, "priority_is_0_to_9"),
        ({"priority": -2_000_000_000}, "priority_is_0_to_9"),
        ({"payload": []}, "payload_is_an_object"),
        ({"payload": {"x": "y" * 262_144}}, "payload_is_at_most_256_kib"),
        ({"max_attempts": 0}, "max_attempts_is_1_to_25"),
        ({"idempotency_key": ""}, "idempotency_key_is_1_to_200_characters"),
        ({"idempotency_key": "k" * 201}, "idempotency_key_is_1_to_200_characters"),
        ({"run_at": "9999-01-01"}, "next_run_at_is_before_2100"),
        ({"run_at": "infinity"}, "next_run_at_is_before_2100"),
        ({"trace_id": "x"}, "trace_id_is_32_hex_digits"),
    ],
)
def test_bad_input_breaks_a_constraint_that_names_it(
    workspace: Workspace, arguments: dict[str, object], constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        workspace.member.call("enqueue_job", **{"type": "a.b", **arguments})
    assert error.value.diag.constraint_name == constraint
    assert workspace.server.rows("select from public.jobs where workspace_id = %s", workspace.id) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("claim_one_job", {"lease_seconds": 0}),
        ("claim_one_job", {"lease_seconds": 864_000}),
        ("claim_one_job", {"lease_seconds": None}),
        ("claim_jobs", {"max_jobs": 0}),
        ("claim_jobs", {"max_jobs": 100_000}),
        ("claim_jobs", {"executor_id": None}),
        ("release_expired_leases", {"max_jobs": -1}),
        ("recent_jobs", {"page_size": 0}),
        ("recent_jobs", {"page_size": 1001}),
    ],
)
def test_arguments_out_of_range_are_named(
    workspace: Workspace, name: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.rpc(name, **arguments)
    assert refused(error) == "SJ100"
    assert str(error.value).startswith(next(iter(arguments)))


def test_history_cannot_be_forged_or_lost_by_sql_of_ones_own(workspace: Workspace) -> None:
    job_id = workspace.enqueue()
    with pytest.raises(psycopg.errors.CheckViolation) as error:  # even the owner must say why a row moves
        workspace.server.run(
            "update public.jobs set status = 'succeeded', finished_at = now() where id = %s", job_id
        )
    assert error.value.diag.constraint_name == "last_event_explains_status"
    for table in ("job_events", "audit_log", "dead_letters"):
        for caller in (workspace.owner, workspace.worker):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                caller.run(f"delete from public.{table}")
    with pytest.raises(psycopg.Error) as changed:
        workspace.server.run("update public.audit_log set action = ''")
    assert refused(changed) == "SJ304"


def test_rights_end_with_the_membership(workspace: Workspace) -> None:
    workspace.enqueue()
    job = workspace.worker.claim()
    workspace.server.run("delete from public.workspace_members where user_id = %s", workspace.worker.user_id)
    with pytest.raises(psycopg.Error) as error:
        workspace.worker.call("finish_job", **lease(job), ok=True)
    assert refused(error) == "SJ200"
    assert workspace.worker.rows("select from public.jobs") == []
    assert [
        row["action"] for row in workspace.member.rows("select action from public.audit_log order by id")
    ][-1] == "workspace_members.delete"


def test_being_added_to_a_workspace_does_not_change_where_ones_jobs_go(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    member = workspace.member
    other_workspace.owner.run(
        "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, 'member')",
        other_workspace.id,
        member.user_id,
    )
    assert (
        str(workspace.job(str(member.call("enqueue_job", type="a.b")["job_id"]))["workspace_id"])
        == workspace.id
    )
    member.rpc("set_default_workspace", workspace_id=other_workspace.id)
    assert (
        str(workspace.job(str(member.call("enqueue_job", type="a.b")["job_id"]))["workspace_id"])
        == other_workspace.id
    )


def test_an_agent_id_belongs_to_its_first_worker(workspace: Workspace, other_workspace: Workspace) -> None:
    agent = f"agent-{uuid.uuid4()}"
    for status in ("idle", "busy"):
        workspace.worker.call("worker_heartbeat", agent_id=agent, status=status)
    with pytest.raises(psycopg.Error) as error:
        other_workspace.worker.call("worker_heartbeat", agent_id=agent)
    assert refused(error) == "SJ303"
    (row,) = workspace.viewer.rpc("active_workers")
    assert (row["agent_id"], row["status"]) == (agent, "busy")
    assert other_workspace.viewer.rpc("active_workers") == []
    workspace.worker.call("worker_heartbeat", agent_id=agent, status="offline")
    assert workspace.viewer.rpc("active_workers") == []
