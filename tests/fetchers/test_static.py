from __future__ import annotations

import pytest

from serverfull.domain.functions import Function
from serverfull.errors import NotFoundError
from serverfull.fetchers.static import StaticFetcher
from serverfull.testing.fetcher_suite import FetcherSuite


def hello(event: object) -> str:
    return "hello"


class TestStaticFetcher(FetcherSuite):
    @pytest.fixture
    def fetcher(self) -> StaticFetcher:
        return StaticFetcher({"hello": hello, "with-options_1": Function(hello, timeout=9)})


async def test_a_plain_handler_becomes_a_function_with_defaults() -> None:
    function = await StaticFetcher({"hello": hello}).fetch("hello")
    assert function.handler is hello
    assert function.timeout is None


async def test_a_function_is_served_as_it_is() -> None:
    function = Function(hello, timeout=9)
    assert await StaticFetcher({"hello": function}).fetch("hello") is function


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a:1", "a/b", "ä", "x" * 65, "trailing\n", 7])
def test_a_name_that_aws_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no function name: it takes 1 to 64 letters"):
        StaticFetcher({name: hello})


def test_a_name_of_64_characters_is_taken() -> None:
    StaticFetcher({"x" * 64: hello})


def test_a_value_that_cannot_be_called_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="'hello' is a int"):
        StaticFetcher({"hello": 7})  # type: ignore[dict-item]


def test_a_decorator_that_was_never_applied_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'hello' has no handler"):
        StaticFetcher({"hello": Function(timeout=3)})


async def test_a_later_change_of_the_users_mapping_changes_nothing() -> None:
    functions = {"hello": hello}
    fetcher = StaticFetcher(functions)
    functions.clear()
    assert (await fetcher.fetch("hello")).handler is hello


async def test_a_version_number_is_not_found_and_named() -> None:
    with pytest.raises(NotFoundError, match="hello:1"):
        await StaticFetcher({"hello": hello}).fetch("hello", "1")


def test_its_functions_are_read_only_and_come_from_static() -> None:
    fetcher = StaticFetcher({"hello": hello})
    assert (fetcher.read_only, fetcher.source_of("hello")) == (True, "static")
