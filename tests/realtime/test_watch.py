"""`sidejob.watch`: each event of a job once and in order, whatever fails; and nothing is left behind."""

import asyncio
import contextlib
import gc
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions

from sidejob import watch as watching
from sidejob.watch import Event, JobNotFound, watch
from tests.functions.test_job_flow import assign, claim, lease
from tests.realtime.conftest import OwnServer, Realtime
from tests.stack import Person, Stack, done

Own = Callable[..., tuple[OwnServer, Realtime]]

# supabase-py reads `code` of a websockets exception; the warning about it, made an error, would end its listening.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")


class Network(httpx.AsyncHTTPTransport):
    """The way to the project, which a test may cut or bend. Nothing is cut before the sign-in."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.edit: Callable[[list[Event]], list[Event]] = lambda rows: rows
        self.asked = 0  # for rows

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "/rest/v1/" not in request.url.path:
            return await super().handle_async_request(request)
        self.asked += 1
        if bent := self.answer(request):
            return bent
        response = await super().handle_async_request(request)
        if not request.url.path.endswith("/job_events"):
            return response
        rows = self.edit(json.loads(await response.aread()))
        await response.aclose()
        return httpx.Response(200, json=rows)


class User:
    """A signed-in client of supabase-py, and the tests' hand on its network."""

    def __init__(self, client: AsyncClient, network: Network) -> None:
        self.client = client
        self.network = network

    def realtime_at(self, address: str) -> None:
        here = str(self.client.realtime_url)
        there = f"{address.replace('http', 'ws', 1)}/realtime/v1"
        self.client.realtime.url = self.client.realtime.url.replace(here, there)

    async def joined(self) -> None:
        await until(lambda: any(channel.is_joined for channel in self.client.get_channels()))

    async def listens(self) -> None:
        """The table is left alone: for half a second, which is five polls long, once it has come to that."""
        for _ in range(20):
            asked = self.network.asked
            await asyncio.sleep(0.5)
            if self.network.asked == asked:
                return
        pytest.fail("it polls")


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if holds():
            return
        await asyncio.sleep(0.02)  # between two looks
    pytest.fail("it does not come to that")


SignIn = Callable[[str], Awaitable[User]]


@pytest.fixture
async def sign_in(stack: Stack, caplog: pytest.LogCaptureFixture) -> AsyncIterator[SignIn]:
    """Clients whose watches must leave no channel, no socket, no task and no exception that nobody took."""
    async with contextlib.AsyncExitStack() as ends:
        users: list[User] = []

        async def sign_in(name: str) -> User:
            network = Network()
            http = await ends.enter_async_context(httpx.AsyncClient(transport=network, timeout=60))
            options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
            client = AsyncClient(stack.env["SUPABASE_URL"], stack.env["SUPABASE_PUBLISHABLE_KEY"], options)
            if name:
                await client.auth.sign_in_with_password(
                    {"email": stack.env[f"{name}_EMAIL"], "password": stack.env[f"{name}_PASSWORD"]}
                )
            users.append(User(client, network))
            return users[-1]

        before = asyncio.all_tasks()
        yield sign_in
        gc.collect()  # a task's exception is told of when the task is collected
        for user in users:
            assert user.client.get_channels() == []
            assert not user.client.realtime.is_connected
        for _ in range(3):
            await asyncio.sleep(0)  # what was cancelled ends in the next round of the loop
        assert asyncio.all_tasks() <= {*before, asyncio.current_task()}, "a task is left"
        lost = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
        assert not lost


@pytest.fixture
async def user(sign_in: SignIn) -> User:
    return await sign_in("DEMO")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls and pauses shorter than a test's patience."""
    monkeypatch.setattr(watching, "DEAF_SECONDS", 0.1)
    monkeypatch.setattr(watching, "LONGEST_PAUSE_SECONDS", 0.2)


class Mover:
    """Moves one job, each time in a thread, so that the watchers go on."""

    def __init__(self, member: Person, worker: Person, executor: str) -> None:
        self.member, self.worker, self.executor = member, worker, executor
        self.id: str = assign(member, executor)["jobId"]

    async def there_and_back(self) -> None:
        """Two events: claimed, released."""
        await asyncio.to_thread(self._there_and_back)

    def _there_and_back(self) -> None:
        job = claim(self.worker, self.executor)
        fence = {"job_id": job["id"], "attempt": job["attempt"], "lease_token": job["lease_token"]}
        done(self.worker.rest("POST", "rpc/release_job", fence))

    async def finish(self) -> None:
        """Two events: claimed, succeeded."""
        report = await asyncio.to_thread(lambda: lease(claim(self.worker, self.executor)))
        done(await asyncio.to_thread(self.worker.post, "task-result", {**report, "ok": True}))

    async def cancel(self) -> None:
        done(await asyncio.to_thread(self.member.post, "job-cancel", {"jobId": self.id}))


