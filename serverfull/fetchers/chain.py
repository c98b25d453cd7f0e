"""Several fetchers as one: the first that knows a name serves it.

Used where functions come from more than one place. One event loop calls it; there is nothing to lock, because no
state is read before and written after an ``await``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.errors import NotFoundError
from serverfull.interfaces import Fetcher, Found, Published, Surroundings


class ChainFetcher(Fetcher):
    """Asks fetchers in order; an earlier one hides later ones, name by name.

    A name belongs to the first fetcher that has it *with all its qualifiers*: where that one lacks a version or an
    alias, the answer is "not found", not some other function that happens to have the name.

    Any exception but `NotFoundError` ends the search, since falling through a broken fetcher would run other code than
    the operator meant.

    :param fetchers: in the order in which they are asked.
    :raises TypeError: one of them is no Fetcher.
    """

    source = "chain"

    def __init__(self, *fetchers: Fetcher) -> None:
        for fetcher in fetchers:
            if not isinstance(fetcher, Fetcher):
                hint = "; write ChainFetcher(*fetchers)" if isinstance(fetcher, (list, tuple)) else ""
                raise TypeError(f"ChainFetcher takes fetchers, not {fetcher!r}{hint}")
        self._fetchers = fetchers
        self._owners: dict[str, Fetcher] = {}
        self.read_only = all(fetcher.read_only for fetcher in fetchers)

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function from the first fetcher that knows its name."""
        for fetcher in self._fetchers:
            if fetcher.lacks(name):
                continue
            try:
                function = await fetcher.fetch(name, qualifier)
            except NotFoundError:
                if qualifier not in (None, "$LATEST") and await _knows(fetcher, name):
                    raise
                continue
            if self._owners.get(name) is not fetcher:
                self._owners[name] = fetcher
            return function
        self._owners.pop(name, None)
        raise NotFoundError(name if qualifier is None else f"{name}:{qualifier}")

    def lacks(self, name: str) -> bool:
        """Say whether all of them lack it."""
        return all(fetcher.lacks(name) for fetcher in self._fetchers)

    async def list(self) -> Mapping[str, Function]:
        """Give the functions of all fetchers; of two with one name, the one that `fetch` would give."""
        merged: dict[str, Function] = {}
        owners: dict[str, Fetcher] = {}
        for fetcher in self._fetchers:
            for name, function in (await fetcher.list()).items():
                if name not in merged:
                    merged[name], owners[name] = function, fetcher
        self._owners = owners
        return merged

    def source_of(self, name: str) -> str:
        """Say where a function came from when it was last fetched or listed; before that, the chain's own word."""
        owner = self._owners.get(name)
        return self.source if owner is None else owner.source_of(name)

    def at(self, partition: Partition) -> Fetcher:
        """Give the chain of what its fetchers give for the partition; itself, where all of them serve everybody."""
        views = [fetcher.at(partition) for fetcher in self._fetchers]
        if all(view is fetcher for view, fetcher in zip(views, self._fetchers, strict=True)):
            return self
        return ChainFetcher(*views)

    async def published(self, name: str) -> Published:
        """Ask the first fetcher that knows the name."""
        for fetcher in self._fetchers:
            if not fetcher.lacks(name) and await _knows(fetcher, name):
                return await fetcher.published(name)
        raise NotFoundError(name)

    async def survey(self) -> Sequence[Found]:
        """Say what all of them have, in their order; a name that an earlier one has hides the later ones.

        A function that cannot be served hides others all the same: `fetch` does not go past it either.
        """
        survey: list[Found] = []
        first: dict[str, str] = {}
        for fetcher in self._fetchers:
            for found in await fetcher.survey():
                hidden = found.hidden_by is None and found.name in first
                survey.append(found._replace(hidden_by=first[found.name]) if hidden else found)
            for found in survey:
                first.setdefault(found.name, f"{found.source} {found.place}".strip())
        return survey

    async def open(self, surroundings: Surroundings) -> None:
        """Open all of them, in their order."""
        for fetcher in self._fetchers:
            await fetcher.open(surroundings)

    async def aclose(self) -> None:
        """Close all of them, the last one first; each, whatever happens with another."""
        async with AsyncExitStack() as stack:
            for fetcher in self._fetchers:
                stack.push_async_callback(fetcher.aclose)


async def _knows(fetcher: Fetcher, name: str) -> bool:
    try:
        await fetcher.fetch(name)
    except NotFoundError:
        return False
    return True
