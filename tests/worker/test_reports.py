"""Every report comes to an end: taken, replaced by a bare error, or left to the lease; it is never repeated
for ever, and whatever a handler returns, the database takes it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.jobs import eventually
from tests.worker.paper_project import Answer, Paper, attempt_at, attempt_with, claim_of, page, refusal
from tests.worker.wild import Rude, names, values
from worker import reports
from worker.attempt import Attempt
from worker.handlers import Context, Done, Error, File, GiveUp, Job, Outcome, Postpone, RetryLater

FILE = File("note.txt", "text/plain", b"hello")
DONE = Done({"n": 1}, (FILE,))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of a tenth of a second, and pauses that are as short."""
    monkeypatch.setattr(reports, "LATER_SECONDS", 0.1)
    monkeypatch.setattr(reports, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(reports, "BARE_SECONDS", 0.05)
    monkeypatch.setattr(reports, "delays", _short_delays)


def _short_delays(*_: float) -> Iterator[float]:
    while True:
        yield 0.005


def refuse_twice_then(code: str, status: int) -> list[Answer]:
    return [refusal(code, status), refusal(code, status), httpx.Response(200, json={"status": "succeeded"})]


@pytest.mark.parametrize(
    "answers",
    [
        refuse_twice_then("40P01", 500),
        refuse_twice_then("database_busy", 503),
        refuse_twice_then("rate_limited", 429),
        [page(), page(), httpx.Response(200, json={"status": "succeeded"})],
        [httpx.Response(200, json=[]), httpx.Response(200, json={"status": "succeeded"})],
        [httpx.Response(200, json={"ok": True}), httpx.Response(200, json={"status": "succeeded"})],
        [httpx.ReadTimeout("silence"), httpx.Response(200, json={"status": "succeeded"})],
    ],
    ids=["a deadlock", "busy", "rate limit", "a proxy's page", "an odd shape", "no status", "silence"],
)
async def test_what_says_later_is_repeated_and_the_result_is_kept(answers: list[Answer]) -> None:
    paper = Paper({"task-result": answers})
    count = len(answers)
    await attempt_at(paper, lambda _: DONE).run()
    assert paper.paths() == ["task-result"] * count
    assert all(body["ok"] for _, body in paper.asked)
    assert len({str(body) for _, body in paper.asked}) == 1, "the same report each time"


@pytest.mark.parametrize("answer", [refusal("database_error", 502), refusal("invalid_body", 422), page(500)])
async def test_a_function_that_does_not_take_a_result_is_passed_by(answer: httpx.Response) -> None:
    """As an older one answers a constraint of the database's, or does not know a field."""
    paper = Paper({"task-result": [answer]})
    await attempt_at(paper, lambda _: DONE).run()
    assert [body["ok"] for body in paper.ended] == [True]
    assert paper.paths()[-1] == "finish_job"


@pytest.mark.parametrize("outcome", [DONE, RetryLater(Error("busy", "Busy."), timedelta(seconds=9))])
async def test_a_report_that_is_refused_falls_back_to_a_bare_error(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    paper = Paper({"task-result": [refusal("invalid_body", 422)], "finish_job": [refusal("21000")]})
    paper.script["finish_job"].append(httpx.Response(200, json={"status": "queued"}))
    await attempt_at(paper, lambda _: outcome).run()
    assert paper.paths() == ["task-result", "finish_job"] * 2
    last = paper.asked[-1][1]
    assert (last["ok"], last["result"], last["artifacts"]) == (False, None, [])
    assert last["error"]["code"] == ("busy" if isinstance(outcome, RetryLater) else "result_refused")
    assert last["error"]["reason"] == "21000"
    assert last.get("retry_after_seconds") == (9 if isinstance(outcome, RetryLater) else None)
    assert sum("a bare error goes in its place" in line for line in caplog.messages) == 1


NEVER_TAKEN: dict[str, list[Answer]] = {
    "refused": [refusal("23514")],
    "later": [refusal("XX000", 500)],
    "a deadlock each time": [refusal("40P01", 500)],
    "a proxy's page": [page()],
    "an odd shape": [httpx.Response(200, json={"jobs": []})],
    "silence": [httpx.ReadTimeout("silence")],
    "nobody there": [httpx.ConnectError("refused")],
}


@pytest.mark.parametrize("how", NEVER_TAKEN)
async def test_a_report_that_is_never_taken_ends_and_the_lease_is_not_renewed_any_more(
    how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(NEVER_TAKEN[how][0], httpx.Response):
        monkeypatch.setattr(reports, "SILENT_SECONDS", 10**9)  # an answer is no silence
    paper = Paper({"task-result": NEVER_TAKEN[how], "finish_job": NEVER_TAKEN[how]})
    async with asyncio.timeout(60):
        await attempt_at(paper, lambda _: DONE, lease_seconds=0.2).run()
    asked = len(paper.asked)
    assert [body.get("error", {}) for path, body in paper.asked if path == "finish_job"][-1], "a bare error"
    assert sum("the job is left to its lease" in line for line in caplog.messages) == 1
    assert "Traceback" not in caplog.text
    await asyncio.sleep(0)
    assert len(paper.asked) == asked


async def test_a_success_whose_answer_was_lost_is_not_taken_for_a_lost_lease(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    gone = httpx.Response(409, json={"code": "lease_lost", "error": "x", "details": {"status": "succeeded"}})
    paper = Paper({"task-result": [httpx.ReadTimeout("lost"), gone]})
    await attempt_at(paper, lambda _: DONE).run()
    assert ended(caplog) == "succeeded"


def ended(caplog: pytest.LogCaptureFixture) -> Any:
    (record,) = [record for record in caplog.records if record.message == "ended"]
    return record.__dict__["fields"]["outcome"]


async def test_files_of_one_name_are_numbered_and_each_try_says_the_same() -> None:
    paper = Paper({"task-result": [refusal("40P01", 500), httpx.Response(200, json={"status": "succeeded"})]})
    files = (
        FILE,
        File("note.txt", "no type", b"two"),
        File("\0", "a/b", b"3"),
        File("note\x00.txt", "a/b", b""),
    )
    await attempt_at(paper, lambda _: Done({}, files)).run()
    first, second = (body["artifacts"] for _, body in paper.asked)
    assert first == second
    assert [row["name"] for row in first] == ["note.txt", "note-2.txt", "file", "note-3.txt"]
    assert [row["mime"] for row in first] == ["text/plain", "application/octet-stream", "a/b", "a/b"]
    assert len({row["path"] for row in first}) == 4
    assert [shown["name"] for shown in paper.asked[0][1]["result"]["artifacts"]] == [
        row["name"] for row in first
    ]


async def test_a_result_that_is_too_large_is_a_named_failure() -> None:
    paper = Paper()
    await attempt_at(paper, lambda _: Done({"text": "x" * 1_100_000})).run()
    (report,) = paper.ended
    assert (report["ok"], report["giveUp"], report["error"]["code"]) == (False, True, "result_too_large")
    assert "1024 KiB" in report["error"]["message"]


async def test_a_result_that_the_function_s_body_has_no_room_for_goes_to_the_database() -> None:
    paper = Paper()
    files = tuple(File(f"{number}.txt", "text/plain", b"") for number in range(500))
    await attempt_at(paper, lambda _: Done({"text": "x" * 1_000_000}, files)).run()
    assert paper.paths() == ["finish_job"]
    assert (paper.refused, len(paper.ended[0]["artifacts"])) == ([], 500)


async def test_more_files_than_a_report_may_have_are_a_named_failure() -> None:
    paper = Paper()
    await attempt_at(paper, lambda _: Done({}, (FILE,) * 1001)).run()
    assert paper.ended[0]["error"]["code"] == "output_too_large"
    assert not paper.stored


async def test_a_checkpoint_that_is_too_large_does_not_keep_the_job() -> None:
    paper = Paper()
    postpone = Postpone(timedelta(seconds=5), "re\0ason" * 1000, checkpoint="x" * 300_000)
    await attempt_at(paper, lambda _: postpone).run()
    assert paper.paths() == ["report_progress", "release_job"]
    released = paper.ended[0]
    assert (released["delay_seconds"], len(released["reason"])) == (5, 1000)


async def test_a_checkpoint_that_is_not_taken_does_not_keep_the_job() -> None:
    paper = Paper({"report_progress": [refusal("23514")]})
    await attempt_at(paper, lambda _: Postpone(timedelta(), "browser_crashed", {"crashes": 1})).run()
    assert paper.asked[0][1]["checkpoint"] == {"crashes": 1}
    assert paper.paths() == ["report_progress", "release_job"]


async def test_a_release_is_repeated_while_nobody_understands_the_answer() -> None:
    paper = Paper(
        {
            "release_job": [
                page(),
                httpx.Response(200, json={}),
                httpx.Response(200, json={"status": "queued"}),
            ]
        }
    )
    await attempt_at(paper, lambda _: Postpone(timedelta(), "busy")).run()
    assert paper.paths() == ["release_job"] * 3


@pytest.mark.parametrize(
    "outcome", [None, {"ok": True}, Done(None), Done({}, None), RetryLater("busy"), Postpone(5, "seconds")]  # type: ignore[arg-type]
)  # fmt: skip
async def test_what_is_no_outcome_is_a_bug_that_is_told(
    outcome: Any, caplog: pytest.LogCaptureFixture
) -> None:
    paper = Paper()
    await attempt_at(paper, lambda _: outcome).run()
    assert [report["error"]["code"] for report in paper.ended] == ["internal_error"]
    assert "bug" in caplog.text


async def test_a_job_that_could_not_be_read_fails_alone_and_for_good() -> None:
    paper = Paper()
    whole = attempt_at(paper, lambda _: DONE)
    claim = claim_of(fault="payload: is nested 1500 deep; 500 can be read")
    await Attempt(claim, whole._shop).run()
    (report,) = paper.ended
    assert report["giveUp"] is True
    assert report["error"] == {
        "code": "payload_unreadable", "field": "payload",
        "message": "payload: is nested 1500 deep; 500 can be read.",
    }  # fmt: skip


async def test_a_type_that_the_worker_does_not_know_is_handed_back_with_a_delay() -> None:
    paper = Paper()
    known = attempt_at(paper, lambda _: DONE)
    await Attempt(claim_of("test.new"), known._shop).run()
    assert (paper.paths(), paper.ended[0]["reason"]) == (["release_job"], "unknown_type")
    assert paper.ended[0]["delay_seconds"] >= 5


class Stubborn:
    """A handler that does not let itself be stopped, until the test has ended."""

    def __init__(self) -> None:
        self.test_ended = asyncio.Event()

    async def __call__(self, _job: Job, _context: Context) -> Outcome:
        while not self.test_ended.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.test_ended.wait()
        return GiveUp(Error("late", "Late."))


@pytest.fixture
async def stubborn(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stubborn]:
    monkeypatch.setattr("worker.attempt._STOP_SECONDS", 0.05)
    before, handler = asyncio.all_tasks(), Stubborn()
    yield handler
    handler.test_ended.set()
    await eventually(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})


async def test_a_handler_that_does_not_stop_holds_up_no_drain(stubborn: Stubborn) -> None:
    paper = Paper()
    attempt = attempt_with(paper, stubborn)
    running = asyncio.create_task(attempt.run())
    await eventually(lambda: attempt._work is not None)
    await asyncio.sleep(0)
    attempt.hand_back()
    await asyncio.wait_for(running, 60)
    assert paper.paths() == ["release_job"]


async def test_a_handler_that_takes_too_long_is_stopped_and_told_of(stubborn: Stubborn) -> None:
    paper = Paper()
    await asyncio.wait_for(attempt_with(paper, stubborn, job_seconds=0.05).run(), 60)
    assert [report["error"]["code"] for report in paper.ended] == ["job_timeout"]


async def test_a_message_that_cannot_be_shown_breaks_no_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = Paper()
    await attempt_at(paper, lambda _: GiveUp(Error("odd", Rude()))).run()  # type: ignore[arg-type]
    assert "failed for good: [unreadable]" in caplog.text
    assert "Logging error" not in capsys.readouterr().err


async def test_a_handler_that_cancels_itself_pays_an_attempt() -> None:
    async def cancelled(_job: Job, _context: Context) -> Outcome:
        raise asyncio.CancelledError

    paper = Paper()
    await attempt_with(paper, cancelled).run()
    assert [report["error"]["code"] for report in paper.ended] == ["internal_error"]


errors = st.builds(Error, names, values, st.dictionaries(st.text(max_size=5), values, max_size=3))
files = st.lists(
    st.builds(
        File,
        st.text(max_size=300) | st.sampled_from(["a.png", "A.png", "\0", "\ud800.png", "a\n.png", "." * 300]),
        st.text(max_size=10) | st.sampled_from(["image/png", "text/html; charset=utf-8", "é/é"]),
        st.binary(max_size=9),
        st.none() | st.integers(-5, 2**33),
        st.none() | st.integers(),
    ),
    max_size=5,
).map(tuple)
durations = st.timedeltas()
outcomes = (
    st.builds(Done, st.dictionaries(st.text(max_size=5) | st.just("timings"), values, max_size=4), files)
    | st.builds(RetryLater, errors, st.none() | durations, files)
    | st.builds(Postpone, durations, names, values)
    | st.builds(GiveUp, errors, files)
    | values
)


@pytest.mark.parametrize("examples", [200, pytest.param(100_000, marks=pytest.mark.soak)])
def test_whatever_a_handler_returns_the_job_ends_with_a_report_that_is_taken(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(outcomes, values, values)
    def check(outcome: Any, progress: Any, checkpoint: Any) -> None:
        async def handle(job: Job, context: Context) -> Outcome:  # noqa: ARG001
            await context.progress(progress, checkpoint=checkpoint)
            returned: Outcome = outcome
            return returned

        paper = Paper()
        asyncio.run(attempt_with(paper, handle).run())
        assert paper.refused == []
        assert len(paper.ended) == 1, paper.paths()

    check()
