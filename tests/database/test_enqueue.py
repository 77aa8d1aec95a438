"""Into the queue: many at once, once in a while, after others, and back-off of one's own."""

import itertools
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.database.callers import Caller, Row, Workspace, lease


def refusal(call: Callable[[], object]) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as error:
        call()
    return error.value.sqlstate, error.value.diag.message_primary or ""


def work_off(workspace: Workspace) -> list[str]:
    """Claims and finishes whatever is due; the ids in the order of the claims."""
    done = []
    while claimed := workspace.worker.rpc("claim_one_job"):
        workspace.worker.call("finish_job", **lease(claimed[0]), ok=True)
        done.append(str(claimed[0]["id"]))
    return done


# Many at once


def test_many_jobs_are_enqueued_in_one_call_and_answered_in_order(workspace: Workspace) -> None:
    chosen = str(uuid.uuid4())
    wanted: list[dict[str, Any]] = [
        {"type": "test.plain"},
        {"type": "test.keyed", "idempotency_key": "k", "payload": {"n": 1}, "priority": 7},
        {"type": "test.keyed", "idempotency_key": "k", "payload": {"n": 1}},
        {
            "type": "test.mine",
            "job_id": chosen,
            "executor_id": "elsewhere",
            "max_attempts": 1,
            "backoff_seconds": 60,
        },
    ]
    answers = workspace.member.rpc("enqueue_jobs", jobs=wanted)
    assert [answer["queued"] for answer in answers] == [True, True, False, True]
    assert answers[1]["job_id"] == answers[2]["job_id"]
    assert str(answers[3]["job_id"]) == chosen
    row = workspace.job(chosen)
    assert (row["executor_id"], row["max_attempts"], row["backoff_seconds"]) == ("elsewhere", 1, 60)
    assert workspace.job(str(answers[1]["job_id"]))["priority"] == 7

    again = workspace.member.rpc("enqueue_jobs", jobs=wanted[1:])
    assert [answer["queued"] for answer in again] == [False, False, False]
    assert [answer["job_id"] for answer in again] == [answer["job_id"] for answer in answers[1:]]


def test_a_thousand_are_taken_and_a_thousand_and_one_are_not(workspace: Workspace) -> None:
    assert len(workspace.member.rpc("enqueue_jobs", jobs=[{"type": "test.job"}] * 1000)) == 1000
    for wrong in ([], [{"type": "test.job"}] * 1001, {"type": "test.job"}):
        assert refusal(partial(workspace.member.rpc, "enqueue_jobs", jobs=wrong)) == (
            "SJ100", "jobs: must be a list of 1 to 1000",
        )  # fmt: skip


def test_jobs_of_a_list_are_claimed_in_its_order(workspace: Workspace) -> None:
    jobs = [{"type": "test.job", "payload": {"n": n}} for n in range(300)]
    answers = workspace.member.rpc("enqueue_jobs", jobs=jobs)
    claimed = workspace.worker.rpc("claim_jobs", max_jobs=300)
    assert [job["payload"]["n"] for job in claimed] == list(range(300))
    assert [job["id"] for job in claimed] == [answer["job_id"] for answer in answers]
    assert {job["id"].version for job in claimed} == {7}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "test.job", "prioritty": 3}, "jobs[1].prioritty: there is no such argument"),
        ({"type": "test.job", "blocked_by": 0}, "jobs[1].blocked_by: there is no such argument"),
        (["test.job"], "jobs[1]: must be an object"),
        (None, "jobs[1]: must be an object"),
        ("test.job", "jobs[1]: must be an object"),
    ],
)
def test_an_item_that_is_wrong_is_named_and_nothing_is_written(
    workspace: Workspace, item: object, message: str
) -> None:
    assert refusal(lambda: workspace.member.rpc("enqueue_jobs", jobs=[{"type": "test.first"}, item])) == (
        "SJ100",
        message,
    )
    assert workspace.worker.rpc("claim_one_job") == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("priority", 1.5, 'invalid input syntax for type integer: "1.5"'),
        ("priority", 10**12, 'value "1000000000000" is out of range for type integer'),
        ("max_attempts", "x", 'invalid input syntax for type integer: "x"'),
        ("run_at", "soon", 'invalid input syntax for type timestamp with time zone: "soon"'),
        ("run_at", "2026-02-30", 'date/time field value out of range: "2026-02-30"'),
        ("job_id", "one", 'invalid input syntax for type uuid: "one"'),
        ("depends_on", "one", ""),  # each version of Postgres says something else
    ],
)
def test_a_value_of_a_list_that_cannot_be_read_is_named(
    workspace: Workspace, field: str, value: object, said: str
) -> None:
    jobs = [{"type": "test.job"}, {"type": "test.job", field: value}]
    state, message = refusal(lambda: workspace.member.rpc("enqueue_jobs", jobs=jobs))
    assert state == "SJ100"
    assert message.startswith(f"jobs[1].{field}: {said}")