@pytest.fixture
def job(member: Person, worker: Person, executor: str) -> Mover:
    return Mover(member, worker, executor)


async def seqs(events: AsyncIterator[Event]) -> list[int]:
    async with asyncio.timeout(300):
        return [event["seq"] async for event in events]


async def following(events: AsyncIterator[Event]) -> int:
    async with asyncio.timeout(300):
        return int((await anext(events))["seq"])


async def test_each_event_comes_by_message_and_the_last_one_ends_it(
    user: User, job: Mover, member: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for polling in ("FLOOR_SECONDS", "DEAF_SECONDS"):
        monkeypatch.setattr(watching, polling, 3600)
    seen = []
    async with asyncio.timeout(300), contextlib.aclosing(watch(user.client, job.id)) as events:
        seen.append(await anext(events))
        await user.joined()
        for move in (job.there_and_back, job.finish):
            await move()
            seen += [await anext(events), await anext(events)]
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert seen == done(member.get("job-status", id=job.id))["events"], "rows as job-status has them"


async def test_it_begins_after_the_seq_that_was_seen(user: User, job: Mover) -> None:
    await job.cancel()
    assert await seqs(watch(user.client, job.id)) == [1, 2]
    assert await seqs(watch(user.client, job.id.upper(), after=1)) == [2]
    assert await seqs(watch(user.client, job.id, after=2)) == []


async def test_a_long_history_comes_in_pages(user: User, job: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        await job.there_and_back()
    await job.finish()
    monkeypatch.setattr(watching, "PAGE", 3)
    assert await seqs(watch(user.client, job.id)) == [*range(1, 12)]


async def test_what_one_may_not_see_is_a_lookup_error(sign_in: SignIn, job: Mover) -> None:
    for name, job_id in (("OTHER", job.id), ("", job.id), ("DEMO", str(uuid.uuid4()))):
        someone = await sign_in(name)
        with pytest.raises(LookupError, match="that you may see"):
            await seqs(watch(someone.client, job_id))


async def test_an_id_that_is_no_uuid_is_a_value_error(user: User) -> None:
    with pytest.raises(ValueError, match="UUID"):
        await seqs(watch(user.client, "7"))


async def test_who_leaves_early_leaves_nothing(user: User, job: Mover) -> None:
    async with contextlib.aclosing(watch(user.client, job.id)) as events:
        async for event in events:
            assert event["seq"] == 1
            await user.joined()
            break
    task = asyncio.create_task(seqs(watch(user.client, job.id)))
    await user.joined()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("quick")
async def test_several_watches_share_one_client(
    user: User, member: Person, worker: Person, job: Mover
) -> None:
    others = [Mover(member, worker, f"{job.executor}-{n}") for n in range(5)]
    watches = [asyncio.create_task(seqs(watch(user.client, each.id))) for each in (job, job, *others)]
    await user.joined()
    for each in (job, *others):
        await each.there_and_back()
        await each.finish()
    assert await asyncio.gather(*watches) == [[1, 2, 3, 4, 5]] * 7


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.usefixtures("quick")
async def test_without_realtime_it_polls(user: User, job: Mover, closed_port: int) -> None:
    user.realtime_at(f"http://127.0.0.1:{closed_port}")
    async with contextlib.aclosing(watch(user.client, job.id)) as events:
        assert await following(events) == 1
        await job.there_and_back()
        assert [await following(events), await following(events)] == [2, 3]
        await job.finish()
        assert await seqs(events) == [4, 5]


@pytest.mark.usefixtures("quick")
async def test_after_realtime_was_killed_it_polls_and_then_listens_again(
    user: User, job: Mover, stack: Stack, own: Own
) -> None:
    server, _ = own()
    user.realtime_at(server.address)
    async with contextlib.aclosing(watch(user.client, job.id)) as events:
        assert await following(events) == 1
        await user.joined()
        for first, move in ((2, job.there_and_back), (6, job.finish)):
            server.kill()
            await job.there_and_back()
            assert [await following(events), await following(events)] == [first, first + 1]
            waiting = asyncio.create_task(following(events))
            await asyncio.to_thread(server.start_again, stack)
            await user.joined()
            await user.listens()
            await move()
            assert [await waiting, await following(events)] == [first + 2, first + 3]
        assert await seqs(events) == []


@pytest.mark.usefixtures("quick")
async def test_a_server_that_comes_and_goes_costs_no_event_of_many_jobs(
    user: User, member: Person, worker: Person, stack: Stack, own: Own, executor: str
) -> None:
    server, _ = own()
    user.realtime_at(server.address)
    jobs = [Mover(member, worker, f"{executor}-{n}") for n in range(10)]
    watches = [asyncio.create_task(seqs(watch(user.client, each.id))) for each in jobs]
    await user.joined()
    for round_ in range(3):
        if round_ == 1:
            server.kill()
        for each in jobs:
            await each.there_and_back()
        if round_ == 1:
            await asyncio.to_thread(server.start_again, stack)
    for each in jobs:
        await each.finish()
    assert await asyncio.gather(*watches) == [[*range(1, 10)]] * len(jobs)


def fails(*ways: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response | None]:
    """Each of these once, in turn, and then the project itself again."""
    left = list(ways)

    def answer(_: httpx.Request) -> httpx.Response | None:
        if not left:
            return None
        way = left.pop(0)
        if isinstance(way, Exception):
            raise way
        return way

    return answer


# Answers of a proxy, or cut off; and failures that may pass, with the status that PostgREST gives them.
UNEXPECTED = [
    b"<html>Sign in to the wifi</html>", b"", b"7", b'"ok"', b'{"ok":true}', b"[[]]", b'[{"ok":true}]', b'[{"id":"0',
    b'[{"status":"queued","event_seq":"1","seq":"1"}]', '[{"é":1}]'.encode("latin-1"), b"[" * 100_000,
]  # fmt: skip
PASSING = ["40001", "40P01", "53300", "55P03", "57014", "57P01", "08006", "XX000", "PGRST202"]


def answered(content: bytes) -> httpx.Response:
    return httpx.Response(200, content=content, headers={"content-type": "application/json"})


def failed(code: str) -> httpx.Response:
    return httpx.Response(500, json={"code": code, "message": "no", "details": None, "hint": None})


EXPIRED = {"code": "PGRST303", "message": "JWT expired", "details": None, "hint": None}
NO_DATABASE = {"code": "PGRST001", "message": "no", "details": None, "hint": None}


@pytest.mark.usefixtures("quick")
async def test_an_outage_of_the_project_is_waited_out(user: User, job: Mover) -> None:
    async with contextlib.aclosing(watch(user.client, job.id)) as events:
        assert await following(events) == 1
        await user.joined()
        user.network.answer = fails(
            httpx.ConnectError("cut"), httpx.ReadTimeout("slow"), httpx.Response(500, json=NO_DATABASE),
            httpx.Response(502, html="<h1>Bad gateway</h1>"), httpx.Response(401, json=EXPIRED),
            *[httpx.ReadTimeout("slow")] * 5, *map(answered, UNEXPECTED), *map(failed, PASSING),
        )  # fmt: skip
        await job.there_and_back()
        assert [await following(events), await following(events)] == [2, 3]
        await job.cancel()
        assert await seqs(events) == [4]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("status", "body"),
    [(401, EXPIRED), (401, {"message": "Invalid API key"}), (404, {**EXPIRED, "code": "PGRST205"})],
)
async def test_what_waiting_does_not_mend_is_raised(
    user: User, job: Mover, status: int, body: dict[str, Any]
) -> None:
    user.network.answer = lambda _: httpx.Response(status, json=body)
    with pytest.raises(APIError):
        await seqs(watch(user.client, job.id))


@pytest.mark.usefixtures("quick")
async def test_a_gap_is_held_back_until_the_table_has_it(user: User, job: Mover) -> None:
    await job.there_and_back()
    await job.cancel()
    missing = {2}
    user.network.edit = lambda rows: [row for row in rows if row["seq"] not in missing]
    async with contextlib.aclosing(watch(user.client, job.id)) as events:
        assert await following(events) == 1
        late = asyncio.create_task(following(events))
        asked = user.network.asked
        await until(lambda: user.network.asked >= asked + 3)
        assert not late.done(), "4 is there, and 2 is not"
        missing.clear()
        assert await late == 2
        assert await seqs(events) == [3, 4]


@pytest.mark.usefixtures("quick")
async def test_who_loses_his_rights_is_told(
    sign_in: SignIn, job: Mover, stack: Stack, closed_port: int
) -> None:
    viewer = await sign_in("VIEWER")
    viewer.realtime_at(f"http://127.0.0.1:{closed_port}")
    answer = await viewer.client.auth.get_user()
    assert answer
    async with contextlib.aclosing(watch(viewer.client, job.id)) as events:
        assert await following(events) == 1
        (was,) = stack.sql.execute(
            "delete from public.workspace_members m where user_id = %s returning to_jsonb(m)::text as row",
            [answer.user.id],
        ).fetchall()
        try:
            with pytest.raises(JobNotFound):
                await following(events)
        finally:
            stack.sql.execute(
                "insert into public.workspace_members select * from jsonb_populate_record"
                "(null::public.workspace_members, %s::jsonb)", [was["row"]]
            )  # fmt: skip
