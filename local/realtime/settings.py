"""What the server is told, all by environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits are a hosted project's where passing one is a mistake, off (0) where it is a matter of price."""

    port: int  # REALTIME_PORT
    database_url: str  # SUPABASE_DB_URL; a superuser: it becomes each subscriber's role in turn
    jwt_secret: str  # SUPABASE_JWT_SECRET
    publishable_key: str  # SUPABASE_PUBLISHABLE_KEY; connects as anon
    secret_key: str  # SUPABASE_SECRET_KEY; connects as service_role
    host: str = "127.0.0.1"  # REALTIME_HOST
    private_only: bool = False  # REALTIME_PRIVATE_ONLY; hosted projects have the same switch
    max_users: int = 0  # REALTIME_MAX_USERS; sockets at once
    max_joins: int = 0  # REALTIME_MAX_JOINS; a second
    max_events: int = 0  # REALTIME_MAX_EVENTS; client messages a second
    max_channels: int = 100  # REALTIME_MAX_CHANNELS; on one socket
    max_presence_calls: int = 5  # REALTIME_MAX_PRESENCE_CALLS; of one channel in 30 s
    max_payload_bytes: int = 3_000_000  # REALTIME_MAX_PAYLOAD_BYTES; of one broadcast
    max_frame_bytes: int = 5_000_000  # REALTIME_MAX_FRAME_BYTES; of one message from a client
    max_unsent_bytes: int = 8_000_000  # REALTIME_MAX_UNSENT_BYTES; waiting for one client to read
    max_policy_ms: int = 5000  # REALTIME_MAX_POLICY_MS; of asking the policies on realtime.messages
    max_database_ms: int = 5000  # REALTIME_MAX_DATABASE_MS; of waiting for changes to flow
    idle_seconds: int = 60  # REALTIME_IDLE_SECONDS; without any frame from the client
    unused_seconds: int = 600  # REALTIME_UNUSED_SECONDS; without any channel

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises SystemExit naming every variable that is missing."""
        needed = {
            "port": "REALTIME_PORT",
            "database_url": "SUPABASE_DB_URL",
            "jwt_secret": "SUPABASE_JWT_SECRET",
            "publishable_key": "SUPABASE_PUBLISHABLE_KEY",
            "secret_key": "SUPABASE_SECRET_KEY",
        }
        if missing := [name for name in needed.values() if not environment.get(name)]:
            raise SystemExit(f"Realtime cannot start without {', '.join(missing)}.")
        told: dict[str, Any] = {field: environment[name] for field, name in needed.items()}
        for field in cls.__dataclass_fields__:
            text = environment.get(f"REALTIME_{field.upper()}")
            if text and field.startswith(("port", "max_", "idle_", "unused_")):
                told[field] = int(text)
            elif text and field in ("host", "private_only"):
                told[field] = text if field == "host" else text in ("1", "true")
        return cls(**told)