def test_one_that_breaks_a_constraint_takes_the_others_with_it(workspace: Workspace) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        workspace.member.rpc(
            "enqueue_jobs", jobs=[{"type": "test.job"}, {"type": "test.job", "priority": -1}]
        )
    assert error.value.diag.constraint_name == "priority_is_0_to_9"
    assert workspace.worker.rpc("claim_one_job") == []


# Back-off


def test_each_job_has_a_back_off_of_its_own(workspace: Workspace) -> None:
    def delays(**settings: Any) -> list[float]:
        job_id = workspace.enqueue(max_attempts=6, executor_id="backoff", **settings)
        found = []
        for _ in range(5):
            workspace.worker.call(
                "finish_job", **lease(workspace.worker.claim(executor_id="backoff")), ok=False, error={}
            )
            row = workspace.job(job_id)
            found.append((row["next_run_at"] - row["updated_at"]) / timedelta(seconds=1))
            workspace.server.run("update public.jobs set next_run_at = now() where id = %s", job_id)
        workspace.member.call("cancel_job", job_id=job_id)
        return found

    assert delays(backoff_seconds=0, backoff_max_seconds=0) == [0] * 5
    for found, whole in zip(
        delays(backoff_seconds=60, backoff_max_seconds=300), (60, 120, 240, 300, 300), strict=True
    ):
        assert whole / 2 <= found <= whole


