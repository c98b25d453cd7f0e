from __future__ import annotations

from collections.abc import Callable

import pytest

from serverfull.domain.functions import Function
from serverfull.errors import NotFoundError
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.mocking import MockingFetcher
from serverfull.fetchers.observing import ObservingFetcher
from serverfull.fetchers.static import StaticFetcher
from serverfull.interfaces import Fetcher, Found, Surroundings
from serverfull.observability.metrics import Metrics
from serverfull.testing.fetcher_suite import FetcherSuite, NoLog, surroundings
from tests.fetchers.broken import Broken


def hello(event: object) -> str:
    return "hello"


def other(event: object) -> str:
    return "other"


class Writable(StaticFetcher):
    source = "writable"
    read_only = False


class WithAlias(Writable):
    """Has every function a second time under the alias ``prod``."""

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        return await super().fetch(name, None if qualifier == "prod" else qualifier)


class TestChainFetcher(FetcherSuite):
    @pytest.fixture
    def fetcher(self) -> ChainFetcher:
        return ChainFetcher(StaticFetcher({"hello": hello}), Writable({"hello": other, "other": other}))


class TestChainInAChain(FetcherSuite):
    @pytest.fixture
    def fetcher(self) -> ChainFetcher:
        return ChainFetcher(StaticFetcher({}), ChainFetcher(StaticFetcher({"hello": hello})))


@pytest.mark.parametrize(
    ("wrong", "hint"), [([StaticFetcher({})], r"write ChainFetcher\(\*fetchers\)"), ({"hello": hello}, "not {'hello'")]
)
def test_what_is_no_fetcher_is_refused_when_the_chain_is_made(wrong: object, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        ChainFetcher(wrong)  # type: ignore[arg-type]


async def test_the_first_that_knows_the_name_wins_in_fetch_and_list() -> None:
    chain = ChainFetcher(StaticFetcher({"a": hello}), StaticFetcher({"a": other, "b": other}))
    assert (await chain.fetch("a")).handler is hello
    assert (await chain.fetch("b")).handler is other
    assert {name: f.handler for name, f in (await chain.list()).items()} == {"a": hello, "b": other}


async def test_a_failing_fetcher_is_not_skipped() -> None:
    chain = ChainFetcher(Broken(), StaticFetcher({"a": hello}))
    with pytest.raises(ConnectionError):
        await chain.fetch("a")
    with pytest.raises(ConnectionError):
        await chain.list()


async def test_a_fetcher_behind_the_one_that_knows_the_name_is_not_asked() -> None:
    assert (await ChainFetcher(StaticFetcher({"a": hello}), Broken()).fetch("a")).handler is hello


class Asked(StaticFetcher):
    """Knows every name, and what it was asked for."""

    def __init__(self) -> None:
        super().__init__({"listed": hello})
        self.names: list[str] = []

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        self.names.append(name)
        return await super().fetch("listed")


class Lacking(Asked):
    def lacks(self, name: str) -> bool:
        return name != "listed"


async def test_a_fetcher_that_says_to_lack_a_name_is_not_asked_for_it() -> None:
    first = Lacking()
    chain = ChainFetcher(first, StaticFetcher({"a": other}))
    assert (await chain.fetch("a")).handler is other
    assert (await chain.fetch("listed")).handler is hello
    assert first.names == ["listed"]
    assert chain.lacks("b")
    assert not chain.lacks("a")


async def test_a_fetcher_that_inherits_from_the_static_one_is_asked_for_whatever_it_may_know() -> None:
    first = Asked()
    assert (await ChainFetcher(first, StaticFetcher({"a": other})).fetch("a")).handler is hello
    assert first.names == ["a"]


async def test_a_fetcher_that_inherits_from_the_static_one_may_keep_its_functions_elsewhere() -> None:
    class Elsewhere(StaticFetcher):
        def __init__(self) -> None:
            self.kept = Function(hello)

        async def fetch(self, name: str, qualifier: str | None = None) -> Function:
            return self.kept

    assert (await ChainFetcher(Elsewhere()).fetch("a")).handler is hello


async def test_an_alias_of_a_hidden_function_does_not_shine_through() -> None:
    chain = ChainFetcher(StaticFetcher({"a": hello}), WithAlias({"a": other, "b": other}))
    assert (await chain.fetch("b", "prod")).handler is other
    with pytest.raises(NotFoundError, match="a:prod"):
        await chain.fetch("a", "prod")


async def test_it_says_which_fetcher_a_listed_or_fetched_function_came_from() -> None:
    chain = ChainFetcher(StaticFetcher({"a": hello}), Writable({"b": other}))
    assert chain.source_of("b") == "chain"
    await chain.fetch("b")
    assert chain.source_of("b") == "writable"
    await chain.list()
    assert (chain.source_of("a"), chain.source_of("b")) == ("static", "writable")


def test_it_is_writable_as_soon_as_one_of_its_fetchers_is() -> None:
    assert ChainFetcher(StaticFetcher({})).read_only
    assert not ChainFetcher(StaticFetcher({}), Writable({})).read_only


async def test_an_empty_chain_knows_nothing() -> None:
    with pytest.raises(NotFoundError):
        await ChainFetcher().fetch("a")
    assert await ChainFetcher().list() == {}


class Opened(StaticFetcher):
    """Says when it is opened and closed."""

    def __init__(self, name: str, told: list[str], fails: bool = False) -> None:
        super().__init__({name: hello})
        self.name, self.told, self.fails = name, told, fails

    async def open(self, surroundings: Surroundings) -> None:
        self.told.append(f"open {self.name}")

    async def aclose(self) -> None:
        self.told.append(f"close {self.name}")
        if self.fails:
            raise OSError(self.name)


async def test_all_are_opened_in_order_and_closed_backwards_whatever_happens_with_one() -> None:
    told: list[str] = []
    chain = ChainFetcher(Opened("a", told), Opened("b", told, fails=True), Opened("c", told))
    await chain.open(surroundings())
    with pytest.raises(OSError, match="b"):
        await chain.aclose()
    assert told == ["open a", "open b", "open c", "close c", "close b", "close a"]


class Failing(StaticFetcher):
    """Has a function that cannot be given."""

    source = "failing"

    async def survey(self) -> list[Found]:
        return [*await super().survey(), Found(name="torn", source="failing", failure="it is torn")]


async def test_the_survey_tells_what_is_hidden_and_by_what() -> None:
    inner = ChainFetcher(Failing({"a": hello}), StaticFetcher({"a": other, "torn": other}))
    survey = await ChainFetcher(Writable({"b": hello}), inner, StaticFetcher({"b": other, "c": other})).survey()
    assert [(found.name, found.source, found.hidden_by, found.failure) for found in survey] == [
        ("b", "writable", None, None),
        ("a", "failing", None, None),
        ("torn", "failing", None, "it is torn"),
        ("a", "static", "failing", None),
        ("torn", "static", "failing", None),
        ("b", "static", "writable", None),
        ("c", "static", None, None),
    ]


@pytest.mark.parametrize(
    "decorate", [MockingFetcher, lambda fetcher: ObservingFetcher(fetcher, NoLog(), Metrics())], ids=["mock", "log"]
)
async def test_decorators_pass_on_what_opens_closes_and_surveys(decorate: Callable[[Fetcher], Fetcher]) -> None:
    told: list[str] = []
    decorated = decorate(ChainFetcher(Opened("a", told), Failing({"a": hello})))
    await decorated.open(surroundings())
    await decorated.aclose()
    assert told == ["open a", "close a"]
    assert [found.hidden_by for found in await decorated.survey()] == [None, "static", None]
