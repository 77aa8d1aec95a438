"""The local stack: clear refusals, keys and tokens as on hosted, nothing lost when it is killed."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest

from local import credentials, migrations, postgres
from local.layout import Layout
from local.setup import REPOSITORY
from local.suite import free_layout, processes_for
from local.supervisor import is_up
from tests.end_to_end.own_stack import OwnStack
from tests.stack import Person, Stack


def _until(holds: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def _token(secret: str, **claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    mark = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"


@pytest.mark.parametrize("words", [["nonsense"], ["up", "--nonsense"], ["demo", "a", "b"], []])
def test_a_mistyped_command_shows_every_command_and_ends_with_2(words: list[str]) -> None:
    done = subprocess.run([REPOSITORY / "local.sh", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for command in ("demo", "up", "down", "status", "reset", "psql", "test", "bench", "logs"):
        assert f"\n    {command} " in done.stderr


@pytest.mark.parametrize(
    "command", ["demo", "up", "down", "status", "reset", "psql", "test", "bench", "logs"]
)
def test_every_command_explains_itself(command: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "local.sh", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert f"usage: ./local.sh {command}" in done.stdout


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("select 1; select 2;\n", ["select 1", "select 2"]),
        ("-- a; b\nselect ';';", ["-- a; b\nselect ';'"]),
        ("do $x$ begin; $$ end $x$; select $$;$$", ["do $x$ begin; $$ end $x$", "select $$;$$"]),
        (
            'select ";" /* ; */; create function f() returns int begin atomic select 1; end;',
            ['select ";" /* ; */', "create function f() returns int begin atomic select 1; end"],
        ),
        ("-- only a comment", []),
    ],
)
def test_a_migration_is_noted_statement_by_statement(text: str, statements: list[str]) -> None:
    assert migrations.split(text) == statements


def test_every_migration_is_noted_as_the_supabase_cli_notes_it(stack: Stack) -> None:
    files = sorted((REPOSITORY / "supabase" / "migrations").glob("*.sql"))
    rows = stack.sql.execute(
        "select * from supabase_migrations.schema_migrations order by version"
    ).fetchall()
    assert [f"{row['version']}_{row['name']}.sql" for row in rows] == [path.name for path in files]
    assert set(rows[0]) == {"version", "statements", "name"}
    assert all(row["statements"] for row in rows)


@pytest.mark.parametrize("path", ["rest/v1/jobs", "auth/v1/user", "auth/v1/admin/users"])
def test_no_request_without_a_key_is_answered_even_from_this_machine(stack: Stack, path: str) -> None:
    answer = httpx.get(f"{stack.env['SUPABASE_URL']}/{path}", trust_env=False, timeout=60)
    assert answer.status_code == 401
    assert answer.json() == {
        "message": "No API key found in request",
        "hint": "No `apikey` request header or url param was found.",
    }


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (lambda _secret: "no-token", "PGRST301"),
        (lambda _secret: _token("x" * 64, role="authenticated", exp=time.time() + 60), "PGRST301"),
        (lambda secret: _token(secret, role="authenticated", exp=time.time() - 60), "PGRST303"),
    ],
    ids=["malformed", "another secret", "expired"],
)
def test_a_bad_token_is_refused_as_postgrest_refuses_it(
    stack: Stack, token: Callable[[str], str], code: str
) -> None:
    headers = {
        "apikey": stack.env["SUPABASE_PUBLISHABLE_KEY"],
        "authorization": f"Bearer {token(stack.env['SUPABASE_JWT_SECRET'])}",
    }
    answer = httpx.get(
        f"{stack.env['SUPABASE_URL']}/rest/v1/jobs", headers=headers, trust_env=False, timeout=60
    )
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert set(answer.json()) == {"code", "message", "details", "hint"}


def test_a_value_of_a_domain_is_written_read_and_filtered_as_the_type_beneath(
    member: Person, executor: str
) -> None:
    row = {"type": "test.domain", "executor_id": executor, "payload": {"n": [1, "1"]}, "priority": 3}
    row |= {"next_run_at": "2099-01-01T00:00:00Z", "idempotency_key": executor}
    assert member.rest("POST", "jobs", row).status_code == 201
    filters = {"executor_id": f"eq.{executor}", "priority": "gte.3", "payload->n->>1": "eq.1"}
    (found,) = member.rest("GET", "jobs", select=",".join(row), order="priority,type", **filters).json()
    assert found == row | {"next_run_at": "2099-01-01T00:00:00+00:00"}
    inside = {
        "executor_id": f"in.({executor},other)",
        "payload": 'cs.{"n":["1"]}',
        "next_run_at": "gt.2098-12-31",
    }
    assert len(member.rest("GET", "jobs", **inside).json()) == 1


@pytest.mark.parametrize(
    ("wrong", "constraint"),
    [
        ({"priority": 10}, "priority_is_0_to_9"),
        ({"payload": []}, "payload_is_an_object"),
        ({"type": "no spaces"}, "type_is_a_short_name"),
        ({"next_run_at": "2101-01-01T00:00:00Z"}, "next_run_at_is_before_2100"),
    ],
)
def test_a_row_that_breaks_the_rule_of_a_value_is_refused_by_its_name(
    member: Person, wrong: dict[str, object], constraint: str
) -> None:
    answer = member.rest("POST", "jobs", {"type": "test.domain", "payload": {}, **wrong})
    assert (answer.status_code, answer.json()["code"]) == (400, "23514")
    assert f'"{constraint}"' in answer.json()["message"]


def test_tokens_name_their_issuer_and_the_users_metadata(stack: Stack) -> None:
    body = stack.sign_in("DEMO").token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert claims["iss"] == f"{stack.env['SUPABASE_URL']}/auth/v1"
    assert (claims["aud"], claims["role"]) == ("authenticated", "authenticated")
    assert claims["app_metadata"]["provider"] == "email"


def test_a_browser_may_call_rest_auth_and_storage(stack: Stack) -> None:
    asked = "authorization, apikey, x-client-info, prefer"
    for path in ("rest/v1/jobs", "auth/v1/token", "storage/v1/object/artifacts/x"):
        answer = httpx.options(
            f"{stack.env['SUPABASE_URL']}/{path}",
            headers={
                "origin": "https://example.com",
                "access-control-request-method": "POST",
                "access-control-request-headers": asked,
            },
            trust_env=False,
            timeout=60,
        )
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == asked
        assert "POST" in answer.headers["access-control-allow-methods"]


def test_an_unknown_function_is_404_in_the_envelope_and_keeps_the_request_id(stack: Stack) -> None:
    answer = httpx.get(
        f"{stack.env['FUNCTIONS_URL']}/nonsense",
        headers={"x-request-id": "request-1"},
        trust_env=False,
        timeout=60,
    )
    assert answer.status_code == 404
    assert answer.headers["x-request-id"] == "request-1"
    assert set(answer.json()) == {"error", "code", "details", "hint", "requestId"}
    assert (answer.json()["code"], answer.json()["requestId"]) == ("not_found", "request-1")


def test_the_env_file_is_for_its_owner_alone() -> None:
    assert Path(os.environ["SIDEJOB_TEST_ENV"]).stat().st_mode & 0o777 == 0o600


def test_only_three_functions_know_the_secret_key_and_no_worker_does() -> None:
    home = Path(os.environ["SIDEJOB_TEST_ENV"]).parent
    secret = credentials.load(home / "env")["SUPABASE_SECRET_KEY"]
    if sys.platform != "linux":
        pytest.skip("only Linux shows a process's environment")
    knowing = {
        child["name"]
        for child in json.loads((home / "state.json").read_text())["children"]
        if child["pid"] and secret in Path(f"/proc/{child['pid']}/environ").read_text(errors="replace")
    }
    # The gateway and Realtime tell the key from a stranger's, as hosted ones do.
    functions = {"function-artifacts-sweep", "function-leases-release", "function-sign-artifact"}
    assert knowing == {"gateway", "realtime", *functions}


@pytest.mark.parametrize(
    ("words", "processes"),
    [
        ("", 3), ("-q --durations=20", 3), ("-x --tb=short -rA", 3), ("tests/worker", 1), ("-k lease", 1),
        ("-m soak", 1), ("--soak", 1), ("-q tests/worker/test_lease.py::test_x", 1), ("-s", 1), ("--pdb", 1),
    ],
)  # fmt: skip
def test_the_whole_suite_runs_in_processes_and_a_part_in_one(words: str, processes: int) -> None:
    assert processes_for(words.split()) == processes


_OTHER_CHECKOUT = """
import sys
from pathlib import Path
from local import suite
suite.TOOLS = Path(sys.argv[1])
with suite.free_layout("run") as layout:
    print(*layout.ports, flush=True)
    sys.stdin.read()