@pytest.mark.parametrize(
    ("settings", "constraint"),
    [
        ({"backoff_seconds": -1}, "backoff_seconds_is_0_to_86400"),
        ({"backoff_seconds": 90_000, "backoff_max_seconds": 90_000}, "backoff_seconds_is_0_to_86400"),
        (
            {"backoff_seconds": 10, "backoff_max_seconds": 9},
            "backoff_max_seconds_is_backoff_seconds_to_604800",
        ),
        ({"backoff_max_seconds": 604_801}, "backoff_max_seconds_is_backoff_seconds_to_604800"),
    ],
)
def test_a_wrong_back_off_breaks_a_constraint(
    workspace: Workspace, settings: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        workspace.enqueue(**settings)
    assert error.value.diag.constraint_name == constraint


# Once in a while


def ask(workspace: Workspace, seconds: int | None = 60, **more: Any) -> Row:
    return workspace.member.call(
        "enqueue_job", **{"type": "test.job", "payload": {"url": "a"}, "unique_seconds": seconds, **more}
    )


def test_an_equal_request_within_the_window_is_the_same_job(workspace: Workspace) -> None:
    first = ask(workspace)
    assert ask(workspace) == {"job_id": first["job_id"], "queued": False, "status": "queued"}
    for other in (
        {"payload": {"url": "b"}},
        {"type": "test.other"},
        {"executor_id": "elsewhere"},
        {"seconds": None},
    ):
        assert ask(workspace, **other)["queued"], other
    work_off(workspace)
    assert ask(workspace)["status"] == "succeeded", "what has been done lately need not be done again"


def test_the_window_ends(workspace: Workspace) -> None:
    first = ask(workspace)
    workspace.server.run(
        "update sidejob.unique_requests set until = now() where job_id = %s", first["job_id"]
    )
    second = ask(workspace)
    assert second["queued"]
    assert ask(workspace)["job_id"] == second["job_id"]


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_a_job_that_came_to_nothing_does_not_stand_in_the_way(workspace: Workspace, end: str) -> None:
    first = ask(workspace)
    if end == "cancel":
        workspace.member.call("cancel_job", job_id=first["job_id"])
    else:
        workspace.worker.call(
            "finish_job", **lease(workspace.worker.claim()), ok=False, give_up=True, error={}
        )
    assert ask(workspace)["queued"]


def test_windows_of_two_workspaces_have_nothing_to_do_with_each_other(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    assert ask(workspace)["queued"]
    assert ask(other_workspace)["queued"]


def test_of_many_who_ask_at_once_one_makes_the_job(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    callers = [sign_in(workspace.member.user_id) for _ in range(16)]

    def ask_as(caller: Caller) -> Row:
        return caller.call("enqueue_job", type="test.job", payload={}, unique_seconds=60)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask_as, callers))
    assert sum(answer["queued"] for answer in answers) == 1
    assert len({answer["job_id"] for answer in answers}) == 1


def test_the_idempotency_key_goes_before_the_window(workspace: Workspace) -> None:
    first = ask(workspace, idempotency_key="k")
    assert ask(workspace, idempotency_key="k")["job_id"] == first["job_id"]
    assert refusal(lambda: ask(workspace, idempotency_key="k", payload={"url": "b"}))[0] == "SJ301"


@pytest.mark.parametrize("seconds", [0, -1, 31_536_001])
def test_a_window_has_bounds(workspace: Workspace, seconds: int) -> None:
    assert refusal(lambda: ask(workspace, seconds)) == ("SJ100", "unique_seconds: must be 1 to 31536000")


# After others


def test_a_job_waits_until_all_its_parents_have_succeeded(workspace: Workspace) -> None:
    first, second = workspace.enqueue(), workspace.enqueue()
    child = workspace.enqueue(
        depends_on=(
            first,
            second,
        )
    )
    grandchild = workspace.enqueue(depends_on=(child,), priority=9)
    assert workspace.job(child)["blocked_by"] == 2
    held = [workspace.worker.claim(), workspace.worker.claim()]
    assert workspace.worker.rpc("claim_one_job") == []
    workspace.worker.call("finish_job", **lease(held[0]), ok=True)
    assert workspace.worker.rpc("claim_one_job") == []
    workspace.worker.call("finish_job", **lease(held[1]), ok=True)
    assert work_off(workspace) == [child, grandchild]


def test_a_parent_that_has_succeeded_already_is_not_waited_for(workspace: Workspace) -> None:
    parent = workspace.enqueue()
    work_off(workspace)
    child = workspace.enqueue(
        depends_on=(
            parent,
            parent,
        )
    )
    assert work_off(workspace) == [child]


@pytest.mark.parametrize("end", ["cancel", "fail", "expire"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_parent_that_fails_takes_its_children_with_it_unless_they_run_all_the_same(
    workspace: Workspace, end: str, when: str
) -> None:
    parent = workspace.enqueue(max_attempts=1)

    def give_up() -> None:
        if end == "cancel":
            workspace.member.call("cancel_job", job_id=parent)
            return
        job = workspace.worker.claim()
        assert str(job["id"]) == parent
        if end == "fail":
            workspace.worker.call("finish_job", **lease(job), ok=False, error={})
        else:
            workspace.expire(parent)
            assert workspace.worker.rpc("release_expired_leases")

    if when == "before":
        give_up()
    doomed = workspace.enqueue(depends_on=(parent,))
    eager = workspace.enqueue(depends_on=(parent,), on_parent_failure="run")
    later = workspace.enqueue(depends_on=(doomed,))
    if when == "after":
        assert workspace.job(doomed)["status"] == "queued"
        give_up()
    assert [workspace.job(job)["status"] for job in (doomed, eager, later)] == [
        "cancelled",
        "queued",
        "cancelled",
    ]
    assert workspace.job(doomed)["last_detail"] == {"by": None, "was": "queued", "parent": parent}
    assert workspace.job(later)["last_detail"]["parent"] == doomed
    assert workspace.events(doomed) == ["queued", "cancelled"]
    assert work_off(workspace) == [eager]


def test_a_retried_attempt_of_the_parent_is_no_end(workspace: Workspace) -> None:
    parent = workspace.enqueue(backoff_seconds=0)
    child = workspace.enqueue(depends_on=(parent,))
    workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=False, error={})
    assert work_off(workspace) == [parent, child]


@pytest.mark.parametrize("length", [200, pytest.param(2000, marks=pytest.mark.soak)])
def test_a_long_chain_ends_with_its_first(workspace: Workspace, length: int) -> None:
    ids = [str(uuid.uuid4()) for _ in range(length)]
    chain: list[Row] = [{"type": "test.job", "job_id": ids[0]}]
    chain += [
        {"type": "test.job", "job_id": later, "depends_on": [before]}
        for before, later in itertools.pairwise(ids)
    ]
    for start in range(0, length, 1000):
        workspace.member.rpc("enqueue_jobs", jobs=chain[start : start + 1000])
    workspace.member.call("cancel_job", job_id=ids[0])
    (left,) = workspace.server.rows(
        "select count(*) from public.jobs where workspace_id = %s and status <> 'cancelled'", workspace.id
    )
    assert left["count"] == 0


def test_a_job_of_a_list_may_wait_for_one_before_it(workspace: Workspace) -> None:
    parent, child = str(uuid.uuid4()), str(uuid.uuid4())
    workspace.member.rpc(
        "enqueue_jobs",
        jobs=[{"type": "test.job", "job_id": parent}, {"type": "test.job", "job_id": child, "depends_on": [parent], "priority": 9}],
    )  # fmt: skip
    assert work_off(workspace) == [parent, child]


def test_what_cannot_be_waited_for_is_refused(workspace: Workspace, other_workspace: Workspace) -> None:
    foreign, own = other_workspace.enqueue(), str(uuid.uuid4())
    unknown = ("SJ200", "depends_on: there is no such job in this workspace")
    for parents in ((foreign,), (str(uuid.uuid4()),), (workspace.enqueue(), foreign)):
        assert refusal(partial(workspace.enqueue, depends_on=parents)) == unknown
    assert refusal(lambda: workspace.enqueue(job_id=own, depends_on=(own,))) == (
        "SJ100", "depends_on: a job cannot wait for itself",
    )  # fmt: skip
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    circle = [
        {"type": "test.job", "job_id": one, "depends_on": [two]},
        {"type": "test.job", "job_id": two, "depends_on": [one]},
    ]
    assert refusal(lambda: workspace.member.rpc("enqueue_jobs", jobs=circle)) == unknown
    assert refusal(lambda: workspace.enqueue(depends_on=(own,) * 101))[1] == "depends_on: at most 100 jobs"
    assert (
        refusal(lambda: workspace.enqueue(on_parent_failure="maybe"))[1]
        == "on_parent_failure: must be cancel or run"
    )


def test_a_parent_that_ends_while_the_child_is_written_is_not_missed(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    """The child's transaction holds the parent; the worker's report waits for it and then sees the child."""
    parent = workspace.enqueue()
    job = workspace.worker.claim()
    asking = sign_in(workspace.member.user_id)
    with ThreadPoolExecutor(1) as pool:
        with asking.session.transaction():
            child = str(asking.call("enqueue_job", type="test.job", depends_on=(parent,))["job_id"])
            report = pool.submit(lambda: workspace.worker.call("finish_job", **lease(job), ok=True))
            with pytest.raises(TimeoutError):
                report.result(0.3)
        assert report.result(10)["status"] == "succeeded"
    assert work_off(workspace) == [child]
