"""The health port: alive, ready, counted."""

import asyncio
from collections.abc import Mapping

import httpx

from worker.health import serving
from worker.metrics import Metrics


class Subject:
    well = True

    def __init__(self) -> None:
        self.metrics = Metrics()

    def alive(self) -> bool:
        return self.well

    def readiness(self) -> Mapping[str, object]:
        return {"ready": self.well, "queue": self.well}

    def metrics_text(self) -> str:
        return self.metrics.text({"running_jobs": 2})


async def test_the_answers_follow_the_worker() -> None:
    subject = Subject()
    async with (
        serving(subject, "127.0.0.1", 0, lambda: {"computing": {"running": 1}}) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        assert (await http.get("/healthz")).json() == {"ok": True}
        assert (await http.get("/readyz")).json() == {
            "ready": True, "queue": True, "computing": {"running": 1}
        }  # fmt: skip
        subject.well = False
        assert [(await http.get(path)).status_code for path in ("/healthz", "/readyz")] == [503, 503]
        assert (await http.get("/")).status_code == 404
        wrong = await http.post("/healthz")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
        assert (await http.head("/metrics")).text == ""


async def test_metrics_are_prometheus_text() -> None:
    subject = Subject()
    subject.metrics.add("jobs_total", type='odd"type\\\n', outcome="failed")
    subject.metrics.add("jobs_total", 2, type="a", outcome="failed")
    async with serving(subject, "127.0.0.1", 0) as port, httpx.AsyncClient(timeout=60) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/metrics?x=1")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE sidejob_worker_jobs_total counter" in answer.text
    assert 'sidejob_worker_jobs_total{outcome="failed",type="a"} 2' in answer.text
    assert 'type="odd\\"type\\\\\\n"} 1' in answer.text
    assert "sidejob_worker_running_jobs 2" in answer.text


async def test_a_caller_that_is_no_browser_does_no_harm() -> None:
    async with serving(Subject(), "127.0.0.1", 0) as port:
        for words in (b"", b"hello\r\n\r\n", b"x" * 20_000, b"\x00\xff\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            writer.write_eof()
            await reader.read()
            writer.close()
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
