"""Random lives of many jobs, in the database and in a plain model of it, compared after every step."""

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.database.callers import Caller, Row, Workspace
from tests.database.queue_model import AT_ONCE, FINAL, IN_FLIGHT, Job, Lease, Model, Refused

ROLES = {"worker": "worker", "worker2": "worker", "member": "member", "viewer": "viewer", "stranger": None}
# Seconds from now. What a step does must not hang on the real seconds that pass, or hypothesis could not repeat it: no sum of
# clock jumps comes near one of these, a lease's length, or the jitter of a retry.
DELAYS = st.sampled_from([None, None, -60, 45, 905])
SECONDS = st.sampled_from([15, 60, 600])  # of a lease
JSON = st.sampled_from([{}, {"a": 1}, {"a": 2}])


def of_the_attempt_before(lease: Lease) -> Lease:
    return replace(lease, attempt=(lease.attempt or 0) - 1)


def of_the_attempt_after(lease: Lease) -> Lease:
    return replace(lease, attempt=(lease.attempt or 0) + 1)


def with_a_guessed_token(lease: Lease) -> Lease:
    return replace(lease, token="guessed")


def with_neither(lease: Lease) -> Lease:
    return replace(lease, attempt=None, token=None)


def as_given(lease: Lease) -> Lease:
    return lease


Others = list[tuple[str, Callable[[Lease], Lease]]]  # who tries, and what he makes of the lease
OTHERS: st.SearchStrategy[Others] = st.lists(
    st.sampled_from(
        [
            ("holder", as_given),
            ("holder", of_the_attempt_before),
            ("holder", of_the_attempt_after),
            ("holder", with_a_guessed_token),
            ("holder", with_a_guessed_token),
            ("holder", with_neither),
            ("worker2", as_given),
            ("worker2", with_neither),
            ("member", as_given),
            ("viewer", as_given),
            ("stranger", as_given),
        ]
    ),
    max_size=4,
)

STEPS: Counter[str] = Counter()  # how often each rule ran, over all examples of a test


