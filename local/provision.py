"""The people, workers and workspaces of a fresh stack, made as they are made in the cloud."""

from collections.abc import Mapping

from deploy.provision import Member, Project, ProvisionError, provision
from local.layout import StackError

_MEMBERS = {  # person → (workspace, role, worker_id)
    "OWNER": ("DEMO", "owner", None),
    "DEMO": ("DEMO", "member", None),
    "VIEWER": ("DEMO", "viewer", None),
    "WORKER": ("DEMO", "worker", "local-worker"),
    "WORKER2": ("DEMO", "worker", "local-worker-2"),
    "OTHER": ("OTHER", "owner", None),
}


def people_and_workspaces(env: Mapping[str, str]) -> None:
    """Makes what is missing and leaves the rest. Raises StackError when a request is refused."""
    members = [
        Member(
            env[f"{person}_EMAIL"], env[f"{person}_PASSWORD"], env[f"{space}_WORKSPACE_ID"], role, worker_id
        )
        for person, (space, role, worker_id) in _MEMBERS.items()
    ]
    project = Project(env["SUPABASE_URL"], env["SUPABASE_PUBLISHABLE_KEY"], env["SUPABASE_SECRET_KEY"])
    workspaces = {env[f"{name}_WORKSPACE_ID"]: name.lower() for name in ("DEMO", "OTHER")}
    try:
        provision(project, workspaces, members)
    except ProvisionError as error:
        raise StackError(f"The stack's people cannot be made: {error}") from error
