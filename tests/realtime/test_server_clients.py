"""The official clients, unmodified: supabase-js under Node, and supabase's Python client."""

import asyncio
import json
import os
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from realtime import AsyncRealtimeChannel, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates
from supabase import AsyncClient, acreate_client

from local.setup import NODE_FOLDER, node_program
from tests.realtime.conftest import OwnServer, Realtime
from tests.stack import Stack

HERE = Path(__file__).parent
INSERT = RealtimePostgresChangesListenEvent.Insert


def test_supabase_js_does_everything(stack: Stack, tables: None, name: str) -> None:  # noqa: ARG001  made first
    said: dict[str, Any] = {}
    command = [str(node_program()), str(HERE / "supabase_js.mjs"), f"{NODE_FOLDER}/"]
    environment = {**stack.env, "TOPIC": name, "PATH": os.environ["PATH"]}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        too_long = threading.Timer(20, process.kill)
        too_long.start()
        for line in process.stdout or ():
            what, value = json.loads(line)
            said[what] = value
            if what == "insert now":
                stack.sql.execute("insert into realtime_test.open values (1, 'python'), (1, 'js')")
        too_long.cancel()
    assert said["joined"] == ["SUBSCRIBED", "SUBSCRIBED"]
    assert said["present"] == ["ann", "bob"]
    assert said["ack"] == "ok"
    assert said["heard"] == [
        ["bob", "socket", {"n": 1}],
        ["bob", "bytes", [0, 255]],
        ["bob", "http", {"n": 2}],
    ]
    assert said["heard by oneself"] == 3
    assert said["left"] == "ann"
    assert said["refused"].startswith("CHANNEL_ERROR")
    assert "You do not have permissions to read from this Channel topic" in said["refused"]
    assert (said["db"], said["live"]) == ("SUBSCRIBED", "Subscribed to PostgreSQL")
    row = {"a": 1, "b": "js", "c": None}
    assert said["change"] == {
        "schema": "realtime_test", "table": "open", "eventType": "INSERT", "row": row, "old": {}, "errors": None,
    }  # fmt: skip
    assert said["after a new token"] == "after"
    assert "done" in said


def test_supabase_js_comes_back_after_the_server_was_killed(
    stack: Stack, own: Callable[..., tuple[OwnServer, Realtime]]
) -> None:
    server, _ = own()
    command = [str(node_program()), str(HERE / "supabase_js_reconnect.mjs"), f"{NODE_FOLDER}/"]
    environment = {**stack.env, "SERVER_URL": server.address, "PATH": os.environ["PATH"]}
    said = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        too_long = threading.Timer(20, process.kill)
        too_long.start()
        for line in process.stdout or ():
            what, value = json.loads(line)
            said.append(what)
            if what == "live":
                life = said.count("live")
                stack.sql.execute("insert into realtime_test.open values (%s, 'js back')", (life,))
            elif what == "row" and value == 1:
                server.kill()
                server.start_again(stack)
            elif what == "row":
                break
        too_long.cancel()
        process.kill()
    assert said[:3] == ["SUBSCRIBED", "live", "row"]
    assert said[-3:] == ["SUBSCRIBED", "live", "row"]
    assert said.count("row") == 2


