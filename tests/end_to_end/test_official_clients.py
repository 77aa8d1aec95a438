"""supabase-js and supabase-py, unmodified: each step gives over the local stack what it gives on hosted."""

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions

from local.setup import NODE_FOLDER, node_program
from tests.stack import Stack

Seen = Mapping[str, Any]
T = TypeVar("T")

_PROBE = """
create table public.{0} (
  id int primary key, at timestamptz, plain timestamp, day date, amount numeric(6,2), data jsonb,
  words text[]
);
alter table public.{0} enable row level security;
revoke all on public.{0} from anon, authenticated;
grant all on public.{0} to service_role;
create function public.{0}_rows() returns setof public.{0} language sql as $$
  select * from public.{0} order by id
$$;
create function public.{0}_out(n int, out double int, out at timestamptz) language sql as $$
  select n * 2, timestamptz '2026-01-02 03:04:05+00'
$$;
create function public.{0}_scalar() returns timestamptz language sql as $$
  select timestamptz '2026-01-02 03:04:05.5+00'
$$;
create function public.{0}_void() returns void language sql as '';
create function public.{0}_echo(given jsonb, words text[], at timestamptz, missing int default 7)
returns jsonb language sql as $$
  select jsonb_build_object('given', given, 'words', words, 'at', at, 'missing', missing)
$$;
create function public.{0}_refuse() returns void language plpgsql as $$
begin
  raise exception using errcode = 'SJ300', message = 'lost', detail = 'running', hint = 'claim again';
end $$;
"""


@pytest.fixture(scope="module")
def probe(stack: Stack) -> Iterator[str]:
    """A table and functions of this test's own, named alike."""
    name = f"probe_{uuid.uuid4().hex[:8]}"
    stack.sql.execute(_PROBE.format(name).encode())
    yield name
    stack.sql.execute(f"drop table public.{name} cascade".encode())
    for function in ("out", "scalar", "void", "echo", "refuse"):
        stack.sql.execute(f"drop function public.{name}_{function}".encode())


@pytest.fixture(scope="module", params=["supabase-js", "supabase-py"])
def seen(request: pytest.FixtureRequest, stack: Stack, probe: str) -> Iterator[Seen]:
    """What one client saw, step by step. Each client gets an empty table and a bucket of its own."""
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    stack.sql.execute(f"truncate public.{probe}".encode())
    run: Callable[[Stack, str, str], Seen] = _javascript if request.param == "supabase-js" else _python
    yield run(stack, bucket, probe)
    with httpx.Client(trust_env=False, timeout=60) as http:
        storage = _client(stack, http, "SUPABASE_SECRET_KEY").storage
        storage.empty_bucket(bucket)
        storage.delete_bucket(bucket)


