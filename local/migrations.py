"""supabase/migrations applied in order, each in a transaction, noted as the Supabase CLI notes them."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg

from local.layout import StackError

_HISTORY = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text not null primary key, statements text[], name text)
"""

# What a semicolon may hide in: comments, quoted text and names, dollar quotes.
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|;""",
    re.DOTALL,
)
_ATOMIC = re.compile(r"\bbegin\s+atomic\b", re.IGNORECASE)


def split(text: str) -> list[str]:
    """The statements of a file, without semicolons and outer white space, as the CLI notes them."""
    statements, start = [], 0
    for token in _TOKEN.finditer(text):
        if token.group() == ";" and not _inside_atomic(text[start : token.start()]):
            statements.append(text[start : token.start()].strip())
            start = token.end()
    statements.append(text[start:].strip())
    return [statement for statement in statements if _TOKEN.sub("", statement).strip()]


def _inside_atomic(statement: str) -> bool:
    """SQL-standard function bodies hold semicolons between BEGIN ATOMIC and END."""
    return bool(_ATOMIC.search(statement)) and not re.search(r"\bend\s*$", statement, re.IGNORECASE)


def files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """(version, name, path) of each migration, oldest first."""
    for path in sorted(folder.glob("*.sql")):
        match = re.fullmatch(r"(\d+)_(.+)\.sql", path.name)
        if not match:
            raise StackError(f"{path.name}: a migration is named <timestamp>_<what it does>.sql")
        yield match[1], match[2], path


def apply(url: str, folder: Path) -> list[str]:
    """Applies what is missing and returns the names.

    Raises StackError with file, line and SQL error; the files before stay applied.
    """
    applied = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_HISTORY)
        known = {
            row[0] for row in connection.execute("select version from supabase_migrations.schema_migrations")
        }
        for version, name, path in files(folder):
            if version in known:
                continue
            text = path.read_text()
            try:
                with connection.transaction():
                    connection.execute(text.encode())
                    connection.execute(
                        "insert into supabase_migrations.schema_migrations (version, name, statements)"
                        " values (%s, %s, %s)",
                        (version, name, split(text)),
                    )
            except psycopg.Error as error:
                raise StackError(_explain(path, text, error)) from error
            applied.append(path.name)
    return applied


def _explain(path: Path, text: str, error: psycopg.Error) -> str:
    diagnosis = error.diag
    position = int(diagnosis.statement_position or 0)
    place = f"{path.name}:{text.count(chr(10), 0, position) + 1}" if position else path.name
    lines = [f"Migration {place}: {diagnosis.message_primary or error} (SQLSTATE {error.sqlstate})"]
    for label, words in (
        ("detail", diagnosis.message_detail),
        ("hint", diagnosis.message_hint),
        ("where", diagnosis.context),
    ):
        if words:
            lines.append(f"  {label}: {words}")
    return "\n".join(lines)
