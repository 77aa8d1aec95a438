"""Globs of `blockUrls`: as fnmatch has them, and no slower for a page's longest addresses."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.browser import globs, nuisances
from worker.browser.globs import MOST_CHARACTERS, Globs

CASES = [
    ("*", "", True),
    ("*.js", "https://a.example/b/c.js", True),
    ("*.js", "https://a.example/b/c.js?d", False),
    ("https://a.example/*", "https://a.example/b/c", True),
    ("*/b?/*", "https://a.example/bc/d", True),
    ("*/b?/*", "https://a.example/b/d", False),
    ("*[0-9]", "https://a.example/7", True),
    ("*[!0-9]", "https://a.example/7", False),
    ("*[]]", "a]", True),
    ("a[b", "a[b", True),
    ("*a*b*c", "xaxbxc", True),
    ("*a*b*c", "xaxcxb", False),
    ("", "", True),
    ("", "a", False),
    ("a", "", False),
]


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(("glob", "address", "fits"), CASES)
def test_globs_fit_what_they_should(
    glob: str, address: str, fits: bool, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(globs, "_MOST_STEPS", -1 if long else 65_536)
    assert Globs([glob]).match(address) is fits
    assert Globs(["nothing of the kind", glob]).match(address) is fits


@given(st.lists(st.sampled_from(["*", "?", "a", "b", "[ab]", "[!a]", "[", "]", "!", "-", "[a-c]", "[]a]"]), max_size=12),
       st.text("ab]c-[!", max_size=14))  # fmt: skip
def test_both_ways_are_those_of_fnmatch(parts: list[str], text: str) -> None:
    glob = "".join(parts)
    expected = re.match(fnmatch.translate(glob), text) is not None
    one = globs._Glob(glob)
    assert one.matches(text) is expected
    one._length = 1 << 40  # as if it were long
    assert one.matches(text) is expected


def test_only_the_beginning_of_an_address_is_compared() -> None:
    address = "https://a.example/" + "a" * MOST_CHARACTERS + ".js"
    assert Globs(["https://a.example/*"]).match(address)
    assert not Globs(["*.js"]).match(address)
    assert Globs(["*.js"]).match("https://a.example/" + "a" * (MOST_CHARACTERS - 30) + ".js")


class Counted(str):
    """Text that counts how many characters were looked at."""

    __slots__ = ()
    looks = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        for character in super().__iter__():
            Counted.looks += 1
            yield character


def test_a_long_address_is_read_once_for_each_glob() -> None:
    """The pattern that tries each place with the whole glob would take millions of steps."""
    glob = globs._Glob("*" + "a?" * 490 + "b")
    text = Counted("a" * MOST_CHARACTERS)
    assert not glob.matches(text)
    assert Counted.looks == MOST_CHARACTERS


@pytest.mark.parametrize(
    "url",
    [
        "https://doubleclick.net/",
        "https://ad.doubleclick.net/x?" + "a" * 2_000_000,
        "https://a.b.c.d.doubleclick.net:8443/",
    ],
)
def test_an_ad_is_known_by_its_host(url: str) -> None:
    assert nuisances.is_ad(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/doubleclick.net",
        "https://notdoubleclick.net/",
        "odd://" + "a." * 1_000_000 + "net",
        "https://[/",
        "data:text/html,x",
    ],
)
def test_what_is_no_ad_is_none(url: str) -> None:
    assert not nuisances.is_ad(url)
