"""Counts and logs what another fetcher does. ``host.py`` puts one around the whole chain.

It is on the path of every invocation, so a successful fetch costs one call that adds to a counter, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from serverfull.domain.functions import Function
from serverfull.errors import NotFoundError
from serverfull.interfaces import Fetcher


class FetchLogger(Protocol):
    """What is needed of a logger: the host's own and structlog's fit."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log an event with its fields."""


class FetchMetrics(Protocol):
    """What is needed of the metrics."""

    def fetched(self, source: str, failed: bool = False) -> None:
        """Count a fetch, and whether it failed otherwise than by not finding the name."""


class ObservingFetcher(Fetcher):
    """Wraps a fetcher: failures are logged, fetches and failures are counted by the source of the function.

    An unknown name is the caller's mistake: it counts as a fetch of the wrapped fetcher and is not logged.

    :param fetcher: does the work; its answers and exceptions pass through unchanged.
    """

    def __init__(self, fetcher: Fetcher, logger: FetchLogger, metrics: FetchMetrics) -> None:
        self._fetcher = fetcher
        self._fetch = fetcher.fetch
        self._source_of = fetcher.source_of
        self._fetched = metrics.fetched
        self._logger = logger
        self.source = fetcher.source
        self.read_only = fetcher.read_only

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Pass on to the wrapped fetcher."""
        try:
            function = await self._fetch(name, qualifier)
        except NotFoundError:
            self._fetched(self.source)
            raise
        except Exception as failure:
            self._failed("fetch failed", failure, function=name)
            raise
        self._fetched(self._source_of(name))
        return function

    async def list(self) -> Mapping[str, Function]:
        """Pass on to the wrapped fetcher; only a failure is counted."""
        try:
            return await self._fetcher.list()
        except Exception as failure:
            self._failed("listing functions failed", failure)
            raise

    def source_of(self, name: str) -> str:
        """Ask the wrapped fetcher."""
        return self._source_of(name)

    def _failed(self, event: str, failure: Exception, **fields: str) -> None:
        self._fetched(self.source, failed=True)
        self._logger.error(event, source=self.source, exc_info=failure, **fields)
