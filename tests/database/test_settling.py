"""Parents with more children than one statement can deal with: all of them learn of its end, in slices, and none too early."""

import threading
from collections.abc import Callable

import pytest

from tests.database.callers import Caller, Workspace, lease

CHILDREN = 20_000
TIMEOUT = "set statement_timeout = '3s'"  # less than all children would take in one statement


def leave_it_to_the_upkeep(*callers: Caller) -> None:
    """From now on the ends of jobs in these sessions settle nothing themselves, as when they have very many children."""
    for caller in callers:
        caller.rows("select set_config('sidejob.settling_room', '0', false)")


def settle_all(caller: Caller) -> int:
    total = 0
    while done := caller.call("settle_dependencies")["settle_dependencies"]:
        total += done
    return total


def unsettled(workspace: Workspace) -> int:
    (row,) = workspace.server.rows(
        "select count(*) from sidejob.settlements where workspace_id = %s", workspace.id
    )
    return int(row["count"])


def children_of(workspace: Workspace, parent: str, count: int = CHILDREN) -> None:
    """Half of them are cancelled with their parent, half run all the same. Written without triggers, which would take minutes."""
    with workspace.server.session.transaction():
        workspace.server.run("set local session_replication_role = replica")
        workspace.server.run("update public.jobs set awaited = true where id = %s", parent)
        workspace.server.run(
            "insert into public.jobs (workspace_id, type, blocked_by) select %s, 'test.child', 1 from generate_series(1, %s)",
            workspace.id, count,
        )  # fmt: skip
        workspace.server.run(
            "insert into public.job_dependencies (job_id, parent_id, workspace_id, place, on_parent_failure)"
            " select id, %s, workspace_id, row_number() over (), case when random() < 0.5 then 'cancel' else 'run' end"
            " from public.jobs where workspace_id = %s and type = 'test.child'",
            parent, workspace.id,
        )  # fmt: skip


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_parent_ends_at_once_however_many_children_it_has(workspace: Workspace, end: str) -> None:
    parent = workspace.enqueue()
    children_of(workspace, parent)
    workspace.member.run(TIMEOUT)
    workspace.worker.run(TIMEOUT)
    if end == "cancelled":
        workspace.member.call("cancel_job", job_id=parent)
    else:
        workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=False, give_up=True)
    assert workspace.job(parent)["status"] == end
    assert unsettled(workspace) == 1, "there are too many for one statement"
    settle_all(workspace.worker)
    rows = workspace.server.rows(
        "select d.on_parent_failure, j.status, j.blocked_by, j.event_seq, count(*)::int > 0 as some from public.jobs j"
        " join public.job_dependencies d on d.job_id = j.id where j.workspace_id = %s group by 1, 2, 3, 4 order by 1",
        workspace.id,
    )
    assert rows == [
        {"on_parent_failure": "cancel", "status": "cancelled", "blocked_by": 1, "event_seq": 2, "some": True},
        {"on_parent_failure": "run", "status": "queued", "blocked_by": 0, "event_seq": 1, "some": True},
    ]
    assert unsettled(workspace) == 0
    assert settle_all(workspace.worker) == 0


def test_the_rest_of_the_upkeep_goes_on_beside_a_large_family(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    parent = workspace.enqueue()
    children_of(workspace, parent)
    workspace.member.call("cancel_job", job_id=parent)
    late = other_workspace.enqueue()
    other_workspace.worker.claim()
    other_workspace.expire(late)
    workspace.server.run(TIMEOUT)
    assert workspace.server.call("tend_queue")["released"] >= 1
    assert other_workspace.job(late)["status"] == "queued"


def test_a_small_family_beside_a_large_one_is_settled_in_the_same_call(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    """A worker of both workspaces gives each its share."""
    parent = workspace.enqueue()
    children_of(workspace, parent)
    leave_it_to_the_upkeep(workspace.member, other_workspace.member)
    workspace.member.call("cancel_job", job_id=parent)
    join(workspace, other_workspace.worker)
    for _ in range(5):  # in an order that chance decides
        other = other_workspace.enqueue()
        child = other_workspace.enqueue(depends_on=(other,))
        other_workspace.member.call("cancel_job", job_id=other)
        assert other_workspace.worker.call("settle_dependencies", max_jobs=2)["settle_dependencies"] == 2
        assert other_workspace.job(child)["status"] == "cancelled"
    assert unsettled(workspace) == 1


def join(workspace: Workspace, worker: Caller) -> None:
    """Makes a worker of another workspace one of this workspace too."""
    workspace.server.run(
        "insert into public.workspace_members (workspace_id, user_id, role, worker_id) values (%s, %s, 'worker', %s)",
        workspace.id, worker.user_id, f"w2-{worker.user_id}",
    )  # fmt: skip


def test_a_child_of_two_waits_until_it_has_been_told_of_both(workspace: Workspace) -> None:
    parents = [workspace.enqueue(), workspace.enqueue()]
    child = workspace.enqueue(depends_on=tuple(parents), priority=9)
    leave_it_to_the_upkeep(workspace.worker)
    for _ in parents:
        workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=True)
    assert workspace.worker.rpc("claim_one_job") == []
    assert workspace.worker.call("settle_dependencies", max_jobs=1)["settle_dependencies"] == 1
    assert workspace.job(child)["blocked_by"] == 1
    assert workspace.worker.rpc("claim_one_job") == []
    assert settle_all(workspace.worker) == 1
    assert str(workspace.worker.claim()["id"]) == child


def test_a_job_that_comes_after_its_parents_end_is_not_told_of_it_again(workspace: Workspace) -> None:
    """It waits for the second parent alone, though the first one's other children are not settled yet."""
    ended = workspace.enqueue(priority=9)
    workspace.enqueue(depends_on=(ended,))
    waiting = workspace.enqueue(priority=8, executor_id="later")
    leave_it_to_the_upkeep(workspace.worker)
    workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=True)
    child = workspace.enqueue(depends_on=(ended, waiting))
    assert workspace.job(child)["blocked_by"] == 1
    assert settle_all(workspace.worker) == 1
    assert workspace.job(child)["blocked_by"] == 1