def machine(workspace: Workspace) -> type[RuleBasedStateMachine]:
    """The machine over this workspace, which each example finds empty."""
    people: dict[str, Caller] = {name: workspace.add(name, role) for name, role in ROLES.items()}
    sql = workspace.server
    for session in (sql, *people.values()):
        session.run("set synchronous_commit = off")  # what a crash would lose is no part of this

    class Queue(RuleBasedStateMachine):
        jobs: Bundle[str] = Bundle("jobs")
        leases: Bundle[Lease] = Bundle("leases")  # every one ever given, most of them long lost

        def __init__(self) -> None:
            super().__init__()
            self.model = Model(ROLES)
            self.clock: datetime = clock(sql)  # the database's, when it was last looked at
            self.progress_at: dict[str, datetime] = {}
            self.first_id = uuid.UUID(
                workspace.id
            ).int  # ids in order, where a date is the same for several jobs
            self.asked = 0

        @initialize(target=jobs, max_attempts=st.lists(st.integers(1, 3), min_size=2, max_size=5))
        def begin(self, max_attempts: list[int]) -> MultipleResults[str]:
            """Jobs to begin with: most rules need a lease, and a lease needs a job that is due."""
            sql.run(
                "delete from public.job_events where job_id in (select id from public.jobs where workspace_id = %s)",
                workspace.id,
            )
            sql.run("delete from public.jobs where workspace_id = %s", workspace.id)  # and its dead letters
            return multiple(*[str(self.ask("member", max_attempts=most)) for most in max_attempts])

        def both(self, rule: str, real: Callable[[], Row], model: Callable[[Row], object]) -> Row:
            """Makes the call, then asks the model, which must answer the same status or refuse with the same code."""
            STEPS[rule] += 1
            answer: Row = {}
            code = None
            try:
                answer = real()
            except psycopg.Error as error:
                code = error.sqlstate or str(error)
            try:
                expected, wanted = model(answer), None
            except Refused as refusal:
                expected, wanted = None, refusal.code
            assert (code, answer.get("status")) == (wanted, expected), (code, answer, wanted, expected)
            return answer

        @rule(
            target=jobs,
            caller=st.sampled_from(["member"] * 8 + ["viewer", "worker", "stranger"]),
            priority=st.integers(0, 9),
            max_attempts=st.integers(1, 3),
            delay=DELAYS,
            key=st.sampled_from([None, None, None, "k1", "k2"]),
            payload=JSON,
        )
        def enqueue(
            self,
            caller: str,
            priority: int,
            max_attempts: int,
            delay: float | None,
            key: str | None,
            payload: dict[str, object],
        ) -> str | MultipleResults[str]:
            job_id = self.ask(caller, priority, max_attempts, delay, key, payload)
            return job_id or multiple()

        @rule(
            target=leases,
            caller=st.sampled_from(["worker"] * 5 + ["worker2"] * 3 + ["stranger"]),
            most=st.integers(1, 5),
            seconds=SECONDS,
            jump=st.sampled_from([0, 0, 20, 70, 1000]),
            start=st.booleans(),
        )
        def claim(
            self, caller: str, most: int, seconds: int, jump: int, start: bool
        ) -> MultipleResults[Lease]:
            STEPS["claim"] += 1
            self.pass_time(jump)
            if ROLES[caller] != "worker":
                with pytest.raises(psycopg.Error) as error:
                    people[caller].rpc("claim_jobs", max_jobs=most, lease_seconds=seconds, start=start)
                assert error.value.sqlstate == "SJ201"
                return multiple()
            answer = people[caller].rpc("claim_jobs", max_jobs=most, lease_seconds=seconds, start=start)
            taken = [(str(job["id"]), str(job["lease_token"])) for job in answer]
            # A job may have become due while the call ran; the one at its beginning and the one at its end are both right.
            possible = [[job.id for job in self.model.due(at)][:most] for at in (self.clock, clock(sql))]
            assert [job_id for job_id, _ in taken] in possible
            leases = self.model.claim(caller, taken, seconds, start=start)
            assert [job["attempt"] for job in answer] == [lease.attempt for lease in leases]
            for job in answer:
                assert job["checkpoint"] == self.model.jobs[str(job["id"])].checkpoint
            return multiple(*leases)

        def under(
            self,
            rule: str,
            lease: Lease,
            others: Others,
            real: Callable[[Caller, Row], Row],
            model: Callable[[str, Lease, Row], str],
        ) -> None:
            """Others try with this lease or one like it, then its holder with his own, then the others again, too late."""
            tries = [(lease.owner if who == "holder" else who, forge(lease)) for who, forge in others]
            for by, shown in [*tries, (lease.owner, lease), *tries]:
                self.both(rule, partial(real, people[by], fence(shown)), partial(model, by, shown))
                self.look()

        @rule(
            lease=leases,
            others=OTHERS,
            move=st.sampled_from(["start", "renew", "progress"]),
            seconds=SECONDS,
            checkpoint=st.none() | JSON,
        )
        def go_on(self, lease: Lease, others: Others, move: str, seconds: int, checkpoint: object) -> None:
            if move == "start":
                self.start(lease, others)
            elif move == "renew":
                self.renew(lease, others, seconds)
            else:
                self.progress(lease, others, checkpoint)

        @rule(
            lease=leases,
            others=OTHERS,
            move=st.sampled_from(["succeed", "fail", "give up", "release"]),
            delay=DELAYS,
            report=JSON,
        )
        def end(
            self, lease: Lease, others: Others, move: str, delay: float | None, report: dict[str, Any]
        ) -> None:
            if move == "succeed":
                self.succeed(lease, others, report)
            elif move == "release":
                self.release(lease, others, delay)
            else:
                self.fail(lease, others, report, delay, give_up=move == "give up")

        def start(self, lease: Lease, others: Others) -> None:
            self.under(
                "start",
                lease,
                others,
                lambda by, held: by.call("start_job", **held),
                lambda by, shown, _: self.model.start(by, shown),
            )

        def renew(self, lease: Lease, others: Others, seconds: int) -> None:
            self.under(
                "renew",
                lease,
                others,
                lambda by, held: by.call("renew_lease", **held, lease_seconds=seconds),
                lambda by, shown, _: self.model.renew(by, shown, seconds),
            )

        def progress(self, lease: Lease, others: Others, checkpoint: object) -> None:
            def model(by: str, shown: Lease, answer: Row) -> str:
                stored = bool(answer.get("stored"))
                status = self.model.progress(by, shown, checkpoint, stored=stored)
                last = self.progress_at.get(shown.job_id)
                second = timedelta(seconds=1)
                if last is None or self.clock - last >= second:
                    assert stored, "kept once a second"
                elif clock(sql) - last < second:
                    assert not stored, "kept only once a second"
                return status

            sent = {"progress": {"n": STEPS["progress"]}, "checkpoint": checkpoint}
            self.under(
                "progress",
                lease,
                others,
                lambda by, held: by.call("report_progress", **held, **sent),
                model,
            )

        def release(self, lease: Lease, others: Others, delay: float | None) -> None:
            run_at = self.at(delay)
            self.under(
                "release",
                lease,
                others,
                lambda by, held: by.call("release_job", **held, run_at=run_at, reason="drain"),
                lambda by, shown, _: self.model.release(by, shown, self.later(run_at) or AT_ONCE),
            )

        def succeed(self, lease: Lease, others: Others, result: dict[str, Any]) -> None:
            self.under(
                "succeed",
                lease,
                others,
                lambda by, held: by.call("finish_job", **held, ok=True, result=result),
                lambda by, shown, _: self.model.succeed(by, shown, result),
            )

        def fail(
            self, lease: Lease, others: Others, error: dict[str, Any], delay: float | None, *, give_up: bool
        ) -> None:
            run_at = self.at(delay)
            report = {"ok": False, "error": error, "retry_at": run_at, "give_up": give_up}
            # A date in the past is no date: the job runs again at once.
            due = None if run_at is None else self.later(run_at) or AT_ONCE
            self.under(
                "fail",
                lease,
                others,
                lambda by, held: by.call("finish_job", **held, **report),
                lambda by, shown, _: self.model.fail(by, shown, error, due, give_up=give_up),
            )

        @rule(
            held=st.lists(leases, min_size=1, max_size=4, unique_by=lambda lease: lease.job_id),
            by=st.sampled_from(["worker", "worker", "worker2"]),
            oks=st.lists(st.booleans(), min_size=4, max_size=4),
            body=JSON,
        )
        def end_several(self, held: list[Lease], by: str, oks: list[bool], body: dict[str, Any]) -> None:
            """One call for several attempts: those that do not hold get no status, and the others stand."""
            STEPS["end several"] += 1
            reports = [
                {**fence(lease), "ok": ok, "result" if ok else "error": body}
                for lease, ok in zip(held, oks, strict=False)
            ]
            answer = people[by].rpc("finish_jobs", reports=reports)
            expected: list[str | None] = []
            for lease, ok in zip(held, oks, strict=False):
                try:
                    if ok:
                        expected.append(self.model.succeed(by, lease, body))
                    else:
                        expected.append(self.model.fail(by, lease, body, None, give_up=False))
                except Refused:
                    expected.append(None)
            assert [(str(row["job_id"]), row["status"]) for row in answer] == [
                (lease.job_id, status) for lease, status in zip(held, expected, strict=True)
            ]

        @precondition(lambda self: any(job.reason for job in self.model.jobs.values()))
        @rule(data=st.data(), caller=st.sampled_from(["member", "member", "viewer", "worker", "stranger"]))
        def retry(self, data: st.DataObject, caller: str) -> None:
            failed = [job.id for job in self.model.jobs.values() if job.reason]
            job_id = failed[data.draw(st.integers(0, len(failed) - 1))]
            (letter,) = sql.rows("select id from public.dead_letters where job_id = %s", job_id)

            def model(answer: Row) -> None:
                again = str(answer["job_id"]) if answer else None
                assert self.model.retry(caller, job_id, again) == again

            self.both("retry", lambda: people[caller].call("retry_dead_letter", id=letter["id"]), model)

        @rule(job_id=jobs, caller=st.sampled_from(["member", "viewer", "worker", "stranger"]))
        def cancel(self, job_id: str, caller: str) -> None:
            self.both(
                "cancel",
                lambda: people[caller].call("cancel_job", job_id=job_id),
                lambda _: self.model.cancel(caller, job_id),
            )

        @precondition(lambda self: any(job.status in IN_FLIGHT for job in self.model.jobs.values()))
        @rule(
            most=st.sampled_from([1, 100]),
            caller=st.sampled_from(["worker"] * 6 + ["member"]),
            jump=st.sampled_from([0, 20, 1000]),
        )
        def sweep(self, most: int, caller: str, jump: int) -> None:
            STEPS["sweep"] += 1
            self.pass_time(jump)
            if caller != "worker":
                with pytest.raises(psycopg.Error) as error:
                    people[caller].rpc("release_expired_leases", max_jobs=most)
                assert error.value.sqlstate == "SJ201"
                return
            if any(job.retried_as for job in self.model.jobs.values()):
                most = 100  # their ids are the database's, and in whose order a sweep begins could not be repeated
            (answer,) = people[caller].rpc("release_expired_leases", max_jobs=most)
            sure, possible = self.model.late(self.clock), self.model.late(clock(sql))
            taken = [
                job for job in possible if self.rows()[job.id]["event_seq"] > len(job.events)
            ]  # which of them, the sweep decides
            assert answer["release_expired_leases"] == len(taken)
            assert min(most, len(sure)) <= len(taken) <= most
            for job in taken:
                self.model.expire(job)

        def pass_time(self, seconds: int) -> None:
            """Moves every date that the queue waits for into the past, which is what a jump of its clock comes to."""
            STEPS["clock jump"] += seconds > 0
            by = timedelta(seconds=seconds)
            sql.run(
                "update public.jobs set next_run_at = next_run_at - %s, lease_until = lease_until - %s,"
                " progress_at = progress_at - %s where workspace_id = %s",
                *[by] * 3,
                workspace.id,
            )
            self.model.pass_time(by)
            for job_id in self.progress_at:
                self.progress_at[job_id] -= by

        def ask(
            self,
            caller: str,
            priority: int = 0,
            max_attempts: int = 3,
            delay: float | None = None,
            key: str | None = None,
            payload: dict[str, object] | None = None,
        ) -> str | None:
            """The id of a job that is new."""
            run_at = self.at(delay)
            payload = payload or {}
            self.asked += 1

            def real() -> Row:
                return people[caller].call(
                    "enqueue_job",
                    job_id=str(uuid.UUID(int=self.first_id + self.asked)),
                    workspace_id=workspace.id,
                    type="test.job",
                    payload=payload,
                    priority=priority,
                    max_attempts=max_attempts,
                    run_at=run_at,
                    idempotency_key=key,
                )

            def model(answer: Row) -> object:
                self.model.require(caller, "member", "owner")
                first = self.model.known(key, payload)
                if not answer:
                    return None
                assert answer["queued"] is (first is None)
                if first is None:
                    due = self.later(run_at) or AT_ONCE
                    first = Job(str(answer["job_id"]), priority, max_attempts, key, payload, due)
                    self.model.enqueue(first)
                assert str(answer["job_id"]) == first.id
                return first.status

            answer = self.both("enqueue", real, model)
            return str(answer["job_id"]) if answer.get("queued") else None

        def at(self, delay: float | None) -> datetime | None:
            return None if delay is None else self.clock + timedelta(seconds=delay)

        def later(self, run_at: datetime | None) -> datetime | None:
            return run_at if run_at is not None and run_at > self.clock else None

        def rows(self) -> dict[str, Row]:
            found = sql.rows(
                "select *, clock_timestamp() as looked_at from public.jobs where workspace_id = %s",
                workspace.id,
            )
            return {str(row["id"]): row for row in found}

        @invariant()
        def look(self) -> None:
            """Every row, event and dead letter is what the model says, and what the model left open lies in its window."""
            began, self.clock = self.clock, clock(sql)
            rows = self.rows()
            assert set(rows) == set(self.model.jobs), "a job is lost, or one is there that nobody asked for"
            for job in self.model.jobs.values():
                row = rows[job.id]
                job.due = settled(job.due, row["next_run_at"], began, self.clock)
                job.lease_until = settled(job.lease_until, row["lease_until"], began, self.clock)
                if row["progress_at"] is not None:
                    self.progress_at[job.id] = row["progress_at"]
                check(job, row, people)
            self.check_history()

        def check_history(self) -> None:
            told: dict[str, list[tuple[int, str, int]]] = {job_id: [] for job_id in self.model.jobs}
            for event in sql.rows(
                "select job_id, seq, event_type, attempt from public.job_events where job_id = any (%s::uuid[]) order by job_id, seq",
                [*told],
            ):
                told[str(event["job_id"])].append(
                    (event["seq"], event["event_type"].removeprefix("job."), event["attempt"])
                )
            for job in self.model.jobs.values():
                assert told[job.id] == [(seq, *event) for seq, event in enumerate(job.events, 1)]
            letters = sql.rows(
                "select job_id, reason from public.dead_letters where workspace_id = %s", workspace.id
            )
            assert sorted((str(letter["job_id"]), letter["reason"]) for letter in letters) == sorted(
                (job.id, job.reason) for job in self.model.jobs.values() if job.reason
            )

        def teardown(self) -> None:
            """Whatever happened before: once time has passed, workers bring every job to its end."""
            for _ in range(4):  # expired, and then up to three attempts
                self.pass_time(100_000)
                people["worker"].rpc("release_expired_leases", max_jobs=1000)
                for job in people["worker"].rpc("claim_jobs", max_jobs=1000):
                    people["worker"].call(
                        "finish_job",
                        job_id=job["id"],
                        attempt=job["attempt"],
                        lease_token=job["lease_token"],
                        ok=True,
                    )
            assert {row["status"] for row in self.rows().values()} <= FINAL

    return Queue


