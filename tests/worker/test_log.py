"""Log lines are JSON objects, carry what the task bound, and hold no secret."""

import asyncio
import io
import json
import logging
from typing import Any

from worker import log


def line(message: str, *args: object, error: BaseException | None = None, **fields: object) -> dict[str, Any]:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("worker.x", logging.WARNING, "f.py", 1, message, args, info)
    record.__dict__.update(log.fields(**fields))
    text = log.JsonLines(frozenset({'pass"word', ""})).format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


async def test_a_line_says_which_job_of_many_it_is_about() -> None:
    async def work(job_id: str) -> dict[str, Any]:
        with log.bound(jobId=job_id, attempt=1):
            await asyncio.sleep(0)
            return line("working", code="x")

    lines = await asyncio.gather(work("a"), work("b"))
    assert [(entry["jobId"], entry["attempt"], entry["code"]) for entry in lines] == [
        ("a", 1, "x"),
        ("b", 1, "x"),
    ]
    assert line("done").keys() == {"ts", "severity", "logger", "message"}


def test_secrets_are_cut_out_of_message_field_and_traceback() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefgh"
    try:
        raise ValueError(f'pass"word {token} sb_secret_abc')
    except ValueError as error:
        found = json.dumps(line('pass"word and %s', token, error=error, hint='pass"word'))
    for secret in ("pass", token, "sb_secret_abc"):
        assert secret not in found.replace("ValueError", "")
    assert "Traceback" in found


def test_a_line_has_the_severity_that_cloud_logging_knows() -> None:
    names = {5: "DEBUG", 10: "DEBUG", 20: "INFO", 25: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
    assert {level: log.severity(level) for level in names} == names
    assert line("x")["severity"] == "WARNING"


def test_half_an_emoji_loses_no_line() -> None:
    text = line("half \ud83d an emoji", hint="\udc00")["message"]
    assert text == "half ? an emoji"


def test_a_long_text_is_cut_in_its_middle() -> None:
    said = line("a" * 1_000_000 + "end", hint="b" * 1_000_000)
    for text in (said["message"], said["hint"]):
        assert len(text) < log.MAX_TEXT + 100
        assert "characters left out" in text
    assert said["message"].endswith("end")


class Minute:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def output(clock: Minute) -> tuple[logging.Logger, io.StringIO]:
    stream, logger = io.StringIO(), logging.Logger("worker.x")  # noqa: LOG001  of this test alone
    handler = log.Output(stream, log.Repeats(clock))
    handler.setFormatter(log.JsonLines())
    logger.addHandler(handler)
    return logger, stream


def test_one_place_writes_so_many_lines_a_minute_and_then_says_how_many_it_left_out() -> None:
    clock = Minute()
    logger, stream = output(clock)
    for number in range(100_000):
        logger.info("request %d was refused", number)  # one place, whatever it says
    logger.info("another place")
    assert len(stream.getvalue().splitlines()) == log.MAX_LINES + 1
    clock.now += 61
    logger.info("a minute later")
    *_, left_out, later = map(json.loads, stream.getvalue().splitlines())
    assert (left_out["message"], left_out["leftOut"]) == (
        "lines like this were left out: request %d was refused",
        100_000 - log.MAX_LINES,
    )
    assert later["message"] == "a minute later"


def test_one_job_s_lines_take_no_room_from_another_s() -> None:
    logger, stream = output(Minute())
    for job in ("noisy", "quiet"):
        with log.bound(jobId=job):
            for _ in range(1000 if job == "noisy" else 5):
                logger.info("said")
    jobs = [json.loads(text)["jobId"] for text in stream.getvalue().splitlines()]
    assert (jobs.count("noisy"), jobs.count("quiet")) == (log.MAX_LINES_OF_JOB, 5)


def test_tracebacks_are_fewer() -> None:
    logger, stream = output(Minute())
    for _ in range(1000):
        try:
            raise ValueError("x")
        except ValueError:
            logger.exception("a bug")
    assert len(stream.getvalue().splitlines()) == log.MAX_TRACEBACKS
