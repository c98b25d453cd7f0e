"""Chains of calls in the tracing header."""

from __future__ import annotations

import re
from urllib.parse import quote

from serverfull.domain.lineage import extended, mark_of, new_trace, times

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def test_a_new_trace_has_the_form_of_aws() -> None:
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", new_trace())
    assert new_trace() != new_trace()


def test_each_call_counts_for_its_own_function() -> None:
    first, second = mark_of("first"), mark_of("second")
    trace = TRACE
    for mark in (first, second, first, first):
        trace = extended(trace, mark)
    assert (times(trace, first), times(trace, second), times(trace, mark_of("third"))) == (3, 1, 0)
    assert trace == f"{TRACE};Lineage=4:{second}:1|{first}:3"


def test_a_lineage_is_read_wherever_it_stands_and_as_sdks_write_it() -> None:
    mark, other = mark_of("f"), mark_of("g")
    assert times(f"Lineage=9:{other}:4|{mark}:5;{TRACE}", mark) == 5
    trace = extended(extended(TRACE, other), mark)
    assert times(quote(trace, safe="-=;:+&[]{}\"',"), other) == 1


def test_nonsense_is_no_lineage() -> None:
    mark = mark_of("f")
    for lineage in ("", "x", f"{mark}:", f"{mark}:-1", f"1:{mark[:7]}:3", "%7C%7C", "1:" + "|" * 1000):
        assert times(f"{TRACE};Lineage={lineage}", mark) == 0
        assert times(extended(f"{TRACE};Lineage={lineage}", mark), mark) == 1


def test_a_lineage_has_an_end() -> None:
    trace = TRACE
    for number in range(1000):
        trace = extended(trace, mark_of(str(number)))
    assert len(trace) < 1000
    assert times(trace, mark_of("999")) == 1