"""


def test_runs_of_two_checkouts_at_once_share_no_port(tmp_path: Path) -> None:
    """Neither has started anything yet: nothing but the keeper tells one of the other."""
    command = [sys.executable, "-c", _OTHER_CHECKOUT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        theirs = set(map(int, other.stdout.readline().split()))
        with free_layout("run") as first, free_layout("run") as second:
            assert theirs
            assert not theirs & (first.ports | second.ports)
            assert not first.ports & second.ports
            first.home.rmdir()
            second.home.rmdir()
        other.stdin.close()


def test_every_program_of_a_stack_takes_a_port_of_its_layout(stack: Stack) -> None:
    children = json.loads((Path(os.environ["SIDEJOB_TEST_ENV"]).parent / "state.json").read_text())[
        "children"
    ]
    taken = {int(port) for child in children for port in child["ports"].split(",")}
    assert urlsplit(stack.env["SUPABASE_URL"]).port in taken
    assert taken <= Layout.read().ports


def test_postgres_runs_below_a_folder_that_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root it runs as somebody else, who could pass neither /root nor a folder of mktemp -d."""
    closed = tmp_path / "mode 700"
    closed.mkdir(mode=0o700)
    real = postgres.binaries("18")  # the wheel's, which may be moved
    packages = real.parents[2]
    for folder in (real.parent, packages / f"{real.parents[1].name}.libs"):
        shutil.copytree(folder, closed / folder.relative_to(packages), symlinks=True)
    monkeypatch.setattr(postgres, "binaries", lambda _: closed / real.relative_to(packages))
    with free_layout("closed") as free:
        free.home.rmdir()
        layout = replace(free, home=closed / "home", postgres="18")
        layout.home.mkdir()
        postgres.initialise(layout, "secret")
        command = postgres.command(layout)
        url = f"postgresql://postgres:secret@127.0.0.1:{layout.postgres_port}/postgres"
        with subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL) as server:
            try:
                _until(lambda: postgres.answers(url))
                with psycopg.connect(url) as connection:
                    assert connection.execute("select 1").fetchone() == (1,)
            finally:
                server.send_signal(signal.SIGINT)


