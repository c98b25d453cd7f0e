from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from serverfull.config import LoggingSettings
from serverfull.domain.functions import Function
from serverfull.errors import FunctionNotReady, InvalidRuntime, NotFoundError, TargetInvalid
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.observing import ObservingFetcher
from serverfull.fetchers.static import StaticFetcher
from serverfull.interfaces import Fetcher
from serverfull.observability.logger import HostLogger
from serverfull.observability.metrics import Metrics
from serverfull.testing.fetcher_suite import FetcherSuite
from tests.fetchers.broken import Broken


def hello(event: object) -> str:
    return "hello"


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))


class Counts:
    def __init__(self) -> None:
        self.totals: Counter[tuple[str, str]] = Counter()
        self.calls = 0

    def count(self, name: str, value: int = 1, *, tags: Mapping[str, str]) -> None:
        self.calls += 1
        self.totals[name, tags["source"]] += value


class TestObservingFetcher(FetcherSuite):
    @pytest.fixture
    def fetcher(self) -> ObservingFetcher:
        return ObservingFetcher(StaticFetcher({"hello": hello}), Lines(), Counts())


async def test_a_failure_is_logged_with_its_name_and_counted_by_source() -> None:
    log, counts = Lines(), Counts()
    fetcher = ObservingFetcher(Broken(), log, counts)
    with pytest.raises(ConnectionError):
        await fetcher.fetch("a")
    with pytest.raises(ConnectionError):
        await fetcher.list()
    assert counts.totals == {("fetcher.failures", "broken"): 2}
    (fetch, fields), (listing, _) = log.lines
    assert (fetch, fields["function"], fields["source"]) == ("fetch failed", "a", "broken")
    assert isinstance(fields["exc_info"], ConnectionError)
    assert listing == "listing functions failed"


async def test_an_unknown_name_is_counted_and_not_logged() -> None:
    log, counts = Lines(), Counts()
    with pytest.raises(NotFoundError):
        await ObservingFetcher(StaticFetcher({}), log, counts).fetch("a")
    assert counts.totals == {("fetcher.not_found", "static"): 1}
    assert log.lines == []


@pytest.mark.parametrize("refusal", [FunctionNotReady("a", "Failed", "no code"), InvalidRuntime("nodejs22.x")])
async def test_a_function_that_cannot_run_is_no_failure_of_its_fetcher(refusal: Exception) -> None:
    class Refusing(Fetcher):
        source = "refusing"

        async def fetch(self, name: str, qualifier: str | None = None) -> Function:
            raise refusal

        async def list(self) -> Mapping[str, Function]:
            return {}

    log, counts = Lines(), Counts()
    with pytest.raises(type(refusal)):
        await ObservingFetcher(Refusing(), log, counts).fetch("a")
    assert (counts.totals, log.lines) == ({}, [])


async def test_successes_reach_the_metrics_as_one_sum_for_each_source_when_they_are_reported() -> None:
    class Other(StaticFetcher):
        source = "other"

    counts = Counts()
    fetcher = ObservingFetcher(ChainFetcher(StaticFetcher({"a": hello}), Other({"b": hello})), Lines(), counts)
    for name in ("a", "b", "b", "b"):
        await fetcher.fetch(name)
    assert counts.calls == 0
    fetcher.report()
    fetcher.report()
    assert counts.totals == {("fetcher.fetches", "static"): 1, ("fetcher.fetches", "other"): 3}
    assert counts.calls == 2


async def test_the_hosts_own_metrics_and_logger_fit() -> None:
    fetcher = ObservingFetcher(Broken(), HostLogger(LoggingSettings(output="NULL")), Metrics())
    with pytest.raises(ConnectionError):
        await fetcher.fetch("a")
    fetcher = ObservingFetcher(StaticFetcher({"a": hello}), HostLogger(LoggingSettings(output="NULL")), Metrics())
    with pytest.raises(NotFoundError):
        await fetcher.fetch("b")
    await fetcher.fetch("a")
    fetcher.report()


async def test_source_and_writability_are_those_of_the_wrapped_fetcher() -> None:
    class Writable(StaticFetcher):
        source = "writable"
        read_only = False

    fetcher = ObservingFetcher(Writable({"a": hello}), Lines(), Counts())
    assert (fetcher.source, fetcher.source_of("a"), fetcher.read_only) == ("writable", "writable", False)


@pytest.mark.parametrize(
    ("listed", "what"),
    [([hello], "not \\[<function hello"), ({"a": hello}, "has <function hello"), ({1: None}, "under 1")],
)
async def test_a_listing_of_another_form_is_refused_by_the_name_of_the_fetcher(listed: Any, what: str) -> None:
    class Wrong(StaticFetcher):
        async def list(self) -> Any:
            return listed

    fetcher = ObservingFetcher(Wrong({}), Lines(), Counts())
    with pytest.raises(TargetInvalid, match=rf"Wrong\.list\(\) must give a mapping of names to Functions.*{what}"):
        await fetcher.list()
