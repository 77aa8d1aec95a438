"""How many cores this process may use: what a container was given, not what its host has."""

import contextlib
import os
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def available(groups: Path = _CONTROL_GROUPS) -> int:
    """At least 1: the affinity, or less where the control group has a quota. A container sees its own group
    as the root (Linux's cgroup-v2: `cpu.max`; before that `cpu.cfs_quota_us`). Part of a core counts as one.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(groups)
    return affinity if quota is None else max(1, min(affinity, -int(-quota // 1)))


def _quota(groups: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (groups / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((groups / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((groups / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    return None
