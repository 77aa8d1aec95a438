"""A container that was given two of its host's sixty-four cores works on three jobs, not on sixty-five."""

import os
from pathlib import Path

import pytest

from worker import cores


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("quota", "seen"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("max 100000", 64),
        ("9900000 100000", 64),
        ("nonsense", 64),
    ],
)
def test_the_quota_of_a_control_group_counts(tmp_path: Path, quota: str, seen: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores.available(tmp_path) == seen


@pytest.mark.parametrize(("quota", "seen"), [("300000", 3), ("-1", 64)])
def test_the_quota_of_an_older_control_group_counts(tmp_path: Path, quota: str, seen: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cores.available(tmp_path) == seen


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert cores.available(tmp_path) == 64
