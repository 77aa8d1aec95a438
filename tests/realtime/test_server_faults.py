"""Limits, a database that goes away, clients that do not read, and many at once."""

import socket as socket_library
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from tests.realtime.conftest import OwnServer, Realtime
from tests.realtime.sockets import SECONDS, changes

Own = Callable[..., tuple[OwnServer, Realtime]]


def test_limits_are_said_as_upstream_says_them(own: Own, name: str) -> None:
    _, realtime = own(REALTIME_MAX_CHANNELS="1", REALTIME_MAX_USERS="2", REALTIME_PRIVATE_ONLY="1")
    socket, _other = realtime.socket(), realtime.socket()
    assert socket.refused(name) == "PrivateOnly: This project only allows private channels"
    socket.joined(name, realtime.token(), private=True)
    socket.joined(name, realtime.token(), private=True)
    assert (
        socket.refused("rt:all:more", realtime.token(), private=True)
        == "ChannelRateLimitReached: Too many channels"
    )
    with pytest.raises(InvalidStatus) as refused:
        realtime.socket()
    assert refused.value.response.status_code == 429


def test_too_many_joins_and_messages_are_cut_off(own: Own) -> None:
    _, realtime = own(REALTIME_MAX_JOINS="1", REALTIME_MAX_EVENTS="1")
    speaker, joiner = realtime.socket(), realtime.socket()
    speaker.joined("room")
    for _ in range(61):
        speaker.send("realtime:room", "broadcast", {"event": "x", "payload": {}})
    speaker.system("Too many messages per second")
    assert speaker.receive().event == "phx_close"
    for n in range(59):
        joiner.joined(f"room{n}")
    assert joiner.refused("one more") == "ClientJoinRateLimitReached: Too many joins per second"
    assert joiner.close_code() == 1001


def test_policies_that_take_too_long_are_given_up_and_hold_up_no_changes(own: Own, name: str) -> None:
    _, realtime = own(REALTIME_MAX_POLICY_MS="2000")
    reader = realtime.socket()
    reader.joined(
        name, **changes({"event": "INSERT", "schema": "realtime_test", "table": "open", "filter": "a=eq.77"})
    )
    waiting = [realtime.socket() for _ in range(8)]
    for socket in waiting:
        socket.send(
            "realtime:rt:endless",
            "phx_join",
            {"config": {"private": True}, "access_token": realtime.token()},
        )
    asleep = "select from pg_stat_activity where wait_event = 'PgSleep'"
    deadline = time.monotonic() + SECONDS
    while len(realtime.stack.sql.execute(asleep).fetchall()) < len(waiting):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    realtime.stack.sql.execute("insert into realtime_test.open values (77, 'told meanwhile')")
    reader.event("postgres_changes")
    assert realtime.stack.sql.execute(asleep).fetchall(), "the policies were still being asked"
    for socket in waiting:
        reason = "QueryCanceled: Query was cancelled, please try again"
        assert socket.event("phx_reply") == {"status": "error", "response": {"reason": reason}}


def test_a_silent_socket_and_one_without_channels_are_ended(own: Own) -> None:
    _, realtime = own(REALTIME_IDLE_SECONDS="3", REALTIME_UNUSED_SECONDS="3")
    silent = realtime.socket()
    silent.joined("room")
    assert silent.close_code() == 1000


def test_who_does_not_read_is_cut_off_and_slows_nobody(own: Own, name: str) -> None:
    server, realtime = own(REALTIME_MAX_UNSENT_BYTES="2000000")
    speaker, reader, sleeper = realtime.socket(), realtime.socket(), realtime.socket()
    for socket in (speaker, reader, sleeper):
        socket.joined(name)
    before = _resident_bytes(server.process.pid)
    payload = {"big": "x" * 100_000}
    for n in range(300):
        speaker.send(
            f"realtime:{name}",
            "broadcast",
            {"type": "broadcast", "event": "x", "payload": payload | {"n": n}},
        )
        assert reader.event("broadcast")["payload"]["n"] == n
    assert _resident_bytes(server.process.pid) - before < 25_000_000
    assert sleeper.close_code() is None  # cut off: no close frame could reach it