def fence(lease: Lease) -> Row:
    """The three arguments that every write after a claim carries."""
    return {"job_id": lease.job_id, "attempt": lease.attempt, "lease_token": lease.token}


def clock(sql: Caller) -> datetime:
    (row,) = sql.rows("select clock_timestamp() as now")
    now: datetime = row["now"]
    return now


def settled(
    moment: datetime | tuple[timedelta, timedelta] | None, found: datetime, began: datetime, ended: datetime
) -> Any:
    """The instant that the database chose, which lies where the model has it."""
    if isinstance(moment, tuple):
        assert began + moment[0] <= found <= ended + moment[1], (moment, found, began, ended)
    else:
        assert found == moment
    return found


def check(job: Job, row: Row, people: dict[str, Caller]) -> None:
    assert {
        "status": row["status"],
        "attempts": row["attempts"],
        "released": row["released"],
        "priority": row["priority"],
        "holder": str(row["lease_owner"]) if row["lease_owner"] else None,
        "checkpoint": row["checkpoint"],
        "result": row["result"],
        "error": row["error"],
        "started": row["started_at"] is not None,
        "event_seq": row["event_seq"],
        "last_event": row["last_event"],
    } == {
        "status": job.status,
        "attempts": job.attempts,
        "released": job.released,
        "priority": job.priority,
        "holder": people[job.holder].user_id if job.holder else None,
        "checkpoint": job.checkpoint,
        "result": job.result,
        "error": job.error,
        "started": job.started,
        "event_seq": len(job.events),
        "last_event": f"job.{job.events[-1][0]}",
    }
    assert (row["lease_until"] is not None) == (job.status in IN_FLIGHT)
    assert (row["finished_at"] is not None) == (job.status in FINAL)
    assert row["attempts"] - row["released"] <= row["max_attempts"], "more attempts than the budget"


