"""Markers, and how a page is cut."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfull.errors import InvalidParameterValue
from serverfull.management.paging import Page, read_marker, read_page, write_marker

PRINTABLE = st.text(st.characters(categories=("L", "N", "P")))
PARTS = st.lists(PRINTABLE | st.integers(-(2**63), 2**63 - 1), min_size=1).map(tuple)


@given(PARTS)
def test_a_marker_is_read_as_it_was_written(key):
    assert read_marker(write_marker(key)) == key
    assert read_marker(write_marker(key), *map(type, key)) == key


@pytest.mark.parametrize("marker", [None, ""])
def test_without_a_marker_the_first_page_is_meant(marker):
    assert read_marker(marker, str) is None


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "marker",
    [
        "x",
        "é",
        encoded({"after": "a"}),
        encoded([]),
        encoded("a"),
        encoded([True]),
        encoded([None]),
        encoded([1]),
        encoded(["a", "b"]),
        encoded(["\ud800"]),
        encoded(["a\0b"]),
        "W1tbW1tb" * 40_000,
    ],
)
def test_a_marker_that_was_never_given_is_refused(marker):
    with pytest.raises(InvalidParameterValue, match="Marker"):
        read_marker(marker, str)


def test_a_number_that_no_store_can_hold_is_refused():
    with pytest.raises(InvalidParameterValue, match="Marker"):
        read_marker(encoded([1 << 63]), int)


@pytest.mark.parametrize(("asked", "size"), [({}, 50), ({"MaxItems": 7}, 7), ({"MaxItems": 10_000}, 50)])
def test_a_page_is_never_larger_than_the_operation_allows(asked, size):
    page = read_page(asked, str)
    assert (page.after, page.size, page.limit) == (None, size, size + 1)
    assert read_page(asked, str, size=20).size == min(size, 20)


def test_a_page_that_is_not_the_last_says_where_the_next_one_begins():
    cut = Page(None, 2).cut(["a", "b", "c"], lambda item: (item,))
    assert list(cut.items) == ["a", "b"]
    assert read_page({"Marker": cut.next_marker}, str).after == ("b",)


def test_a_full_last_page_has_no_marker():
    cut = Page(None, 2).cut(["a", "b"], lambda item: (item,))
    assert (list(cut.items), cut.next_marker) == (["a", "b"], None)
