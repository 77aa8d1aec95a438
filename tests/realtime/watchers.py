"""Four ways to follow jobs, as users of the project follow them: each keeps the seqs that it saw, as it saw them."""

import asyncio
import contextlib
import json
import os
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from realtime import RealtimePostgresChangesListenEvent
from supabase import AsyncClient, AsyncClientOptions

from local.setup import NODE_FOLDER, node_program
from sidejob.history import LAST_EVENTS
from sidejob.watch import watch
from tests.end_to_end.test_readme import block

Env = Mapping[str, str]
Seen = dict[str, list[int]]  # by job
Follow = Callable[[Env, Seen], Coroutine[Any, Any, None]]


@asynccontextmanager
async def following(
    env: Env, jobs: Sequence[str]
) -> AsyncIterator[dict[str, tuple[Seen, asyncio.Task[None]]]]:
    """Every way at once, each on its own connections; a task ends with the last event of the last job."""
    ways: dict[str, Follow] = {
        "sidejob.watch": by_watch, "supabase-js": by_recipe, "job-events": by_http, "change stream": by_changes
    }  # fmt: skip
    running = {}
    for name, follow in ways.items():
        seen: Seen = {job: [] for job in jobs}
        running[name] = (seen, asyncio.create_task(follow(env, seen), name=name))
    try:
        yield running
    finally:
        for _, task in running.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in running.values()), return_exceptions=True)


async def by_watch(env: Env, seen: Seen) -> None:

    async def one(client: AsyncClient, job: str) -> None:
        async for event in watch(client, job):
            seen[job].append(event["seq"])

    async with signed_in(env) as client, asyncio.TaskGroup() as each:
        for job in seen:
            each.create_task(one(client, job))


async def by_recipe(env: Env, seen: Seen) -> None:
    """The lines of docs/events.md as they stand; only the job and what is done with an event are the test's."""
    recipe, _, _ = block("docs/events.md", "js", "watch(").partition("const { data: job }")
    ours = """
    const jobs = process.env.JOBS.split(",");
    let open = jobs.length;
    for (const id of jobs)
      watch(id, ({ seq, event_type }) => {
        console.log(JSON.stringify([id, seq]));
        if (last.includes(event_type) && --open === 0) process.exit(0); // the client keeps its socket for a while
      });
    """
    script = NODE_FOLDER / f"{uuid.uuid4()}.mjs"  # Node finds the package from the file's own folder
    script.write_text(recipe + ours)
    environment = {**env, "JOBS": ",".join(seen), "PATH": os.environ["PATH"]}
    node: Process | None = None
    try:
        node = await asyncio.create_subprocess_exec(
            str(node_program()), str(script), env=environment, stdout=PIPE
        )
        assert node.stdout
        async for line in node.stdout:
            job, seq = json.loads(line)
            seen[job].append(seq)
        assert await node.wait() == 0
    finally:
        script.unlink()
        if node is not None and node.returncode is None:
            node.kill()
            await node.wait()


async def by_http(env: Env, seen: Seen) -> None:
    """Server-Sent Events, coming back with the last id, as an EventSource does."""
    async with signed_in(env) as client:
        token = await token_of(client)
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:

        async def once(job: str) -> bool:
            headers = {"Authorization": f"Bearer {token}"}
            if seen[job]:
                headers["Last-Event-ID"] = str(seen[job][-1])
            url = f"{env['FUNCTIONS_URL']}/job-events"
            async with http.stream("GET", url, params={"id": job}, headers=headers) as answer:
                if answer.status_code == 204:
                    return True
                assert answer.status_code in (200, 502, 503), await answer.aread()
                async for line in answer.aiter_lines():
                    if answer.status_code == 200 and line.startswith("data: "):
                        seen[job].append(json.loads(line.removeprefix("data: "))["seq"])
            return False

        async def one(job: str) -> None:
            over = False
            while not over:
                with contextlib.suppress(httpx.TransportError):
                    over = await once(job)
                await asyncio.sleep(0.5)  # before it comes back

        async with asyncio.TaskGroup() as each:
            for job in seen:
                each.create_task(one(job))


async def by_changes(env: Env, seen: Seen) -> None:
    """One plain subscription to all the jobs; after each (re)join, and at a gap, it reads the table."""
    async with signed_in(env) as client:
        await _by_changes(env, seen, client, await token_of(client))


async def _by_changes(env: Env, seen: Seen, client: AsyncClient, token: str) -> None:
    open_jobs = set(seen)
    news: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()  # None: something may have been missed

    def take(row: dict[str, Any]) -> bool:
        """False at a gap."""
        job, seq = row["job_id"], row["seq"]
        last = len(seen[job])
        if seq == last + 1:
            seen[job].append(seq)
            if row["event_type"] in LAST_EVENTS:
                open_jobs.discard(job)
        return bool(seq <= last + 1)

    async def catch_up() -> None:
        for job in [*open_jobs]:
            asked = client.table("job_events").select("*").eq("job_id", job).gt("seq", len(seen[job]))
            rows: Any = (await asked.order("seq").execute()).data
            for row in rows:
                take(row)

    async def subscribed() -> None:
        """Until the subscription is lost; each time on a new socket."""
        lost = asyncio.Event()

        def on_state(state: str, _: Exception | None) -> None:
            if state != "SUBSCRIBED":
                lost.set()

        async with signed_in(env, token) as listener:
            channel = listener.channel("plain")
            channel.on_postgres_changes(
                RealtimePostgresChangesListenEvent.Insert,
                lambda change: news.put_nowait(change["data"]["record"]),
                schema="public", table="job_events", filter=f"job_id=in.({','.join(seen)})",
            )  # fmt: skip
            channel.on_system(lambda _: news.put_nowait(None))
            try:
                async with asyncio.timeout(20):
                    await channel.subscribe(on_state)
                news.put_nowait(None)
                while listener.realtime.is_connected and not lost.is_set():
                    with contextlib.suppress(TimeoutError):  # the library does not tell of every end
                        await asyncio.wait_for(lost.wait(), 0.5)
            finally:
                channel.rejoin_timer.reset()

    async def stay() -> None:
        while True:
            with contextlib.suppress(Exception):  # whatever it was, the next try is a new one
                await subscribed()
            await asyncio.sleep(0.5)

    staying = asyncio.create_task(stay())
    try:
        while open_jobs:
            row = None
            with contextlib.suppress(TimeoutError):
                row = await asyncio.wait_for(news.get(), 30)
            try:
                if row is None or not take(row):
                    await catch_up()
            except Exception:  # noqa: BLE001  a cut line, a database that is starting: again
                await asyncio.sleep(0.5)
                news.put_nowait(None)
    finally:
        staying.cancel()
        await asyncio.gather(staying, return_exceptions=True)


@asynccontextmanager
async def signed_in(env: Env, token: str | None = None) -> AsyncIterator[AsyncClient]:
    """A client of the member's; with a token for Realtime of an earlier sign-in, without one of its own."""
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
        client = AsyncClient(env["SUPABASE_URL"], env["SUPABASE_PUBLISHABLE_KEY"], options)
        try:
            if token is None:
                await client.auth.sign_in_with_password(
                    {"email": env["DEMO_EMAIL"], "password": env["DEMO_PASSWORD"]}
                )
            else:
                await client.realtime.set_auth(token)
            yield client
        finally:
            await client.realtime.close()


async def token_of(client: AsyncClient) -> str:
    session = await client.auth.get_session()
    assert session
    return session.access_token