class Person:
    """A signed-in Python client, and what its channels said."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.states: asyncio.Queue[RealtimeSubscribeStates] = asyncio.Queue()

    def channel(self, topic: str, **config: Any) -> AsyncRealtimeChannel:
        options: Any = {"config": {"broadcast": None, "presence": None, "private": False, **config}}
        channel = self.client.channel(topic, options)
        channel.on_broadcast("x", self.heard.put_nowait)
        return channel

    async def join(self, channel: AsyncRealtimeChannel) -> RealtimeSubscribeStates:
        await channel.subscribe(lambda state, _: self.states.put_nowait(state))
        return await self.states.get()

    async def until(self, state: RealtimeSubscribeStates) -> None:
        async with asyncio.timeout(120):
            while await self.states.get() != state:
                pass

    async def next(self) -> Any:
        async with asyncio.timeout(120):
            return await self.heard.get()


SignIn = Callable[..., Awaitable[Person]]


@pytest.fixture
async def people(stack: Stack, tables: None) -> AsyncIterator[SignIn]:  # noqa: ARG001  made first
    clients = []

    async def sign_in(name: str, address: str | None = None) -> Person:
        env = stack.env
        client = await acreate_client(env["SUPABASE_URL"], env["SUPABASE_PUBLISHABLE_KEY"])
        clients.append(client)
        if address:
            client.realtime.url = client.realtime.url.replace(
                env["SUPABASE_URL"].replace("http", "ws"), address.replace("http", "ws")
            )
        await client.auth.sign_in_with_password(
            {"email": env[f"{name}_EMAIL"], "password": env[f"{name}_PASSWORD"]}
        )
        return Person(client)

    yield sign_in
    for client in clients:
        await client.remove_all_channels()
        await client.auth.close()


async def test_the_python_client_broadcasts_and_is_acknowledged(
    people: SignIn, stack: Stack, name: str
) -> None:
    ann, bob = await people("DEMO"), await people("OTHER")
    hers = ann.channel(name, private=True, broadcast={"self": True, "ack": True})
    his = bob.channel(name, private=True)
    assert await ann.join(hers) == await bob.join(his) == RealtimeSubscribeStates.SUBSCRIBED
    await hers.send_broadcast("x", {"n": 1})
    await his.http_send("x", {"n": 2})
    stack.sql.execute("select realtime.send('{\"n\": 3}', 'x', %s)", (name,))
    for person in (ann, bob):
        assert sorted([(await person.next())["payload"]["n"] for _ in range(3)]) == [1, 2, 3]


async def test_python_clients_see_each_other_come_and_go(people: SignIn, name: str) -> None:
    ann, bob = await people("DEMO"), await people("OTHER")
    hers = ann.channel(name, private=True, presence={"key": "ann", "enabled": True})
    his = bob.channel(name, private=True, presence={"key": "bob", "enabled": True})
    his.on_presence_join(lambda key, _old, _new: bob.heard.put_nowait(("join", key)))
    his.on_presence_leave(lambda key, _old, _new: bob.heard.put_nowait(("leave", key)))
    await bob.join(his)
    await ann.join(hers)
    await hers.track({"online": True})
    assert await bob.next() == ("join", "ann")
    (meta,) = his.presence_state()["ann"]
    assert dict(meta)["online"] is True
    await ann.client.realtime.close()
    assert await bob.next() == ("leave", "ann")


async def test_the_python_client_hears_changes_that_it_may_see(people: SignIn, stack: Stack) -> None:
    ann = await people("DEMO")
    session = await ann.client.auth.get_session()
    assert session
    user = session.user.id
    channel = ann.channel("db")
    channel.on_postgres_changes(
        INSERT, ann.heard.put_nowait, table="notes", schema="realtime_test", filter="n=gt.5"
    )
    live = asyncio.Event()
    channel.on_system(lambda _: live.set())
    assert await ann.join(channel) == RealtimeSubscribeStates.SUBSCRIBED
    await asyncio.wait_for(live.wait(), 120)
    for owner, n in ((user, 1), (str(uuid.uuid4()), 9), (user, 8)):
        stack.sql.execute("insert into realtime_test.notes (owner, n) values (%s, %s)", (owner, n))
    assert (await ann.next())["data"]["record"]["n"] == 8
    await ann.client.auth.refresh_session()
    stack.sql.execute("insert into realtime_test.notes (owner, n) values (%s, 10)", (user,))
    assert (await ann.next())["data"]["record"]["n"] == 10


async def test_the_python_client_is_told_what_it_may_not(people: SignIn) -> None:
    ann = await people("DEMO")
    assert await ann.join(ann.channel("nobody:may", private=True)) == RealtimeSubscribeStates.CHANNEL_ERROR


# The client reads `code` of a websockets exception; the warning about it, made an error, would end its listening.
@pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")
async def test_clients_come_back_after_the_server_was_killed(
    people: SignIn, stack: Stack, name: str, own: Callable[..., tuple[OwnServer, Realtime]]
) -> None:
    server, _ = own()
    ann = await people("DEMO", server.address)
    channel = ann.channel(name, private=True)
    channel.on_postgres_changes(
        INSERT, ann.heard.put_nowait, table="open", schema="realtime_test", filter="b=eq.back"
    )
    assert await ann.join(channel) == RealtimeSubscribeStates.SUBSCRIBED
    server.kill()
    await asyncio.to_thread(server.start_again, stack)
    await ann.until(RealtimeSubscribeStates.SUBSCRIBED)
    stack.sql.execute("select realtime.send('{}', 'x', %s)", (name,))
    stack.sql.execute("insert into realtime_test.open values (1, 'back')")
    came = [await ann.next() for _ in range(2)]
    assert {"data" in one for one in came} == {True, False}
    await ann.client.remove_all_channels()
