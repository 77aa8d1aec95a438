"""Rights do not depend on what a project grants by default, and anon has none of them."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from local import migrations, postgres

REPOSITORY = Path(__file__).parents[2]
SQL = REPOSITORY / "local" / "sql"

EVERY_RIGHT = """
select role || ' may ' || kind || ' ' || object from (
  select role, privilege || ' table' as kind, c.oid::regclass::text as object
    from pg_class c, unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) as privilege,
         unnest('{anon,authenticated,service_role}'::text[]) as role
   where c.relnamespace in ('public'::regnamespace, 'sidejob'::regnamespace) and c.relkind in ('r', 'v', 'p')
     and has_table_privilege(role, c.oid, privilege)
  union all
  select role, privilege || ' column', c.oid::regclass || '.' || a.attname
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped,
         unnest('{select,insert,update,references}'::text[]) as privilege, unnest('{anon,authenticated,service_role}'::text[]) as role
   where c.relnamespace in ('public'::regnamespace, 'sidejob'::regnamespace) and c.relkind in ('r', 'v', 'p')
     and has_column_privilege(role, c.oid, a.attnum, privilege)
  union all
  select role, 'use sequence', c.oid::regclass::text
    from pg_class c, unnest('{anon,authenticated,service_role}'::text[]) as role
   where c.relnamespace in ('public'::regnamespace, 'sidejob'::regnamespace) and c.relkind = 'S' and has_sequence_privilege(role, c.oid, 'usage')
  union all
  select role, 'call', p.oid::regprocedure::text
    from pg_proc p, unnest('{anon,authenticated,service_role}'::text[]) as role
   where p.pronamespace in ('public'::regnamespace, 'sidejob'::regnamespace) and has_function_privilege(role, p.oid, 'execute')
) as every_right order by 1
"""


def rights(default_grants: str) -> list[str]:
    """Every right of the API's roles in a database made from the migrations alone."""
    with scratch_database() as url:
        with psycopg.connect(url, autocommit=True) as session:
            for file in ("roles.sql", "realtime.sql", default_grants):
                session.execute((SQL / file).read_bytes())
        migrations.apply(url, REPOSITORY / "supabase" / "migrations")
        with psycopg.connect(url) as session:
            return [row[0] for row in session.execute(EVERY_RIGHT).fetchall()]


@contextmanager
def scratch_database() -> Iterator[str]:
    """A new database with the schemas auth and storage of the stack's own, dropped afterwards."""
    stack = os.environ["SUPABASE_DB_URL"]
    name = f"scratch_{uuid.uuid4().hex}"
    url = make_conninfo(stack, dbname=name)
    programs = postgres.binaries("18")
    with psycopg.connect(stack, autocommit=True) as session:
        session.execute(f"create database {name}")
        try:
            schemas = subprocess.run(
                [
                    programs / "pg_dump",
                    "--schema-only",
                    "--no-policies",
                    "--no-owner",
                    "--schema=auth",
                    "--schema=storage",
                    stack,
                ],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            # What a newer pg_dump writes and an older server does not know.
            known = "\n".join(line for line in schemas.splitlines() if "transaction_timeout" not in line)
            subprocess.run(
                [programs / "psql", "--quiet", "--set=ON_ERROR_STOP=1", url],
                input=known,
                check=True,
                capture_output=True,
                text=True,
            )
            yield url
        finally:
            session.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def with_default_grants() -> list[str]:
    return rights("default_grants.sql")


def test_hosted_default_grants_change_no_right(with_default_grants: list[str]) -> None:
    assert rights("no_default_grants.sql") == with_default_grants


def test_anon_may_ask_the_questions_of_the_shared_tables_policies_and_nothing_else(
    with_default_grants: list[str],
) -> None:
    asked = ("is_older_topic", "is_our_topic", "may_fetch", "may_listen", "may_speak", "may_store")
    assert [right for right in with_default_grants if right.startswith("anon")] == [
        f"anon may call sidejob.{name}(text)" for name in asked
    ]


def test_every_table_has_row_level_security(with_default_grants: list[str]) -> None:
    assert with_default_grants
    with psycopg.connect(os.environ["SUPABASE_DB_URL"]) as session:
        open_tables = session.execute(
            "select oid::regclass::text from pg_class where relnamespace in ('public'::regnamespace, 'sidejob'::regnamespace)"
            " and relkind in ('r', 'p') and not relrowsecurity"
        ).fetchall()
    assert open_tables == []


def test_every_function_has_an_empty_search_path() -> None:
    """All but those whose body is SQL: their names were looked up once, when they were made."""
    with psycopg.connect(os.environ["SUPABASE_DB_URL"]) as session:
        loose = session.execute(
            "select oid::regprocedure::text from pg_proc where pronamespace in ('public'::regnamespace, 'sidejob'::regnamespace)"
            " and not coalesce(proconfig @> array['search_path=\"\"'], false) and (prosqlbody is null or prosecdef)"
        ).fetchall()
    assert loose == []


def test_the_scaler_may_ask_for_one_number_and_nothing_else() -> None:
    every_right = EVERY_RIGHT.replace("{anon,authenticated,service_role}", "{sidejob_scaler}")
    with psycopg.connect(os.environ["SUPABASE_DB_URL"]) as session:
        rights = [row[0] for row in session.execute(every_right).fetchall()]
        assert rights == ["sidejob_scaler may call sidejob.backlog(text,text)"]
        session.execute("set local role sidejob_scaler")
        assert session.execute("select sidejob.backlog('nobody-s')").fetchone() == (0,)
