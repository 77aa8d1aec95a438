"""The names of Realtime topics, in one table: the logical ones, and the older ones that still work.

A topic here is the name that `supabase.channel(…)` takes. All are private: join with `private: true`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

SYSTEM_EVENTS: Final = "system:events"

# The groups of before, and the names of before that lead to one of them. Members of any workspace hear
# these topics; only the server speaks on them.
CHANNELS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "SYSTEM": {
            "GATEWAY": "system.gateway",
            "HEALTH": "system.health",
            "CONFIG": "system.config",
            "EVENTS": "system.events",
        },
        "AGENTS": {
            "ORCHESTRATOR": "agents.orchestrator",
            "EXECUTOR": "agents.executor",
            "RESEARCH": "agents.research",
            "INDEXING": "agents.indexing",
            "SANDBOX": "agents.sandbox",
        },
        "TASKS": {
            "REQUESTS": "tasks.requests",
            "PROGRESS": "tasks.progress",
            "RESULTS": "tasks.results",
            "ERRORS": "tasks.errors",
            "DELEGATION": "tasks.delegation",
        },
    }
)
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "HEARTBEAT": CHANNELS["SYSTEM"]["HEALTH"],
        "DISCOVERY": CHANNELS["AGENTS"]["ORCHESTRATOR"],
        "TASKS": CHANNELS["TASKS"]["REQUESTS"],
    }
)


def agent(agent_id: str) -> str:
    """Presence and state of one worker process. Its workspace's members hear; it alone speaks."""
    return f"agents:{agent_id}"


def job(job_id: str) -> str:
    """What happens to one job. Whoever may see it hears; the database alone speaks."""
    return f"jobs:{job_id}"


def executor(workspace_id: str, executor_id: str) -> str:
    """There is work for this executor. The workspace's workers hear; the database alone speaks."""
    return f"executors:{workspace_id}:{executor_id}"


def resolve(name: str) -> str:
    """The topic of an older name such as `HEARTBEAT` or `TASKS.RESULTS`; any other is a topic already."""
    group, _, member = name.partition(".")
    return ALIASES.get(name) or CHANNELS.get(group, {}).get(member) or name
