"""Each row of the table in docs/local.md: what the local stack does otherwise than a hosted project."""

import ast
import time
import uuid
from pathlib import Path

import httpx
import jwt
import pytest

from tests.repository.test_documents import table
from tests.stack import Stack, done


def ask(stack: Stack, method: str, path: str, **headers: str) -> httpx.Response:
    key = {"apikey": stack.env["SUPABASE_SECRET_KEY"]}
    return stack.http.request(method, f"{stack.env['SUPABASE_URL']}/{path}", headers={**key, **headers})


def test_every_difference_in_the_document_has_its_test() -> None:
    tree = ast.parse(Path(__file__).read_text())
    here = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    documented = [row[2] for row in table("local.md", "here", "a hosted project")]
    assert sorted(documented) == sorted(here - {"test_every_difference_in_the_document_has_its_test"})


def test_the_list_of_public_keys_is_empty(stack: Stack) -> None:
    assert done(ask(stack, "GET", "auth/v1/.well-known/jwks.json")) == {"keys": []}
    assert jwt.get_unverified_header(stack.sign_in("DEMO").token)["alg"] == "HS256"


def test_an_older_api_key_is_refused(stack: Stack) -> None:
    claims = {"role": "service_role", "exp": int(time.time()) + 600}
    key = jwt.encode(claims, stack.env["SUPABASE_JWT_SECRET"], algorithm="HS256")
    assert ask(stack, "GET", "rest/v1/jobs", apikey=key, authorization=f"Bearer {key}").status_code == 401


def test_the_root_of_rest_describes_no_tables(stack: Stack) -> None:
    document = done(ask(stack, "GET", "rest/v1/"))
    assert document["swagger"] == "2.0"
    assert not document.get("definitions")


def test_a_preference_without_a_meaning_is_repeated(stack: Stack) -> None:
    answer = ask(stack, "GET", "rest/v1/jobs?limit=0", prefer="return=representation")
    assert answer.headers["preference-applied"] == "return=representation"


def test_a_function_may_change_every_row(stack: Stack) -> None:
    name = f"everything_{uuid.uuid4().hex}"
    body = "begin create temp table them (a int) on commit drop; update them set a = 1; end"
    made = f"create function public.{name}() returns void language plpgsql as '{body}'"
    stack.sql.execute(made.encode())
    try:
        deadline = time.monotonic() + 300
        while (answer := ask(stack, "POST", f"rest/v1/rpc/{name}")).status_code == 404:
            assert time.monotonic() < deadline
        assert answer.status_code == 204, answer.text
    finally:
        stack.sql.execute(f"drop function public.{name}()".encode())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "graphql/v1"),
        ("GET", "storage/v1/s3/artifacts"),
        ("POST", "storage/v1/upload/resumable"),
        ("GET", "storage/v1/render/image/authenticated/artifacts/a.png"),
    ],
)
def test_what_is_not_there_is_404(stack: Stack, method: str, path: str) -> None:
    assert ask(stack, method, path).status_code == 404


def test_extensions_are_few(stack: Stack) -> None:
    rows = stack.sql.execute("select name from pg_available_extensions").fetchall()
    assert {row["name"] for row in rows} >= {"plpgsql"}
    assert not {row["name"] for row in rows} & {"pg_cron", "supabase_vault", "pg_net"}


def test_postgres_is_a_superuser(stack: Stack) -> None:
    row = stack.sql.execute("select rolsuper from pg_roles where rolname = 'postgres'").fetchone()
    assert row == {"rolsuper": True}
