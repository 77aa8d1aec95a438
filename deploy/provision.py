"""The first workspace of a project, its people and its workers, over Auth's admin API and REST.

    python -m deploy.provision          what its environment names (docs/deploy.md, "The first people")
    python -m deploy.provision token    an access token of SMOKE_EMAIL, on standard output

What is there already stays: running it again changes nothing, and a password that works is never reset.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PATIENCE_SECONDS = 30  # REST may still be reading a schema that was applied just now
PAGE = 1000  # users asked for at once


class ProvisionError(Exception):
    """The project refused something, or cannot be reached. The text says what, and names no secret."""


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who shall be in a workspace."""

    email: str
    password: str = field(repr=False)
    workspace_id: str
    role: str
    worker_id: str | None = None  # of a worker: its name in heartbeats and jobs, unique in the project


def provision(
    project: "Project",
    workspaces: Mapping[str, str],
    members: Sequence[Member],
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Makes what is missing. Raises ProvisionError.

    workspaces: id -> name. say: told one line for each thing looked at.
    A worker whose password does not work gets the given one, since nobody else knows it; people keep theirs.
    """
    rows: list[dict[str, Any]] = [{"id": key, "name": name} for key, name in workspaces.items()]
    users = {member.email: _user(project, member, say) for member in members}
    project.insert_missing("workspaces", rows, "id")
    for name in workspaces.values():
        say(f"workspace {name}: there")
    ids = ",".join(sorted(set(users.values())))
    present = project.rows("workspace_members", {"user_id": f"in.({ids})"})
    at_home = {row["user_id"] for row in present if row["is_default"]}
    rows = [
        {
            "workspace_id": member.workspace_id,
            "user_id": users[member.email],
            "role": member.role,
            "is_default": users[member.email] not in at_home,  # only he changes where his jobs go
            "worker_id": member.worker_id,
        }
        for member in members
    ]
    project.insert_missing("workspace_members", rows, "user_id,workspace_id")
    _check(project, members, users, ids, say)


def _check(
    project: "Project",
    members: Sequence[Member],
    users: Mapping[str, str],
    ids: str,
    say: Callable[[str], None],
) -> None:
    """A membership that was there before may be another one."""
    present = {
        (row["user_id"], row["workspace_id"]): row
        for row in project.rows("workspace_members", {"user_id": f"in.({ids})"})
    }
    for member in members:
        row = present[users[member.email], member.workspace_id]
        if (row["role"], row["worker_id"]) != (member.role, member.worker_id):
            name = f" under the name {row['worker_id']}" if row["worker_id"] else ""
            raise ProvisionError(
                f"{member.email} is in the workspace already, as {row['role']}{name}. Take another address"
                f" for the {member.role}, or remove that membership first."
            )
        say(f"{member.role} {member.email}: in the workspace")


def _user(project: "Project", member: Member, say: Callable[[str], None]) -> str:
    """The user's id; made where there is none."""
    if user := project.signed_in(member.email, member.password):
        say(f"{member.role} {member.email}: signs in")
        return str(user["user"]["id"])
    made = project.ask(
        "POST",
        "/auth/v1/admin/users",
        {"email": member.email, "password": member.password, "email_confirm": True},
        expected="email_exists",
    )
    if made is not None:
        say(f"{member.role} {member.email}: made")
        return str(made["id"])
    user_id = next((str(u["id"]) for u in project.users() if u.get("email") == member.email.lower()), None)
    if user_id is None:
        raise ProvisionError(f"{member.email} is said to exist, and is not in the list of users.")
    if member.role == "worker":
        change = {"password": member.password, "email_confirm": True}
        project.ask("PUT", f"/auth/v1/admin/users/{user_id}", change)
        say(f"worker {member.email}: its password did not work, and is the stored one now")
    else:
        say(f"{member.role} {member.email}: there, with a password of their own")
    return user_id


@dataclass(frozen=True, slots=True)
class Project:
    """A Supabase project, asked with its secret key."""

    url: str
    publishable_key: str
    secret_key: str = field(repr=False)

    def signed_in(self, email: str, password: str) -> Any:
        """The session, or None where this password does not open this account. Raises ProvisionError."""
        body = {"email": email, "password": password}
        path = "/auth/v1/token?grant_type=password"
        return self.ask("POST", path, body, key=self.publishable_key, expected="invalid_credentials")

    def users(self) -> Iterator[Any]:
        for page in range(1, 1000):
            found = self.ask("GET", f"/auth/v1/admin/users?page={page}&per_page={PAGE}")["users"]
            yield from found
            if not found:
                return

    def rows(self, table: str, filters: Mapping[str, str]) -> list[Any]:
        found: list[Any] = self.ask("GET", f"/rest/v1/{table}?{urllib.parse.urlencode(filters)}")
        return found

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> None:
        path = f"/rest/v1/{table}?{urllib.parse.urlencode({'on_conflict': key})}"
        self.ask("POST", path, [*rows], prefer="resolution=ignore-duplicates,return=minimal")

    def ask(
        self, method: str, path: str, body: Any = None, *, key: str = "", prefer: str = "", expected: str = ""
    ) -> Any:
        """The JSON of the answer; None for an error whose code is the expected one. Raises ProvisionError.

        A table that is missing, and a server that is busy, are asked again for a while.
        """
        headers = {"apikey": key or self.secret_key, "Content-Type": "application/json", "Prefer": prefer}
        data = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  ours
            try:
                with _opener(self.url).open(request, timeout=30) as answer:
                    text = answer.read()
                    return json.loads(text) if text else {}
            except urllib.error.HTTPError as error:
                code, said = _problem(error)
                if expected and code == expected:
                    return None
                again = error.code in (429, 502, 503, 504) or code in ("PGRST205", "42P01")
                if not again or time.monotonic() > deadline:
                    where = path.partition("?")[0]
                    raise ProvisionError(
                        f"{method} {where} was refused: {error.code} {code} {said}"
                    ) from None
            except OSError as error:
                raise ProvisionError(f"{self.url} cannot be reached: {error}") from None
            time.sleep(0.2)


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Proxies of the environment are for the world outside."""
    local = urllib.parse.urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))


def _problem(error: urllib.error.HTTPError) -> tuple[str, str]:
    """Code and sentence of a refusal. Older Auths say `error` where newer ones say `error_code`."""
    try:
        body = json.loads(error.read())
    except ValueError:
        return "", ""
    if not isinstance(body, dict):
        return "", ""
    code = body.get("error_code") or body.get("code") or body.get("error") or ""
    code = {"invalid_grant": "invalid_credentials", "user_already_exists": "email_exists"}.get(code, code)
    return str(code), str(body.get("msg") or body.get("message") or body.get("error_description") or "")


def workspace_id(url: str, name: str) -> str:
    """The same for the same project and name, so that two runs at once make one workspace."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{url}/workspaces/{name}"))


