"""Log lines are JSON objects, carry what the task bound, and hold no secret."""

import asyncio
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
