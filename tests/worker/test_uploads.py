"""What a file is called in Storage."""

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from worker.handlers import Job
from worker.uploads import object_names, object_path

# From the artifacts table: a path that it refuses would lose the file.
TAKEN = re.compile(r"[A-Za-z0-9_!.*'() &$@=;:+,?-]{1,255}")


def test_a_plain_name_stays_and_others_are_reduced() -> None:
    names = [
        "shot.png",
        "a b (1).png",
        "café.png",
        "시안.png",
        "a/b\\c.png",
        "../../etc/passwd",
        "a..b...png",
        "",
        "..",
        "100%.png",
        "x?y#z",
    ]
    assert object_names(names) == [
        "shot.png", "a b (1).png", "cafe.png", "__.png", "a_b_c.png", "_._etc_passwd", "a.b.png",
        "file", "file-2", "100_.png", "x_y_z",
    ]  # fmt: skip


def test_names_that_become_alike_stay_apart() -> None:
    assert object_names(["é.png", "è.png", "e_.png"]) == ["e.png", "e-2.png", "e_.png"]


def test_a_long_name_keeps_its_ending() -> None:
    (name,) = object_names(["x" * 300 + ".jpeg"])
    assert len(name) == 200
    assert name.endswith(".jpeg")


@given(st.lists(st.text(max_size=260), max_size=6))
def test_storage_takes_every_name_and_none_twice(names: list[str]) -> None:
    reduced = object_names(names)
    assert reduced == object_names(names)
    assert len(set(reduced)) == len(names)
    assert all(TAKEN.fullmatch(name) and name != "." and ".." not in name for name in reduced), reduced


def test_the_path_tells_workspace_day_job_and_attempt() -> None:
    claimed = datetime(2026, 3, 7, 23, 59, tzinfo=UTC)
    job = Job("job", "t", {}, "workspace", 3, False, claimed, claimed)
    assert object_path(job, "a.png") == "workspace/2026/03/07/job/3/a.png"
