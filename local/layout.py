"""Where one stack keeps its files and which ports it takes."""

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from local.setup import TOOLS

MOST_FUNCTIONS = 60
MOST_WORKERS = 16


class StackError(Exception):
    """Something that the person at the keyboard can mend; its text says how. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One stack. Two of them live side by side when both home and offset differ."""

    home: Path  # SIDEJOB_HOME; data, logs, env file
    offset: int  # SIDEJOB_PORT_OFFSET; added to every port
    postgres: str  # SIDEJOB_POSTGRES; 18 and 16 come with the wheel, others from the machine
    workers: int  # SIDEJOB_WORKERS; 0 for none
    default_grants: bool  # SIDEJOB_DEFAULT_GRANTS; hosted projects grant everything on new tables by default

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Layout":
        """Raises StackError naming the variable that is wrong."""
        offset = _whole(environment, "SIDEJOB_PORT_OFFSET", 0, 10_000)
        return cls(
            home=Path(environment.get("SIDEJOB_HOME") or TOOLS).absolute(),
            offset=offset,
            postgres=environment.get("SIDEJOB_POSTGRES") or "18",
            workers=_whole(environment, "SIDEJOB_WORKERS", 1, MOST_WORKERS),
            default_grants=environment.get("SIDEJOB_DEFAULT_GRANTS", "1") not in ("0", "false", "no"),
        )

    @property
    def variables(self) -> dict[str, str]:
        """What `read` makes this of."""
        return {
            "SIDEJOB_HOME": str(self.home),
            "SIDEJOB_PORT_OFFSET": str(self.offset),
            "SIDEJOB_POSTGRES": self.postgres,
            "SIDEJOB_WORKERS": str(self.workers),
            "SIDEJOB_DEFAULT_GRANTS": str(int(self.default_grants)),
        }

    @property
    def gateway_port(self) -> int:
        return 54321 + self.offset

    @property
    def postgres_port(self) -> int:
        return 54322 + self.offset

    @property
    def objects_port(self) -> int:
        return 54323 + self.offset

    @property
    def demo_port(self) -> int:
        return 54324 + self.offset

    @property
    def realtime_port(self) -> int:
        return 54325 + self.offset

    @property
    def figma_port(self) -> int:
        """The local Figma's API; its images are one port further."""
        return 54326 + self.offset

    @property
    def collab_port(self) -> int:
        return 3100 + self.offset

    def function_port(self, index: int) -> int:
        return 54400 + index + self.offset

    def health_port(self, index: int) -> int:
        return 3200 + index + self.offset

    @property
    def keeper_port(self) -> int:
        """Nothing is served here: who listens on it keeps the other ports from runs beside it."""
        return 54320 + self.offset

    @property
    def spare_ports(self) -> range:
        """For servers of the tests' own."""
        return range(54340 + self.offset, 54400 + self.offset)

    @property
    def ports(self) -> frozenset[int]:
        """All that a stack of this layout may take, and its tests."""
        named = range(self.gateway_port, self.figma_port + 2)
        functions = (self.function_port(index) for index in range(MOST_FUNCTIONS))
        health = (self.health_port(index) for index in range(MOST_WORKERS))
        return frozenset([self.keeper_port, *named, *self.spare_ports, *functions, self.collab_port, *health])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def demo_origin(self) -> str:
        return f"http://127.0.0.1:{self.demo_port}"

    @property
    def data(self) -> Path:
        """The database cluster; major versions cannot read each other's files."""
        return self.home / f"postgres-{self.postgres}"

    @property
    def objects(self) -> Path:
        return self.home / "objects"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def env_file(self) -> Path:
        return self.home / "env"

    @property
    def state_file(self) -> Path:
        return self.home / "state.json"

    @property
    def lock_file(self) -> Path:
        return self.home / "lock"


def _whole(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) > most:
        raise StackError(f"{name} is {text!r}; it must be a whole number from 0 to {most}.")
    return int(text)


def port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a closed connection's TIME_WAIT is no user of it
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def refuse_taken_ports(wanted: Iterator[tuple[str, int]]) -> None:
    """Raises StackError that names each port in use and who wanted it."""
    taken = [
        f"Port {port}, which {name} wants, is in use." for name, port in wanted if not port_is_free(port)
    ]
    if taken:
        raise StackError(
            "\n".join(
                [*taken, "Stop its user, or set SIDEJOB_PORT_OFFSET (for example 1000) to shift every port."]
            )
        )
