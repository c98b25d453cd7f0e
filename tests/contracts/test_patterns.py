"""Texts for regular expressions: the shortest, and random ones."""

from __future__ import annotations

import random
import re

import pytest

from serverfull.contracts.patterns import matching
from serverfull.contracts.ranges import NothingFits

SHORTEST = [
    ("", ""), ("a*", ""), ("abc", "abc"), ("^a+b?$", "a"), ("^[A-Z]{2}\\d{3}$", "AA000"), ("^(?:red|green)$", "red"),
    ("^[^a]$", "b"), ("^.$", "a"), ("^\\w\\s\\S$", "a a"), ("^(a|b)\\1$", "aa"), ("^a{2,}?$", "aa"), ("^\\D$", "a"),
    ("^[^\\d\\w]$", "-"), ("^a(?=b)b$", "ab"), ("^x\\z", "x"), ("^[\\d.]+$", "."), ("^\\W$", "-"), ("^(?>ab)c$", "abc"),
    ("(?P<year>\\d{4})-(?P<month>0[1-9]|1[0-2])", "0000-01"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "text"), SHORTEST)
def test_the_shortest_text_takes_the_first_of_everything(pattern: str, text: str) -> None:
    assert matching(pattern, 0, None, None) == text


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in SHORTEST])
def test_random_texts_match_and_come_from_the_seed(pattern: str) -> None:
    for seed in range(20):
        text = matching(pattern, 0, None, random.Random(seed))
        assert re.search(pattern.replace("\\z", "\\Z"), text)
        assert matching(pattern, 0, None, random.Random(seed)) == text


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [("a", 5, 5), ("^[a-z]+$", 12, 14), ("^a|b", 3, 3), ("^[a-z]+@[a-z]+[.]com$", 15, 20), ("", 2, 2)],
)
def test_the_length_is_kept(pattern: str, least: int, most: int) -> None:
    for rng in (None, random.Random(1)):
        text = matching(pattern, least, most, rng)
        assert least <= len(text) <= most
        assert re.search(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "least", "most"), [("^abc$", 0, 2), ("^abc$", 4, None), ("(", 0, None), ("a(?!b)b", 0, None)]
)
def test_where_no_text_is_found_the_pattern_is_named(pattern: str, least: int, most: int | None) -> None:
    with pytest.raises(NothingFits, match=f"pattern {re.escape(repr(pattern))}"):
        matching(pattern, least, most, None)
