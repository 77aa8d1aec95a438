"""What is only passed on is never parsed: rows that Python cannot read break no list, and do not change."""

import asyncio
import gzip
import json
import re
import tracemalloc

import pytest

from sidejob import config
from sidejob.database import Database
from sidejob.operations import job_events
from sidejob.pages import PAGE_BYTES
from tests.functions.conftest import USER, Load, Project, bearer

DEEP = b'{"a":' + b"[" * 1500 + b"]" * 1500 + b"}"
LONG = b'{"n":' + b"9" * 5000 + b"}"
EXACT = b'{"a":1.10,"b":9007199254740993,"c":1e400,"d":0.1234567890123456789,"e":-0}'
WHEN = "2026-11-23T18:13:31.078735+00:00"


def row(payload: bytes, **columns: object) -> bytes:
    """A row as PostgREST writes it."""
    told = {
        "id": USER,
        "created_at": WHEN,
        "seq": 1,
        "event_seq": 1,
        "status": "queued",
        "event_type": "job.queued",
    }
    return json.dumps(told | columns).encode()[:-1] + b',"payload":' + payload + b"}"


def rows(*items: bytes) -> bytes:
    return b"[" + b", \n ".join(items) + b"]"


def answering(project: Project, *bodies: bytes) -> None:
    """Each request has the next of them, and the last has all that follow."""
    waiting = [*bodies]
    project.encode = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]
    project.answers = [(200, None)]


LISTS = {
    "jobs-recent": "/?fields=id,created_at,payload",
    "dlq-list": "/?fields=id,created_at,payload",
    "collab": f"/api/collab/events/by-job/{USER}",
}


@pytest.mark.parametrize("payload", [DEEP, LONG, EXACT])
@pytest.mark.parametrize("function", LISTS)
def test_a_row_that_python_cannot_read_breaks_no_list(
    project: Project,
    load: Load,
    function: str,
    payload: bytes,
) -> None:
    listed = rows(row(b"{}"), row(payload), row(b'{"last":true}'))
    answering(project, *([rows(row(b"{}"))] if function == "collab" else []), listed)
    answer = load(function).get(LISTS[function], headers=bearer())
    assert answer.status_code == 200, answer.data[:300]
    assert payload in answer.data
    assert answer.data.count(b'"payload":') == 3


@pytest.mark.parametrize("payload", [DEEP, LONG, EXACT])
def test_nor_does_it_break_the_status_of_its_job(project: Project, load: Load, payload: bytes) -> None:
    answering(project, rows(row(payload)), rows(row(b"{}")), rows(row(payload)))
    answer = load("job-status").get(f"/?id={USER}", headers=bearer())
    assert answer.status_code == 200
    assert answer.data.count(payload) == 2


@pytest.mark.parametrize("payload", [DEEP, LONG, EXACT])
def test_nor_its_claim(project: Project, load: Load, payload: bytes) -> None:
    answering(project, rows(row(payload, lease_token="t")))
    answer = load("task-claim").post("/", json={"executorId": "e"}, headers=bearer())
    assert answer.status_code == 200
    assert payload in answer.data


@pytest.mark.parametrize("payload", [DEEP, LONG, EXACT])
def test_nor_the_stream_of_its_events(project: Project, load: Load, payload: bytes) -> None:
    last = row(payload, event_type="job.succeeded")
    answering(project, rows(row(b"{}", status="running")), rows(last))
    load("job-events")

    async def frames() -> list[str]:
        return [frame async for frame in job_events._frames(Database("request-1", token="t"), USER, 0)]

    _, event = asyncio.run(frames())
    assert payload.decode() in event
    assert event.count("\n") == 4, "three lines and an empty one"


def test_a_payload_reaches_the_database_as_it_was_written(project: Project, load: Load) -> None:
    written = (
        b'{"a": 1.10, "b": 9007199254740993, "c": [0.1234567890123456789, -0, 1E5], "d": "\\ud83d\\ude00"}'
    )
    answering(project, b'[{"job_id":"%s","queued":true,"status":"queued"}]' % USER.encode())
    body = b'{"type":"t","payload":' + written + b"}"
    headers = {**bearer(), "Content-Type": "application/json"}
    assert load("task-assign").post("/", data=body, headers=headers).status_code == 200
    assert written in project.bodies[-1]


def test_a_result_and_an_error_reach_it_as_they_were_written(project: Project, load: Load) -> None:
    answering(project, b'[{"job_id":"%s","status":"succeeded"}]' % USER.encode())
    client, headers = load("task-result"), {**bearer(), "Content-Type": "application/json"}
    report = b'{"jobId":"%s","attempt":1,"leaseToken":"t",' % USER.encode()
    for told in (
        b'"ok":true,"result":{"n":[1.10,9007199254740993]%s}}',
        b'"ok":false,"error":{"n":[1.10,9007199254740993]%s}}',
    ):
        for more in (b"", b',"u":"https:\\/\\/p.test\\/object\\/sign\\/a?token=b"'):
            answer = client.post("/", data=report + told % more, headers=headers)
            assert answer.status_code == 200, answer.data
            assert b"[1.10,9007199254740993]" in project.bodies[-1]
            assert b"token=b" not in project.bodies[-1], "a signed URL is taken out however it is written"


