"""Values of a query: bounds, repeats, unknown names; each refusal is 400 and names the parameter."""

from collections.abc import Callable

import pytest

from sidejob.errors import Refused
from sidejob.query import JOB_TYPE, STATES, Query

KNOWN = ("limit", "status", "type", "id")


def read(*pairs: tuple[str, str]) -> Query:
    query = Query(pairs)
    query.only(*KNOWN)
    return query


def limit(value: str) -> int:
    return read(("limit", value)).number("limit", 20, 1, 100)


def test_what_is_absent_has_its_default() -> None:
    query = read()
    assert query.number("limit", 20, 1, 100) == 20
    assert (query.uuid("id"), query.one_of("status", STATES), query.matching("type", JOB_TYPE)) == (
        None,
        None,
        None,
    )


@pytest.mark.parametrize(("value", "number"), [("1", 1), ("100", 100), ("007", 7)])
def test_numbers_within_bounds_are_read(value: str, number: int) -> None:
    assert limit(value) == number


@pytest.mark.parametrize("value", ["0", "101", "-1", "abc", "", " 5", "5.0", "1e1", "٣", "5\n", "9" * 30])
def test_other_numbers_are_refused(value: str) -> None:
    with pytest.raises(Refused, match="`limit` must be a whole number from 1 to 100") as refused:
        limit(value)
    assert refused.value.status == 400


@pytest.mark.parametrize(("value", "number"), [("0", 1), ("-5", 1), ("999999999", 604800), ("60", 60)])
def test_clamped_numbers_are_moved_to_the_nearer_bound(value: str, number: int) -> None:
    assert Query([("expires", value)]).number("expires", 3600, 1, 604800, clamped=True) == number


@pytest.mark.parametrize(
    ("take", "name"),
    [
        (lambda: read(("limit", "1"), ("limit", "2")), "limit"),
        (lambda: read(("Limit", "1")), "Limit"),
        (lambda: read(("x" * 5000, "1")), "x" * 100),
        (lambda: read(("status", "done")).one_of("status", STATES), "status"),
        (lambda: read(("type", "a\nb")).matching("type", JOB_TYPE), "type"),
        (lambda: read(("type", "a\0")).matching("type", JOB_TYPE), "type"),
        (lambda: read(("type", "a" * 101)).matching("type", JOB_TYPE), "type"),
        (lambda: read(("id", "7")).uuid("id"), "id"),
        (lambda: read().needed_uuid("id"), "id"),
    ],
)
def test_refusals_name_the_parameter(take: Callable[[], object], name: str) -> None:
    with pytest.raises(Refused) as refused:
        take()
    assert (refused.value.status, refused.value.code) == (400, "invalid_parameter")
    assert refused.value.message.startswith(f"`{name}` ")
    assert refused.value.details == {"field": name}


def test_what_supabases_own_clients_add_is_not_unknown() -> None:
    read(("forceFunctionRegion", "eu-central-1"))