def main(arguments: Sequence[str], env: Mapping[str, str] = os.environ) -> int:
    """Exit code 1 and a sentence when the project refuses, 2 for a wrong call."""
    token = [*arguments] == ["token"]
    if arguments and not token:
        print("usage: python -m deploy.provision [token]", file=sys.stderr)
        return 2
    needed = ["SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY"]
    needed += ["SMOKE_EMAIL", "SMOKE_PASSWORD"] if token else ["SUPABASE_SECRET_KEY", "WORKSPACE_NAME"]
    needed += (
        [] if token else ["OWNER_EMAIL", "OWNER_PASSWORD", "WORKER_EMAIL", "WORKER_PASSWORD", "WORKER_ID"]
    )
    if missing := [name for name in needed if not env.get(name)]:
        print(f"Set these environment variables: {', '.join(missing)}", file=sys.stderr)
        return 2
    url = env["SUPABASE_URL"].rstrip("/")
    project = Project(url, env["SUPABASE_PUBLISHABLE_KEY"], env.get("SUPABASE_SECRET_KEY", ""))
    try:
        if token:
            session = project.signed_in(env["SMOKE_EMAIL"], env["SMOKE_PASSWORD"])
            if session is None:
                raise ProvisionError(f"The password of {env['SMOKE_EMAIL']} does not work.")
            print(session["access_token"])
            return 0
        home = workspace_id(url, env["WORKSPACE_NAME"])
        people = [
            Member(env["OWNER_EMAIL"], env["OWNER_PASSWORD"], home, "owner"),
            Member(env["WORKER_EMAIL"], env["WORKER_PASSWORD"], home, "worker", env["WORKER_ID"]),
        ]
        provision(project, {home: env["WORKSPACE_NAME"]}, people, print)
    except ProvisionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