def run(workspace: Workspace, examples: int, steps: int, chosen: int | None = None) -> None:
    """Lives at random: those of the `chosen` number, or others each time."""
    run_state_machine_as_test(
        machine(workspace) if chosen is None else seed(chosen)(machine(workspace)),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            # A shorter life that shows the same is looked for only where there is time for it.
            phases=[Phase.generate, Phase.shrink] if chosen is None else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


RULES = ["enqueue", "claim", "start", "renew", "progress", "release", "succeed", "fail"]
RULES += ["end several", "retry", "cancel", "sweep", "clock jump"]


def test_the_queue_does_what_its_model_does(workspace: Workspace) -> None:
    STEPS.clear()
    for chosen in range(20):  # the same lives every time, and no more than it takes to see each rule
        run(workspace, examples=2, steps=30, chosen=chosen)
        if min(STEPS[rule] for rule in RULES) > 1:
            break
    assert min(STEPS[rule] for rule in RULES) > 1, STEPS


@pytest.mark.soak
def test_the_queue_does_what_its_model_does_for_a_long_time(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    STEPS.clear()
    run(workspace, examples=80, steps=100)
    with capsys.disabled():
        print(f"\nqueue machine: {STEPS.total():,} steps, {dict(STEPS.most_common())}")
    assert min(STEPS[rule] for rule in RULES) > 20
