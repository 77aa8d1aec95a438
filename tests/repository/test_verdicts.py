"""The one classification of failures, over every class of SQLSTATE and every HTTP status."""

import pytest

from sidejob.errors import CODES, UPSTREAM
from sidejob.verdicts import verdict

# Appendix A of PostgreSQL's manual: each class, with one of its codes.
NEVER = "01000 02000 03000 09000 0B000 0F000 0L000 0P000 0Z000 10608 20000 21000 22P02 23505 23514 24000 26000 27000 2B000 2D000 2F000 34000 38000 39000 3B000 3F000 42501 42P01 44000 54001 P0001"  # noqa: E501
LATER = "00000 08006 0A000 25006 25P02 28P01 3D000 40001 40P01 53200 53300 55P03 57014 57P01 58030 72000 F0000 HV000 XX000"  # noqa: E501


@pytest.mark.parametrize("code", NEVER.split())
def test_a_refusal_of_the_database_is_final(code: str) -> None:
    assert verdict(code) == "never"
    assert verdict(code, 500) == "never"  # PostgREST sends some of them with 500


@pytest.mark.parametrize("code", LATER.split())
def test_a_conflict_or_an_outage_of_the_database_may_pass(code: str) -> None:
    assert verdict(code) == "later"
    assert verdict(code, 400) == "later"


@pytest.mark.parametrize("status", range(100, 600))
def test_a_status_decides_where_no_code_is_known(status: int) -> None:
    final = 400 <= status < 500 and status not in (408, 421, 423, 425, 429)
    assert verdict(None, status) == verdict("", status) == verdict("strange", status)
    assert verdict(None, status) == ("never" if final else "later")
    assert verdict(f"{status}") == verdict(None, status)  # supabase-py makes the status the code
    assert verdict(f"PT{status}", 400) == verdict(None, status)


def test_no_code_and_no_status_is_an_answer_that_nobody_understands() -> None:
    assert verdict(None) == verdict("") == "later"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("PGRST000", "later"),
        ("PGRST003", "later"),
        ("PGRST100", "never"),
        ("PGRST116", "never"),
        ("PGRST202", "later"),
        ("PGRST300", "later"),
        ("PGRST301", "never"),
        ("PGRSTX00", "later"),
    ],
)
def test_postgrests_own_codes(code: str, expected: str) -> None:
    assert verdict(code) == expected


def test_a_lost_lease_is_told_apart_by_the_database_and_by_a_function() -> None:
    assert verdict("SJ300", 409) == verdict("lease_lost", 409) == "lost"


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_function_and_its_caller_agree(code: str) -> None:
    status = CODES[code].status
    assert verdict(code, status) == ("lost" if code == "lease_lost" else verdict(None, status))


@pytest.mark.parametrize("state", sorted(UPSTREAM))
def test_what_a_function_makes_of_a_failure_has_the_verdict_of_the_failure(state: str) -> None:
    """Else a deadlock under a function would be final for its caller, and retried by a direct one."""
    assert verdict(UPSTREAM[state]) == verdict(state)
