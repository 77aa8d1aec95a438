"""The env file of a stack: addresses, keys and sign-ins as shell assignments, random, made once."""

import os
import secrets
import shlex
import uuid
from pathlib import Path

from local.layout import Layout, StackError

PEOPLE = ("OWNER", "DEMO", "VIEWER", "WORKER", "WORKER2", "OTHER")  # each has …_EMAIL and …_PASSWORD


def load(path: Path) -> dict[str, str]:
    """The assignments of an env file. Raises StackError when there is none."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise StackError(
            f"{path} is missing: no stack was started here yet. Start one with ./local.sh up -d"
        ) from None
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


def prepare(layout: Layout) -> dict[str, str]:
    """Makes the env file at first start; later only its addresses follow the ports."""
    kept = load(layout.env_file) if layout.env_file.exists() else {}
    values = {**_secrets(), **kept}
    functions = f"{layout.url}/functions/v1"
    values |= {
        "SUPABASE_URL": layout.url,
        "SUPABASE_ANON_KEY": values["SUPABASE_PUBLISHABLE_KEY"],
        "SUPABASE_DB_URL": f"postgresql://postgres:{values['POSTGRES_PASSWORD']}@127.0.0.1:{layout.postgres_port}/postgres",
        "FUNCTIONS_URL": functions,
        "COLLAB_URL": f"http://127.0.0.1:{layout.collab_port}/api/collab",
    }
    if values != kept:
        _write(layout.env_file, values)
    return values


def _secrets() -> dict[str, str]:
    values = {
        "SUPABASE_PUBLISHABLE_KEY": f"sb_publishable_{secrets.token_urlsafe(24)}",
        "SUPABASE_SECRET_KEY": f"sb_secret_{secrets.token_urlsafe(24)}",
        "SUPABASE_JWT_SECRET": secrets.token_hex(32),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "DEMO_WORKSPACE_ID": str(uuid.uuid4()),
        "OTHER_WORKSPACE_ID": str(uuid.uuid4()),
    }
    suffix = secrets.token_hex(3)
    for person in PEOPLE:
        values[f"{person}_EMAIL"] = f"{person.lower()}-{suffix}@sidejob.test"
        values[f"{person}_PASSWORD"] = secrets.token_urlsafe(18)
    return values


def _write(path: Path, values: dict[str, str]) -> None:
    lines = [f"{name}={shlex.quote(value)}" for name, value in sorted(values.items())]
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("# Made by ./local.sh; holds the stack's secrets.\n" + "\n".join(lines) + "\n")
    fresh.replace(path)
