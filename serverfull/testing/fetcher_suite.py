"""What every Fetcher must do, as tests to inherit. Needs pytest and pytest-asyncio.

::

    class TestMyFetcher(FetcherSuite):
        @pytest.fixture
        def fetcher(self):
            return MyFetcher(...)  # with at least one function in it

What a fetcher needs of the host that serves it is in `surroundings`, for tests of one's own::

    await fetcher.open(surroundings(changed=changes.append))
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import Settings
from serverfull.domain.functions import Function
from serverfull.domain.images import ImageFacts
from serverfull.domain.records import Partition
from serverfull.errors import NotFoundError
from serverfull.interfaces import Building, Catalogue, Fetcher, Surroundings, Watch, Watching

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_UNKNOWN = "no-such-function"
_PARTITION = Partition("123456789012", "eu-west-1")


class NoLog:
    """Stands for a host's log where nobody reads it."""

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Unbuilt(Building):
    """Stands for what runs build commands where nothing has to be built."""

    async def build(self, function: str, folder: Path, command: str) -> bool:
        return False


class Unwatched(Watching, Watch):
    """Stands for a host's watcher where nothing changes: it never tells of anything."""

    def watch(
        self, root: Path, changed: Callable[[], None], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> Watch:
        return self

    async def active(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""


class NoImages(Catalogue):
    """Stands for an engine without any image."""

    async def find(self, name: str, *, here: bool) -> ImageFacts | None:
        """Find nothing."""
        return None

    async def labelled(self, label: str = "") -> Sequence[ImageFacts]:
        """List nothing."""
        return ()

    async def aclose(self) -> None:
        """Do nothing."""


def surroundings(
    settings: Settings | None = None,
    logger: Any = None,
    changed: Callable[[str], None] | None = None,
    watching: Watching | None = None,
    building: Building | None = None,
    catalogue: Catalogue | None = None,
) -> Surroundings:
    """Give what a fetcher is opened with, outside of a host.

    :param settings: None: all defaults.
    :param logger: None: nobody reads the log.
    :param changed: hears which functions are others than before; None: nobody does.
    :param watching: says that files have changed; None: nobody does.
    :param building: runs build commands; None: nobody does, and code is served as it is.
    :param catalogue: says which container images there are; None: there are none.
    """
    return Surroundings(
        settings=settings or Settings(),
        logger=logger or NoLog(),
        changed=changed or (lambda _name: None),
        watching=lambda: watching or Unwatched(),
        building=lambda: building or Unbuilt(),
        catalogue=lambda: catalogue or NoImages(),
    )


@pytest.mark.asyncio
class FetcherSuite:
    """Subclass it, name the class ``Test…`` and provide the ``fetcher`` fixture: a fetcher with a function in it."""

    @pytest.fixture
    def fetcher(self) -> Fetcher:
        """Give the fetcher under test."""
        raise NotImplementedError("override the fetcher fixture")

    async def test_listing_gives_functions_with_handlers_under_names_that_aws_takes(self, fetcher: Fetcher) -> None:
        functions = await fetcher.list()
        assert functions, "the suite needs a fetcher with at least one function"
        for name, function in functions.items():
            assert _NAME.fullmatch(name)
            assert isinstance(function, Function)
            assert callable(function.handler)

    async def test_every_listed_function_can_be_fetched(self, fetcher: Fetcher) -> None:
        for name, function in (await fetcher.list()).items():
            assert (await fetcher.fetch(name)).handler_name == function.handler_name

    async def test_an_unchanged_function_is_the_same_object_each_time(self, fetcher: Fetcher) -> None:
        for name in await fetcher.list():
            first = await fetcher.fetch(name)
            assert await fetcher.fetch(name) is first

    async def test_latest_is_the_function_without_a_qualifier(self, fetcher: Fetcher) -> None:
        for name in await fetcher.list():
            assert await fetcher.fetch(name, "$LATEST") is await fetcher.fetch(name, None)

    async def test_concurrent_fetches_give_one_object(self, fetcher: Fetcher) -> None:
        for name in await fetcher.list():
            fetched = await asyncio.gather(*(fetcher.fetch(name) for _ in range(8)))
            assert len({id(function) for function in fetched}) == 1

    async def test_an_unknown_name_is_not_found(self, fetcher: Fetcher) -> None:
        with pytest.raises(NotFoundError) as caught:
            await fetcher.fetch(_UNKNOWN)
        assert _UNKNOWN in caught.value.name

    async def test_an_unknown_qualifier_is_not_found(self, fetcher: Fetcher) -> None:
        for name in await fetcher.list():
            with pytest.raises(NotFoundError):
                await fetcher.fetch(name, "no-such-alias")

    async def test_an_unknown_name_is_still_not_listed_after_it_was_asked_for(self, fetcher: Fetcher) -> None:
        with pytest.raises(NotFoundError):
            await fetcher.fetch(_UNKNOWN)
        assert _UNKNOWN not in await fetcher.list()

    async def test_what_it_says_to_lack_is_not_found(self, fetcher: Fetcher) -> None:
        for name in await fetcher.list():
            assert not fetcher.lacks(name)
        if fetcher.lacks(_UNKNOWN):
            with pytest.raises(NotFoundError):
                await fetcher.fetch(_UNKNOWN)

    async def test_every_function_has_a_source_of_one_word(self, fetcher: Fetcher) -> None:
        for name in await fetcher.list():
            assert re.fullmatch(r"\S+", fetcher.source_of(name))

    async def test_the_callers_changes_to_a_listing_do_not_reach_the_fetcher(self, fetcher: Fetcher) -> None:
        listing = await fetcher.list()
        names = set(listing)
        try:
            listing.clear()  # type: ignore[attr-defined]
        except (AttributeError, TypeError):
            return
        assert set(await fetcher.list()) == names

    async def test_a_partition_sees_functions_that_stay_the_same_too(self, fetcher: Fetcher) -> None:
        view = fetcher.at(_PARTITION)
        for name in await view.list():
            first = await view.fetch(name)
            assert await view.fetch(name) is first
            assert await fetcher.at(_PARTITION).fetch(name) is first
        with pytest.raises(NotFoundError):
            await view.fetch(_UNKNOWN)

    async def test_what_is_published_of_a_function_can_be_fetched(self, fetcher: Fetcher) -> None:
        for name in await fetcher.list():
            published = await fetcher.published(name)
            for number in published.versions:
                assert (await fetcher.fetch(name, str(number))).version == str(number)
            for alias in published.aliases:
                assert isinstance(await fetcher.fetch(name, alias), Function)
        with pytest.raises(NotFoundError):
            await fetcher.published(_UNKNOWN)

    async def test_the_survey_has_what_is_listed_once_and_where_it_comes_from(self, fetcher: Fetcher) -> None:
        served = {found.name: found for found in await fetcher.survey() if found.hidden_by is None}
        for name in await fetcher.list():
            assert served[name].failure is None
            assert served[name].source == fetcher.source_of(name)

    async def test_it_can_be_opened_and_closed_twice(self, fetcher: Fetcher) -> None:
        await fetcher.open(surroundings())
        assert await fetcher.list()
        await fetcher.aclose()
        await fetcher.aclose()
