"""Jobs that failed for good: run again once, or thrown away."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.database.callers import Caller, Row, Workspace, lease


def dead(workspace: Workspace, **arguments: Any) -> tuple[str, int]:
    """A job that gave up, and its letter."""
    job_id = workspace.enqueue(**arguments)
    job = workspace.worker.claim()
    workspace.worker.call("report_progress", **lease(job), progress={}, checkpoint={"done": [1]})
    workspace.worker.call("finish_job", **lease(job), ok=False, give_up=True, error={"code": "boom"})
    (letter,) = workspace.member.rows("select id from public.dead_letters where job_id = %s", job_id)
    return job_id, letter["id"]


def test_a_letter_is_run_again_once_as_a_new_job(workspace: Workspace) -> None:
    first, letter = dead(
        workspace, payload={"n": 1}, priority=3, max_attempts=7, backoff_seconds=9, idempotency_key="k"
    )
    again = str(workspace.member.call("retry_dead_letter", id=letter)["job_id"])
    assert again != first
    assert str(workspace.owner.call("retry_dead_letter", id=letter)["job_id"]) == again
    row = workspace.job(again)
    assert (row["status"], row["type"], row["payload"], row["priority"], row["max_attempts"], row["backoff_seconds"]) == (
        "queued", "test.job", {"n": 1}, 3, 7, 9,
    )  # fmt: skip
    assert (row["checkpoint"], row["attempts"], str(row["created_by"])) == (
        {"done": [1]},
        0,
        workspace.member.user_id,
    )
    assert workspace.events(again) == ["queued"]
    assert workspace.events(first)[-2:] == ["failed", "dead_lettered"]
    (kept,) = workspace.member.rows(
        "select retries, retried_at, retried_as::text from public.dead_letters where id = %s", letter
    )
    assert (kept["retries"], kept["retried_as"]) == (1, again)
    assert kept["retried_at"] is not None


def test_many_who_retry_at_once_get_one_job(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    _, letter = dead(workspace)
    callers = [sign_in(workspace.member.user_id) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = set(
            pool.map(lambda caller: str(caller.call("retry_dead_letter", id=letter)["job_id"]), callers)
        )
    assert len(answers) == 1


def test_a_discarded_letter_is_gone_and_its_job_is_not(workspace: Workspace) -> None:
    job_id, letter = dead(workspace)
    workspace.member.rpc("discard_dead_letter", id=letter)
    assert workspace.member.rows("select * from public.dead_letters") == []
    assert workspace.job(job_id)["status"] == "failed"
    (line,) = workspace.member.rows(
        "select actor_id::text, subject from public.audit_log where action = 'dead_letters.discard'"
    )
    assert (line["actor_id"], line["subject"]["old"]["id"]) == (workspace.member.user_id, letter)
    for call in ("discard_dead_letter", "retry_dead_letter"):
        with pytest.raises(psycopg.Error) as error:
            workspace.member.rpc(call, id=letter)
        assert error.value.sqlstate == "SJ200"


@pytest.mark.parametrize("call", ["discard_dead_letter", "retry_dead_letter"])
def test_only_members_and_owners_open_letters(
    workspace: Workspace, other_workspace: Workspace, call: str
) -> None:
    _, letter = dead(workspace)
    for person, state in (
        (workspace.viewer, "SJ201"),
        (workspace.worker, "SJ201"),
        (other_workspace.owner, "SJ200"),
    ):
        with pytest.raises(psycopg.Error) as error:
            person.rpc(call, id=letter)
        assert error.value.sqlstate == state


def test_letters_are_listed_newest_first_in_pages(workspace: Workspace) -> None:
    letters = [dead(workspace)[1] for _ in range(5)]
    workspace.server.run(
        "update public.dead_letters set created_at = '2026-01-01' where workspace_id = %s and id <> %s",
        workspace.id,
        letters[4],
    )

    def page(last: Row | None) -> list[Row]:
        place = {"before_created_at": last["created_at"], "before_id": last["id"]} if last else {}
        return workspace.member.rpc("recent_dead_letters", page_size=2, **place)

    found: list[Row] = []
    while rows := page(found[-1] if found else None):
        found += rows
    assert [row["id"] for row in found] == letters[::-1]
    assert (found[0]["type"], found[0]["attempts"], found[0]["error"]) == ("test.job", 1, {"code": "boom"})
    assert workspace.viewer.rpc("recent_dead_letters") == []