def test_a_cancel_reaches_grandchildren_in_later_slices(workspace: Workspace) -> None:
    parent = workspace.enqueue()
    child = workspace.enqueue(depends_on=(parent,))
    grandchildren = [workspace.enqueue(depends_on=(child,)) for _ in range(3)]
    leave_it_to_the_upkeep(workspace.member)
    workspace.member.call("cancel_job", job_id=parent)
    counts = [
        workspace.worker.call("settle_dependencies", max_jobs=1)["settle_dependencies"] for _ in range(5)
    ]
    assert counts == [1, 1, 1, 1, 0]
    assert {workspace.job(job)["status"] for job in (child, *grandchildren)} == {"cancelled"}
    assert workspace.job(grandchildren[0])["last_detail"]["parent"] == child
    assert workspace.events(grandchildren[2]) == ["queued", "cancelled"]


def test_a_child_in_another_hand_is_not_waited_for_and_not_forgotten(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    parent = workspace.enqueue()
    children = [workspace.enqueue(depends_on=(parent,)) for _ in range(3)]
    holder = sign_in(None)
    holder.session.execute("reset role")
    with holder.session.transaction():
        holder.run("select from public.jobs where id = %s for update", children[0])
        workspace.worker.call("finish_job", **lease(workspace.worker.claim()), ok=True)
        assert settle_all(workspace.worker) == 0
        assert [workspace.job(child)["blocked_by"] for child in children] == [1, 0, 0]
    assert settle_all(workspace.worker) == 1
    assert workspace.job(children[0])["blocked_by"] == 0


def test_a_parent_is_kept_until_all_its_children_know(workspace: Workspace) -> None:
    parent = workspace.enqueue()
    child = workspace.enqueue(depends_on=(parent,))
    leave_it_to_the_upkeep(workspace.member)
    workspace.member.call("cancel_job", job_id=parent)
    workspace.server.run(
        "update public.jobs set finished_at = now() - interval '1 year' where id = %s", parent
    )
    assert workspace.worker.call("remove_old_jobs")["remove_old_jobs"] == 0
    assert settle_all(workspace.worker) == 1
    assert workspace.job(child)["status"] == "cancelled"
    assert workspace.worker.call("remove_old_jobs")["remove_old_jobs"] == 1


def test_parents_that_end_together_free_their_common_child(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    """Both reach for the child at the same time, and it does not wait for the upkeep."""
    for _ in range(10):
        for _ in range(4):
            workspace.enqueue()
        jobs = workspace.worker.rpc("claim_jobs", max_jobs=4)
        child = workspace.enqueue(depends_on=tuple(str(job["id"]) for job in jobs))
        start = threading.Barrier(len(jobs))

        def finish(job: dict[str, object], start: threading.Barrier = start) -> None:
            caller = sign_in(workspace.worker.user_id)
            start.wait()
            caller.call("finish_job", **lease(job), ok=True)

        threads = [threading.Thread(target=finish, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        settle_all(workspace.worker)  # where one of them held the child for more than a tenth of a second
        assert str(workspace.worker.claim()["id"]) == child


def test_two_who_settle_at_once_tell_each_child_once(
    workspace: Workspace, sign_in: Callable[[str | None], Caller]
) -> None:
    parents = [workspace.enqueue() for _ in range(5)]
    children = [workspace.enqueue(depends_on=tuple(parents)) for _ in range(60)]
    leave_it_to_the_upkeep(workspace.worker)
    for job in workspace.worker.rpc("claim_jobs", max_jobs=5):
        workspace.worker.call("finish_job", **lease(job), ok=True)
    settlers = [sign_in(workspace.worker.user_id) for _ in range(4)]
    told: list[int] = []

    def work(caller: Caller) -> None:
        told.append(
            sum(caller.call("settle_dependencies", max_jobs=7)["settle_dependencies"] for _ in range(20))
        )

    threads = [threading.Thread(target=work, args=(caller,)) for caller in settlers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sum(told) + settle_all(workspace.worker) == len(parents) * len(children)
    assert {workspace.job(child)["blocked_by"] for child in children} == {0}