def test_postgres_gets_no_right_that_it_does_not_need() -> None:
    """In an open folder: a container may have no capability to give."""
    assert Path("/usr").stat().st_mode & 0o001
    assert "dac_override" not in " ".join(postgres.as_somebody_else(Path("/usr/bin"), death_signal=False)), (
        "an open folder needs none"
    )


@pytest.fixture(scope="module")
def own() -> Iterator[OwnStack]:
    with OwnStack.running("own") as own:
        yield own


def test_a_second_up_says_that_it_is_already_up(own: OwnStack) -> None:
    for words in (["up"], ["up", "-d"]):
        again = own.run(*words)
        assert again.returncode == 1
        assert "already up" in again.stderr
        assert own.layout.url in again.stderr


def test_a_taken_port_is_named_with_who_wants_it_and_what_to_do(own: OwnStack, tmp_path: Path) -> None:
    other = own.run("up", SIDEJOB_HOME=str(tmp_path / "other"))
    assert other.returncode == 1
    assert f"Port {own.layout.gateway_port}, which gateway wants, is in use." in other.stderr
    assert "SIDEJOB_PORT_OFFSET" in other.stderr


def test_a_wrong_variable_is_named(own: OwnStack) -> None:
    wrong = own.run("status", SIDEJOB_PORT_OFFSET="many")
    assert wrong.returncode == 1
    assert "SIDEJOB_PORT_OFFSET is 'many'" in wrong.stderr


