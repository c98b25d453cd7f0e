"""A conformance suite that never fails is worth nothing: each rule must catch a fetcher that breaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.errors import NotFoundError
from serverfull.interfaces import Fetcher, Found, Published
from serverfull.testing.fetcher_suite import FetcherSuite


def hello(event: object) -> str:
    return "hello"


class Good(Fetcher):
    """Keeps all rules; the classes below break one each."""

    source = "good"

    def __init__(self) -> None:
        self.functions = {"hello": Function(hello)}

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        if name not in self.functions or qualifier not in (None, "$LATEST"):
            raise NotFoundError(name)
        return self.functions[name]

    async def list(self) -> Mapping[str, Function]:
        return dict(self.functions)


class NewObjects(Good):
    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        await super().fetch(name, qualifier)
        return Function(hello)


class AnyQualifier(Good):
    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        return await super().fetch(name)


class NoLatest(Good):
    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        if qualifier:
            raise NotFoundError(name)
        return await super().fetch(name)


class OtherError(Good):
    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        return self.functions[name]


class ListsMore(Good):
    async def list(self) -> Mapping[str, Function]:
        return {**self.functions, "ghost": Function(hello)}


class OpenListing(Good):
    async def list(self) -> Mapping[str, Function]:
        return self.functions


class BadName(Good):
    def __init__(self) -> None:
        self.functions = {"no spaces": Function(hello)}


class Remembers(Good):
    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        try:
            return await super().fetch(name, qualifier)
        except NotFoundError:
            self.functions[name] = Function(hello)
            raise


class LongSource(Good):
    source = "two words"


class NewForPartitions(Good):
    def at(self, partition: Partition) -> Fetcher:
        return Good()


class PublishesMore(Good):
    async def published(self, name: str) -> Published:
        await self.fetch(name)
        return Published(versions=[1])


class SurveysLess(Good):
    async def survey(self) -> Sequence[Found]:
        return []


class ClosesOnce(Good):
    closed = False

    async def aclose(self) -> None:
        assert not self.closed
        self.closed = True


class Empty(Good):
    def __init__(self) -> None:
        self.functions = {}


RULES = [name for name in vars(FetcherSuite) if name.startswith("test_")]


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Good, set()),
        (NewObjects, {"same_object", "latest_is", "concurrent_fetches", "a_partition_sees"}),
        (AnyQualifier, {"unknown_qualifier"}),
        (NoLatest, {"latest_is"}),
        (
            OtherError,
            {"unknown_name_is_not_found", "unknown_qualifier", "still_not_listed", "a_partition_sees", "published"},
        ),
        (
            ListsMore,
            {"every_listed", "same_object", "latest_is", "concurrent_fetches", "a_partition_sees", "published"},
        ),
        (OpenListing, {"changes_to_a_listing"}),
        (BadName, {"names_that_aws_takes"}),
        (Remembers, {"still_not_listed"}),
        (LongSource, {"source_of_one_word"}),
        (NewForPartitions, {"a_partition_sees"}),
        (PublishesMore, {"published"}),
        (SurveysLess, {"survey_has"}),
        (ClosesOnce, {"closed_twice"}),
        (Empty, {"names_that_aws_takes", "closed_twice"}),
    ],
)
async def test_each_rule_catches_a_fetcher_that_breaks_it(kind: type[Fetcher], broken: set[str]) -> None:
    failed = []
    for rule in RULES:
        try:
            await getattr(FetcherSuite(), rule)(kind())
        except BaseException:  # pytest.raises fails with an exception that is no Exception
            failed.append(rule)
    assert len(failed) == len(broken)
    assert all(any(part in rule for rule in failed) for part in broken)