def _resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123  no file of a disk
        return int(file.read().split()[1]) * 4096


def test_channels_that_wait_for_the_database_join_anew_after_it_was_gone(own: Own, name: str) -> None:
    server, realtime = own()
    public, private, database = (realtime.socket() for _ in range(3))
    public.joined(name)
    private.joined(name, realtime.token(), private=True)
    database.joined("db", **changes({"event": "*", "schema": "realtime_test", "table": "open"}))
    realtime.stack.sql.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", (server.name,)
    )
    for socket in (private, database):
        assert socket.event("phx_error") == {}
    private.joined(name, realtime.token(), private=True)
    database.joined("db", **changes({"event": "*", "schema": "realtime_test", "table": "open"}))
    realtime.stack.sql.execute("select realtime.send('{\"n\": 1}', 'e', %s)", (name,))
    realtime.stack.sql.execute("insert into realtime_test.open values (1, 'after')")
    assert private.event("broadcast")["payload"]["n"] == 1
    assert database.event("postgres_changes")["data"]["record"]["b"] == "after"
    assert public.silent() == []


def test_without_a_database_public_topics_work_and_the_others_come_back_with_it(own: Own, name: str) -> None:
    server, realtime = own(REALTIME_MAX_DATABASE_MS="500")
    server.kill()
    database = urlsplit(realtime.stack.env["SUPABASE_DB_URL"])
    with Line(database.port or 5432) as line:
        address = f"{database.username}:{database.password}@127.0.0.1:{line.port}"
        server.environment["SUPABASE_DB_URL"] = f"postgresql://{address}/postgres"
        server.start_again(realtime.stack, status=503)
        socket, unreachable = realtime.socket(), "Realtime was unable to connect to the project database"
        reason = socket.refused(name, realtime.token(), private=True)
        assert reason == f"UnableToConnectToProject: {unreachable}"
        table = changes({"event": "*", "schema": "realtime_test", "table": "open"})
        socket.join("db", **table)
        assert socket.system(unreachable).payload["status"] == "error"
        late = socket.refused("late", **table, postgres_changes_options={"wait": True, "timeout": 50})
        assert late == (
            "PostgresChangesSubscribeTimeout: Timed out after 50ms waiting for the postgres_changes subscription"
        )
        socket.joined("public", broadcast={"self": True})
        socket.send("realtime:public", "broadcast", {"event": "x", "payload": {}})
        assert socket.event("broadcast") == {"event": "x", "payload": {}}

        line.restore()
        assert socket.event("phx_error") == {}
        socket.joined("db", **table)
        socket.joined(name, realtime.token(), private=True)
        realtime.stack.sql.execute("insert into realtime_test.open values (1, 'restored')")
        assert socket.event("postgres_changes")["data"]["record"]["b"] == "restored"


class Line:
    """A line to a port of this machine, cut until it is restored."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket_library.create_server(("127.0.0.1", 0))
        self._whole = threading.Event()
        self._ends: list[socket_library.socket] = [self._listener]
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> "Line":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket_library.SHUT_RDWR)
            end.close()

    def restore(self) -> None:
        self._whole.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole.is_set():
                near.close()
                continue
            far = socket_library.create_connection(("127.0.0.1", self._target))
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket_library.socket, sink: socket_library.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket_library.SHUT_WR)


def test_a_thousand_joins_in_a_second_disturb_nobody(realtime: Realtime) -> None:
    quiet, sockets = realtime.socket(), [realtime.socket() for _ in range(10)]
    token = realtime.token()
    for n in range(100):
        for socket in sockets:
            topic = f"realtime:rt:all:{n}"
            ref = socket.send(
                topic, "phx_join", {"config": {"private": True}, "access_token": token}, join_ref=str(n)
            )
            socket.join_refs[topic] = ref
    quiet.silent()  # is answered
    for socket in sockets:
        replies = [socket.until(lambda message: message.event == "phx_reply").payload for _ in range(100)]
        assert all(reply["status"] == "ok" for reply in replies)
