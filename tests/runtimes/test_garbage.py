"""When the collector of cyclic garbage looks at its young objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from serverfull.runtimes.garbage import YOUNG_OBJECTS, hardly_looked_for, rarely_looked_for
from serverfull.testing.clients import lambda_client

if TYPE_CHECKING:
    from serverfull.testing.fixtures import Serve


@pytest.fixture(autouse=True)
def before() -> Iterator[tuple[int, int, int]]:
    thresholds = gc.get_threshold()
    yield thresholds
    gc.set_threshold(*thresholds)


def test_the_young_have_more_room_while_the_process_serves_and_as_much_as_before_afterwards(
    before: tuple[int, int, int],
) -> None:
    with rarely_looked_for():
        assert gc.get_threshold() == (YOUNG_OBJECTS, *before[1:])
    assert gc.get_threshold() == before


def test_thresholds_that_somebody_has_set_are_kept() -> None:
    gc.set_threshold(123, 4, 5)
    with rarely_looked_for():
        assert gc.get_threshold() == (123, 4, 5)
    assert gc.get_threshold() == (123, 4, 5)


def test_thresholds_that_are_set_while_the_process_serves_outlast_it() -> None:
    with rarely_looked_for():
        gc.set_threshold(321, 4, 5)
    assert gc.get_threshold() == (321, 4, 5)


@pytest.mark.parametrize(("first_line", "young"), [("", YOUNG_OBJECTS), ("gc.set_threshold(900)", 900)])
def test_a_host_gives_them_more_room_unless_the_module_that_it_serves_has_chosen(
    serve: Serve, first_line: str, young: int
) -> None:
    host = serve(f"import gc\n{first_line}\nfunctions = {{'f': lambda: gc.get_threshold()[0]}}\n")
    assert lambda_client(host.url).invoke(FunctionName="f")["Payload"].read() == b"%d" % young


def test_a_start_hardly_looks_and_serving_looks_as_ever(before: tuple[int, int, int]) -> None:
    hardly_looked_for()
    assert gc.get_threshold()[0] > YOUNG_OBJECTS
    with rarely_looked_for():
        assert gc.get_threshold() == (YOUNG_OBJECTS, *before[1:])
    assert gc.get_threshold() == before


def test_a_start_keeps_thresholds_that_somebody_has_set() -> None:
    gc.set_threshold(123, 4, 5)
    hardly_looked_for()
    assert gc.get_threshold() == (123, 4, 5)
