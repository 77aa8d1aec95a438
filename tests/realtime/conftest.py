"""The stack's Realtime, servers of a test's own, and tables and topics to try them on."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest

from local.layout import Layout, port_is_free
from tests.realtime.sockets import Socket
from tests.stack import Stack

REPOSITORY = Path(__file__).parents[2]

# A table that its owner sees, one that everyone does, one with every kind of value; topics that DEMO may use.
_TABLES = """
drop schema if exists realtime_test cascade;
create schema realtime_test;
grant usage on schema realtime_test to anon, authenticated, service_role;
create type realtime_test.mood as enum ('sad', 'glad');
create type realtime_test.pair as (a int, b text);
create domain realtime_test.short as text check (length(value) < 9);
create table realtime_test.notes (
  id bigint generated always as identity primary key, owner uuid, title text, n int, score numeric(6, 2), secret text,
  done boolean, at timestamptz, tags text[], body jsonb);
alter table realtime_test.notes enable row level security;
create policy mine on realtime_test.notes for select to authenticated using (owner = (select auth.uid()));
grant select (id, owner, title, n, score, done, at, tags, body) on realtime_test.notes to authenticated;
grant select on realtime_test.notes to service_role;
create table realtime_test.open (a int, b text, c text, primary key (a, b));
grant select on realtime_test.open to anon, authenticated;
create table realtime_test.whole (id int primary key, title text, big text);
alter table realtime_test.whole replica identity full;
grant select on realtime_test.whole to anon, authenticated;
create table realtime_test.keyless (a int);
grant select on realtime_test.keyless to anon, authenticated;
create table realtime_test.closed (id int primary key);
create table realtime_test.unpublished (id int primary key);
create table realtime_test.kinds (
  id int primary key, small int2, big int8, real8 float8, num numeric, yes boolean, txt text, uid uuid, ts timestamp,
  tz timestamptz, day date, clock time, span interval, raw bytea, doc json, docb jsonb, ints int[], moods realtime_test.mood[],
  mood realtime_test.mood, pair realtime_test.pair, short realtime_test.short, r int4range, ip inet, code char(5));
grant select on realtime_test.kinds to anon, authenticated;
alter publication supabase_realtime add table realtime_test.notes, realtime_test.open, realtime_test.whole,
  realtime_test.keyless, realtime_test.closed, realtime_test.kinds;
drop policy if exists realtime_test_read on realtime.messages;
drop policy if exists realtime_test_write on realtime.messages;
drop policy if exists realtime_test_raise on realtime.messages;
create function realtime_test.may(topic text, extension text, verb text) returns boolean language plpgsql stable as $$
begin
  if topic like 'rt:raise%' then raise exception 'a policy that raises'; end if;
  if topic like 'rt:endless%' then perform pg_sleep(60); end if;
  if topic like 'rt:all:slow%' and verb = 'write' then perform pg_sleep(0.2); end if;
  return case
    when topic like 'rt:all%' then true
    when topic like 'rt:read%' then verb = 'read'
    when topic like 'rt:presence%' then extension = 'presence'
    when topic like 'rt:mine:%' then topic = 'rt:mine:' || auth.uid()
    else false end;
end $$;
create policy realtime_test_read on realtime.messages for select to authenticated
  using (extension in ('broadcast', 'presence') and realtime_test.may(realtime.topic(), extension, 'read'));
create policy realtime_test_write on realtime.messages for insert to authenticated
  with check (realtime_test.may(realtime.topic(), extension, 'write'));
"""


@dataclass(frozen=True)
class Realtime:
    """A server, and how to speak to it."""

    stack: Stack
    address: str
    sockets: ExitStack

    @property
    def key(self) -> str:
        return self.stack.env["SUPABASE_PUBLISHABLE_KEY"]

    def socket(self, version: str = "2.0.0", key: str | None = None) -> Socket:
        return self.sockets.enter_context(
            Socket.open(self.address, self.key if key is None else key, version)
        )

    def token(self, seconds: float = 600, secret: str | None = None, **claims: object) -> str:
        """A token as Auth signs them, for a user who need not exist; a claim that is None is left out."""
        whole = {
            "role": "authenticated",
            "sub": str(uuid.uuid4()),
            "exp": int(time.time() + seconds),
        } | claims
        told = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(told, secret or self.stack.env["SUPABASE_JWT_SECRET"], "HS256")


@pytest.fixture(scope="session")
def tables(stack: Stack) -> Iterator[None]:
    stack.sql.execute(_TABLES.encode())
    yield
    stack.sql.execute(
        "drop policy realtime_test_read on realtime.messages;"
        " drop policy realtime_test_write on realtime.messages; drop schema realtime_test cascade"
    )


@pytest.fixture
def realtime(stack: Stack, tables: None) -> Iterator[Realtime]:  # noqa: ARG001  made first
    with ExitStack() as sockets:
        yield Realtime(stack, stack.env["SUPABASE_URL"], sockets)


@pytest.fixture
def name() -> str:
    """A topic of this test's own."""
    return f"rt:all:{uuid.uuid4()}"


@dataclass
class OwnServer:
    """A server process of the test's own on the stack's database."""

    process: subprocess.Popen[bytes]
    port: int
    name: str  # its connections' application_name
    environment: dict[str, str]

    @classmethod
    def start(cls, stack: Stack, **limits: str) -> "OwnServer":
        port = next(filter(port_is_free, Layout.read().spare_ports))
        name = f"realtime-{uuid.uuid4().hex[:8]}"
        environment = {
            **{key: stack.env[key] for key in stack.env if key.startswith("SUPABASE_")},
            "SUPABASE_DB_URL": f"{stack.env['SUPABASE_DB_URL']}?application_name={name}",
            "REALTIME_PORT": str(port),
            "PATH": os.environ["PATH"],
            **limits,
        }
        server = cls(_spawn(environment), port, name, environment)
        try:
            server.wait(stack)
        except BaseException:
            server.kill()
            raise
        return server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, stack: Stack, status: int = 200) -> None:
        """Until changes flow, or until it says that they do not."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server ended"
            try:
                if stack.http.get(f"{self.address}/api/ping").status_code == status:
                    return
            except httpx.TransportError:
                time.sleep(0.02)  # not up yet
        raise AssertionError("the server does not come up")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start_again(self, stack: Stack, status: int = 200) -> None:
        self.process = _spawn(self.environment)
        self.wait(stack, status)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def _spawn(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "local.realtime"], cwd=REPOSITORY, env=environment)


@pytest.fixture
def own(stack: Stack, tables: None) -> Iterator[Callable[..., tuple[OwnServer, Realtime]]]:  # noqa: ARG001
    """Starts servers with limits of the test's own; all stopped after it."""
    with ExitStack() as ends:

        def start(**limits: str) -> tuple[OwnServer, Realtime]:
            server = OwnServer.start(stack, **limits)
            ends.callback(server.stop)
            return server, Realtime(stack, server.address, ends.enter_context(ExitStack()))

        yield start
