"""How much of the network one job may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    requests: int = 2000  # plain requests, and tunnels for TLS and WebSockets
    received_bytes: int = 100 * 1024 * 1024  # headers included