def _javascript(stack: Stack, bucket: str, probe: str) -> Seen:
    script = Path(__file__).with_name("supabase_js.mjs")
    command = [str(node_program()), str(script), str(NODE_FOLDER), bucket, probe]
    done = subprocess.run(
        command, env=dict(stack.env), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    seen: Seen = json.loads(done.stdout)
    return seen


def _client(stack: Stack, http: httpx.Client, key: str) -> Client:
    options = SyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
    return create_client(stack.env["SUPABASE_URL"], stack.env[key], options)


def _failure(call: Callable[[], object]) -> Any:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - each part of the client has its own class
        return error
    pytest.fail("the call went through")


def _python(stack: Stack, bucket: str, probe: str) -> Seen:
    with httpx.Client(trust_env=False, timeout=60) as http:
        return _python_over(http, stack, bucket, probe)


def _python_over(http: httpx.Client, stack: Stack, bucket: str, probe: str) -> Seen:
    seen: dict[str, Any] = {}
    user = _client(stack, http, "SUPABASE_PUBLISHABLE_KEY")
    server = _client(stack, http, "SUPABASE_SECRET_KEY")
    email, password = stack.env["DEMO_EMAIL"], stack.env["DEMO_PASSWORD"]

    def sign_in(client: Client, email: str, password: str) -> Any:
        return client.auth.sign_in_with_password({"email": email, "password": password})

    seen["wrong_password"] = _failure(lambda: sign_in(user, email, "wrong")).code
    seen["signed_in"] = sign_in(user, email, password).user.email
    seen["user"] = _present(user.auth.get_user()).user.email
    refreshed = _present(user.auth.refresh_session().session)
    seen["refreshed"] = _present(user.auth.get_user(refreshed.access_token)).user.email

    table = server.table(probe)
    row = {
        "id": 1,
        "at": "2026-01-02T03:04:05.07+02:00",
        "plain": "2026-01-02T03:04:05",
        "day": "2026-01-02",
        "amount": 1.5,
        "data": {"at": "2026-01-02 03:04:05+00", "list": [1, "x"]},
        "words": ["a", "b"],
    }
    seen["inserted"] = table.insert(row).execute().data[0]
    both: list[Any] = [{"id": 1, "amount": 2, "data": None}, {"id": 2, "amount": None, "data": [1, 2]}]
    table.upsert(both).execute()
    worded: Any = [{"id": 3, "data": "text"}, {"id": 4, "data": "{}"}, {"id": 5, "data": True}]
    kept: Any = table.insert(worded).execute().data
    seen["worded"] = [row["data"] for row in kept]
    echo: Any = server.rpc(f"{probe}_echo", {"given": "{}", "words": [], "at": None}).execute().data
    seen["echoed"] = echo["given"]
    table.delete().gt("id", 2).execute()
    seen["upserted"] = table.select("id, amount, data").order("id").execute().data
    seen["counted"] = table.select("*", count="exact", head=True).execute().count  # type: ignore[arg-type]
    seen["duplicate"] = _failure(lambda: table.insert({"id": 1}).execute()).code
    seen["single_of_none"] = _failure(lambda: table.select("*").eq("id", 9).single().execute()).code
    seen["denied"] = _failure(lambda: user.table(probe).select("*").execute()).code
    seen["setof"] = server.rpc(f"{probe}_rows").execute().data
    seen["out"] = server.rpc(f"{probe}_out", {"n": 3}).execute().data
    seen["scalar"] = server.rpc(f"{probe}_scalar").execute().data
    server.rpc(f"{probe}_void").execute()
    seen["nothing"] = 204
    given = {"given": [{"a": 1}], "words": ["x"], "at": "2026-01-02T03:04:05Z"}
    seen["echo"] = server.rpc(f"{probe}_echo", given).execute().data
    refused = _failure(lambda: server.rpc(f"{probe}_refuse").execute())
    seen["refused"] = {name: getattr(refused, name) for name in ("code", "message", "details", "hint")}

    server.storage.create_bucket(bucket)
    files = server.storage.from_(bucket)
    text: Any = {"content-type": "text/plain"}
    described: Any = {**text, "metadata": {"made": "here"}}
    over: Any = {**text, "upsert": "true"}
    seen["uploaded"] = files.upload("a/one.txt", b"one", described).full_path
    seen["uploaded_bytes"] = files.upload("a/b/two (1).txt", b"two", text).path
    seen["conflict"] = _failure(lambda: files.upload("a/one.txt", b"x")).message
    files.upload("a/one.txt", b"uno", over)
    seen["downloaded"] = files.download("a/one.txt").decode()
    seen["listed"] = [[entry["name"], entry["id"] is not None] for entry in files.list("a")]
    info = files.info("a/one.txt")
    seen["info"] = [info["name"], info["size"], info["content_type"]]
    seen["exists"] = [files.exists("a/one.txt"), files.exists("a/none")]
    signed = _present(files.create_signed_url("a/b/two (1).txt", 60)["signedUrl"])
    seen["signed"] = httpx.get(signed, trust_env=False, timeout=60).text
    seen["ranged"] = httpx.get(signed, headers={"range": "bytes=1-"}, trust_env=False, timeout=60).text
    many = files.create_signed_urls(["a/one.txt", "a/none"], 60)
    seen["signed_many"] = [[bool(one["signedURL"]), bool(one["error"])] for one in many]
    offer = files.create_signed_upload_url("a/three.txt")
    files.upload_to_signed_url(offer["path"], offer["token"], b"three", text)
    files.copy("a/three.txt", "a/four.txt")
    files.move("a/four.txt", "a/five.txt")
    seen["moved"] = files.download("a/five.txt").decode()
    seen["missing"] = _failure(lambda: files.download("a/four.txt")).message
    seen["forbidden"] = _failure(lambda: user.storage.from_(bucket).upload("x", b"x")).message
    seen["removed"] = len(files.remove(["a/one.txt", "a/none"]))

    admin = server.auth.admin
    address = f"{bucket}@sidejob.test"
    wanted: Any = {
        "email": address,
        "password": "first-password",
        "email_confirm": True,
        "user_metadata": {"name": "A"},
        "app_metadata": {"team": 1},
    }
    made = admin.create_user(wanted).user
    seen["made"] = [
        made.email,
        made.user_metadata["name"],
        made.app_metadata["team"],
        made.app_metadata["provider"],
    ]
    twice = _failure(lambda: admin.create_user({"email": address}))
    seen["made_twice"] = [twice.code, twice.status]
    seen["found"] = admin.get_user_by_id(made.id).user.email
    seen["page"] = [len(admin.list_users(page=1, per_page=2)), True, 2]
    admin.update_user_by_id(made.id, {"password": "second-password", "user_metadata": {"name": "B"}})
    other = _client(stack, http, "SUPABASE_PUBLISHABLE_KEY")
    seen["old_password"] = _failure(lambda: sign_in(other, address, "first-password")).code
    theirs = sign_in(other, address, "second-password")
    seen["renamed"] = theirs.user.user_metadata["name"]
    admin.update_user_by_id(made.id, {"ban_duration": "1h"})
    seen["banned"] = _failure(lambda: sign_in(other, address, "second-password")).code
    admin.update_user_by_id(made.id, {"ban_duration": "none"})
    admin.delete_user(made.id)
    seen["deleted"] = _failure(lambda: admin.get_user_by_id(made.id)).code
    seen["token_of_deleted"] = _failure(lambda: other.auth.get_user(theirs.session.access_token)).code
    stranger = _client(stack, http, "SUPABASE_PUBLISHABLE_KEY")
    seen["not_admin"] = _failure(stranger.auth.admin.list_users).code

    last = _present(user.auth.get_session()).access_token
    user.auth.sign_out()
    seen["signed_out"] = None
    seen["after_sign_out"] = _failure(lambda: server.auth.get_user(last)).code
    return seen


def _present(value: T | None) -> T:
    assert value is not None
    return value


def test_a_person_signs_in_refreshes_and_signs_out(seen: Seen, stack: Stack) -> None:
    email = stack.env["DEMO_EMAIL"]
    assert (seen["signed_in"], seen["user"], seen["refreshed"]) == (email, email, email)
    assert seen["wrong_password"] == "invalid_credentials"
    assert seen["signed_out"] is None
    # supabase-js makes a class of its own of this code
    assert seen["after_sign_out"] in ("session_not_found", "AuthSessionMissingError")


def test_rows_come_back_as_postgrest_sends_them(seen: Seen) -> None:
    assert seen["inserted"] == {
        "id": 1,
        "at": "2026-01-02T01:04:05.07+00:00",
        "plain": "2026-01-02T03:04:05",
        "day": "2026-01-02",
        "amount": 1.5,
        "data": {"at": "2026-01-02 03:04:05+00", "list": [1, "x"]},
        "words": ["a", "b"],
    }
    assert [(row["id"], row["amount"], row["data"]) for row in seen["upserted"]] == [
        (1, 2, None),
        (2, None, [1, 2]),
    ]
    assert seen["counted"] == 2


def test_text_in_a_json_column_stays_text(seen: Seen) -> None:
    assert seen["worded"] == ["text", "{}", True]
    assert seen["echoed"] == "{}"


def test_functions_answer_in_the_shape_of_what_they_return(seen: Seen) -> None:
    assert [row["at"] for row in seen["setof"]] == ["2026-01-02T01:04:05.07+00:00", None]
    assert seen["out"] == {"double": 6, "at": "2026-01-02T03:04:05+00:00"}
    assert seen["scalar"] == "2026-01-02T03:04:05.5+00:00"
    assert seen["nothing"] == 204
    assert seen["echo"] == {
        "given": [{"a": 1}],
        "words": ["x"],
        "at": "2026-01-02T03:04:05+00:00",
        "missing": 7,
    }


def test_errors_keep_their_sqlstate_detail_and_hint(seen: Seen) -> None:
    assert seen["refused"] == {
        "code": "SJ300",
        "message": "lost",
        "details": "running",
        "hint": "claim again",
    }
    assert (seen["duplicate"], seen["single_of_none"], seen["denied"]) == ("23505", "PGRST116", "42501")


def test_files_go_up_and_come_down(seen: Seen) -> None:
    assert seen["uploaded"].endswith("/a/one.txt")
    assert seen["uploaded_bytes"] == "a/b/two (1).txt"
    assert seen["conflict"] == "The resource already exists"
    assert seen["downloaded"] == "uno"
    assert seen["listed"] == [["b", False], ["one.txt", True]]
    assert seen["info"] == ["a/one.txt", 3, "text/plain"]
    assert seen["exists"] == [True, False]
    assert seen["moved"] == "three"
    assert seen["missing"] == "Object not found"
    assert seen["forbidden"] == "new row violates row-level security policy"
    assert seen["removed"] == 1


def test_signed_addresses_work_without_a_key(seen: Seen) -> None:
    assert (seen["signed"], seen["ranged"]) == ("two", "wo")
    assert seen["signed_many"] == [[True, False], [False, True]]


def test_the_admin_api_makes_changes_bans_and_deletes_users(seen: Seen) -> None:
    assert seen["made"][1:] == ["A", 1, "email"]
    assert seen["made_twice"] == ["email_exists", 422]
    assert seen["found"] == seen["made"][0]
    assert seen["page"] == [2, True, 2]
    assert (seen["old_password"], seen["renamed"]) == ("invalid_credentials", "B")
    assert seen["banned"] == "user_banned"
    assert (seen["deleted"], seen["token_of_deleted"]) == ("user_not_found", "user_not_found")
    assert seen["not_admin"] == "not_admin"
