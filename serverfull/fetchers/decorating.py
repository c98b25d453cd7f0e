"""What all decorators of a fetcher pass on to it."""

from __future__ import annotations

from collections.abc import Sequence

from serverfull.interfaces import Fetcher, Found, Published, Surroundings


class FetcherDecorator(Fetcher):
    """A fetcher around another one, which is opened and closed with it and has the same versions and aliases.

    :param fetcher: what is decorated.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._fetch = fetcher.fetch
        self.source = fetcher.source
        self.read_only = fetcher.read_only

    async def published(self, name: str) -> Published:
        """Ask the wrapped fetcher."""
        return await self._fetcher.published(name)

    async def survey(self) -> Sequence[Found]:
        """Ask the wrapped fetcher: functions are listed as they are there."""
        return await self._fetcher.survey()

    async def open(self, surroundings: Surroundings) -> None:
        """Open the wrapped fetcher."""
        await self._fetcher.open(surroundings)

    async def aclose(self) -> None:
        """Close the wrapped fetcher."""
        await self._fetcher.aclose()