def test_a_full_disk_refuses_an_upload_and_leaves_no_row(own: OwnStack) -> None:
    own.ask("POST", "storage/v1/bucket", json={"id": "disk", "name": "disk"})
    small = own.ask("POST", "storage/v1/object/disk/kept.bin", content=b"kept")
    assert small.status_code == 200
    for path, method in (("large.bin", "POST"), ("kept.bin", "PUT")):
        large = own.ask(method, f"storage/v1/object/disk/{path}", content=b"x" * 2_000_000)
        assert (large.status_code, large.json()["statusCode"]) == (507, "507")
    assert own.sql("select name from storage.objects where bucket_id = 'disk'") == [("kept.bin",)]
    assert own.ask("GET", "storage/v1/object/disk/kept.bin").content == b"kept"


def test_a_name_may_hold_every_character_that_storage_takes(own: OwnStack) -> None:
    name = "a b/!-.*'() &$@=;:+,?_1.txt"
    own.ask("POST", "storage/v1/bucket", json={"id": "names", "name": "names"})
    path = f"names/{quote(name)}"
    assert own.ask("POST", f"storage/v1/object/{path}", content=b"here").json()["Key"] == f"names/{name}"
    signed = own.ask("POST", f"storage/v1/object/sign/{path}", json={"expiresIn": 60}).json()["signedURL"]
    assert httpx.get(f"{own.layout.url}/storage/v1{signed}", trust_env=False, timeout=60).content == b"here"
    assert own.sql("select name from storage.objects where bucket_id = 'names'") == [(name,)]
    refused = own.ask("POST", "storage/v1/object/names/%C3%A9.txt", content=b"x")
    assert (refused.status_code, refused.json()["error"]) == (400, "InvalidKey")


def test_a_function_that_died_is_503_until_it_is_started_again(own: OwnStack) -> None:
    child = next(child for child in own.state["children"] if child["name"] == "function-jobs-recent")
    os.killpg(child["pid"], signal.SIGKILL)
    seen: list[httpx.Response] = []

    def is_back() -> bool:
        seen.append(own.ask("GET", "functions/v1/jobs-recent"))
        return len(seen) > 1 and seen[-1].status_code == 401

    _until(is_back)
    down = [answer for answer in seen if answer.status_code == 503]
    assert down, "it was never seen down"
    assert down[0].headers["retry-after"]
    assert set(down[0].json()) == {"error", "code", "details", "hint", "requestId"}


def test_a_killed_stack_leaves_no_process_and_comes_back_with_all_it_had(own: OwnStack) -> None:
    own.sql("create table public.revoked (id int); alter table public.revoked enable row level security")
    own.sql("revoke all on public.revoked from anon, authenticated, service_role")
    own.sql("create table public.kept (words text); insert into public.kept values ('still here')")
    content = uuid.uuid4().bytes
    own.ask("POST", "storage/v1/bucket", json={"id": "kill", "name": "kill"})
    assert own.ask("POST", "storage/v1/object/kill/a/b.bin", content=content).status_code == 200
    before, env = own.state, own.env

    os.kill(before["supervisor"], signal.SIGKILL)
    if sys.platform == "linux":
        pids = [child["pid"] for child in before["children"] if child["pid"]]
        _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert own.run("status").returncode == 1
    again = own.run("up", "-d")
    assert again.returncode == 0, again.stderr

    assert own.env == env
    assert own.ask("GET", "rest/v1/kept").json() == [{"words": "still here"}]
    assert own.ask("GET", "storage/v1/object/kill/a/b.bin").content == content
    for role in ("anon", "authenticated", "service_role"):
        assert own.sql(f"select has_table_privilege('{role}', 'public.revoked', 'select')") == [(False,)]
    assert own.ask("GET", "rest/v1/revoked").status_code == 403


def test_a_stack_of_tests_ends_with_the_process_that_started_it() -> None:
    with free_layout("tied") as layout:
        script = "import time; from local.commands import Launch; from local.layout import Layout\n"
        script += "Launch(Layout.read(), tied=True); print('launched', flush=True); time.sleep(600)"
        env = {**os.environ, **layout.variables, "PYTHONPATH": str(REPOSITORY)}
        with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE) as starter:
            _until(lambda: is_up(layout))
            starter.kill()
        _until(lambda: not is_up(layout))
        shutil.rmtree(layout.home)


def test_a_reset_leaves_no_process_no_data_and_no_key(own: OwnStack) -> None:
    url = own.layout.url
    assert own.run("reset").returncode == 0
    assert own.run("status").returncode == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    assert {path.name for path in own.layout.home.iterdir()} == {"lock"}
