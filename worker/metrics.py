"""Counters of this process, and their Prometheus text (exposition format 0.0.4)."""

from collections import defaultdict
from collections.abc import Callable, Mapping

_MEANINGS = {
    "jobs_total": ("counter", "Attempts that ended, by job type and outcome"),
    "job_seconds_total": ("counter", "Seconds spent on attempts, by job type"),
    "claims_total": ("counter", "Looks at the queue, by what they found"),
    "claimed_jobs_total": ("counter", "Jobs claimed"),
    "swept_leases_total": ("counter", "Expired leases of others put back into the queue"),
    "uploaded_bytes_total": ("counter", "Bytes stored"),
    "browser_starts_total": (
        "counter",
        "Starts of the browser; more than one means that it died or was replaced",
    ),
    "browser_requests_total": ("counter", "Requests and tunnels of pages"),
    "browser_received_bytes_total": ("counter", "Bytes that pages received"),
    "browser_refused_requests_total": ("counter", "Requests of pages to addresses that are not public"),
    "browser_traffic_limits_total": ("counter", "Jobs that used more of the network than one may"),
    "computations_total": ("counter", "Computations on pages, pictures and answers, by how they ended"),
    "computing_seconds_total": ("counter", "Seconds that those took"),
    "computing_starts_total": ("counter", "Starts of processes that compute"),
    "computing_running": ("gauge", "Computations under way"),
    "computing_waiting": ("gauge", "Computations that wait for a free process"),
    "computing_children": ("gauge", "Processes that compute, idle ones among them"),
    "running_jobs": ("gauge", "Jobs in work"),
    "capacity_jobs": ("gauge", "Jobs that may be in work at once"),
    "ready": ("gauge", "1 while the worker claims jobs and the queue answers"),
    "draining": ("gauge", "1 after SIGTERM"),
}


class Metrics:
    """Adds up; never raises, never waits."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self._readers: list[Callable[[], Mapping[str, float]]] = []

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """`name` must be one of the metrics above, without the prefix."""
        self._counts[name, tuple(sorted(labels.items()))] += amount

    def read_from(self, reader: Callable[[], Mapping[str, float]]) -> None:
        """Gauges that are read whenever the text is made."""
        self._readers.append(reader)

    def text(self, gauges: Mapping[str, float]) -> str:
        values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = dict(self._counts)
        for found in (gauges, *(reader() for reader in self._readers)):
            values |= {(name, ()): value for name, value in found.items()}
        lines = []
        for name, (kind, meaning) in _MEANINGS.items():
            lines += [f"# HELP sidejob_worker_{name} {meaning}", f"# TYPE sidejob_worker_{name} {kind}"]
            for (key, labels), value in sorted(values.items()):
                if key == name:
                    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
                    lines.append(
                        f"sidejob_worker_{name}{{{shown}}} {value:g}"
                        if shown
                        else f"sidejob_worker_{name} {value:g}"
                    )
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