def test_metrics_reach_it_as_they_were_written(project: Project, load: Load) -> None:
    answering(project, b'[{"ts":"%s","cancelled":[]}]' % WHEN.encode())
    body = b'{"agentId":"a","executorId":"e","status":"idle","metrics":{"n": 1.10}}'
    headers = {**bearer(), "Content-Type": "application/json"}
    assert load("worker-heartbeat").post("/", data=body, headers=headers).status_code == 200
    assert b'{"n": 1.10}' in project.bodies[-1]


@pytest.mark.parametrize("packed", [False, True])
def test_a_page_of_a_hundred_large_payloads_takes_a_page_of_memory(
    project: Project,
    load: Load,
    packed: bool,
) -> None:
    item = row(b'{"x":"' + b"y" * 195_000 + b'"}')
    whole = rows(*[item] * 101)
    answering(project, gzip.compress(whole) if packed else whole)
    project.more = {"Content-Encoding": "gzip"} if packed else {}
    client = load("jobs-recent")
    client.get("/?limit=100&fields=payload", headers=bearer())
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        answer = client.get("/?limit=100&fields=payload", headers=bearer())
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert answer.status_code == 200
    assert PAGE_BYTES // 2 < len(answer.data) <= PAGE_BYTES
    assert answer.get_json()["nextCursor"]
    sending = 0 if packed else len(whole)  # the project of the test is in this process, too
    assert peak - sending < 16 * PAGE_BYTES


def test_a_page_has_one_item_at_least(project: Project, load: Load) -> None:
    large = row(b'{"x":"' + b"y" * (PAGE_BYTES + 100_000) + b'"}')
    answering(project, rows(large, large))
    page = load("jobs-recent").get("/?fields=id,payload", headers=bearer()).get_json()
    assert (page["count"], page["nextCursor"] is None) == (1, False)


def test_what_unpacks_to_very_much_is_not_unpacked(
    project: Project, load: Load, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
    config.settings.cache_clear()
    project.more = {"Content-Encoding": "gzip"}
    answering(project, gzip.compress(b"[" + b" " * 120_000_000 + b"]"))
    client = load("metrics-overview")
    tracemalloc.start()
    try:
        answer = client.get("/", headers=bearer())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.status_code, answer.get_json()["code"]) == (502, "database_error")
    assert peak < 80_000_000


@pytest.mark.parametrize(
    "function", ["jobs-recent", "dlq-list", "artifacts-list", "workers-active", "collab"]
)
def test_a_field_that_is_no_column_is_refused_by_name(load: Load, function: str) -> None:
    path = f"/api/collab/events/by-job/{USER}" if function == "collab" else "/"
    given = {"fields": "status,colour", **({"jobId": USER} if function == "artifacts-list" else {})}
    answer = load(function).get(path, query_string=given, headers=bearer())
    told = answer.get_json()
    assert (answer.status_code, told["code"], told["details"]) == (
        400,
        "invalid_parameter",
        {"field": "fields"},
    )
    assert "`fields` names 'colour'" in told["error"] or "`fields` names 'status'" in told["error"]
    empty = load(function).get(path, query_string=given | {"fields": ""}, headers=bearer())
    assert empty.status_code == 400


def test_a_stream_goes_on_after_events_that_had_no_room_in_one_look(project: Project, load: Load) -> None:
    load("job-events")
    payload = b'{"x":"' + b"y" * 1_500_000 + b'"}'
    events = [row(payload, seq=seq, event_type="job.progress") for seq in range(1, 6)]
    events.append(row(b"{}", seq=6, event_type="job.succeeded"))
    running = rows(row(b"{}", status="running", event_seq=6))

    def answer(_: bytes) -> bytes:
        after = re.search(r"seq=gt\.(\d+)", project.paths[-1])
        return running if after is None else rows(*events[int(after[1]) :])

    project.encode = answer
    project.answers = [(200, None)]

    async def ids() -> list[str]:
        frames = job_events._frames(Database("request-1", token="t"), USER, 0)
        return [frame.partition("\n")[0] async for frame in frames]

    assert asyncio.run(ids()) == ["retry: 1000", *(f"id: {seq}" for seq in range(1, 7))]


def test_very_many_workers_are_shown_without_their_metrics(project: Project, load: Load) -> None:
    beat = b'{"worker_id":"w","agent_id":"a%d","last_seen":"%s"%s}'

    def answer(_: bytes) -> bytes:
        metrics = b',"metrics":{"x":"%s"}' % (b"y" * 16_000) if "metrics" in project.paths[-1] else b""
        return rows(*(beat % (number, WHEN.encode(), metrics) for number in range(500)))

    project.encode = answer
    project.answers = [(200, None)]
    page = load("workers-active").get("/", headers=bearer()).get_json()
    assert (page["count"], page["nextCursor"]) == (500, None)
    assert "metrics" not in page["items"][0]
    assert len(project.paths) == 2
