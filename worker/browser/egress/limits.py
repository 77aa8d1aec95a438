"""How much of the network one job may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    requests: int = 2000  # plain requests, and tunnels for TLS and WebSockets
    received_bytes: int = 100 * 1024 * 1024  # all that servers send: heads, framing and tunnels included
    sent_bytes: int = 100 * 1024 * 1024  # all that the browser sends, likewise
    connections: int = 512  # open at once, on both sides of the proxy together
    head_seconds: float = 60.0  # until a request's head is complete
    idle_seconds: float = 120.0  # without a byte; and until an answer's head is complete
