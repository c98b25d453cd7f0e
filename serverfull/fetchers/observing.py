"""Counts and logs what another fetcher does. ``host.py`` puts one around the whole chain.

A successful fetch is on the path of every invocation, so it only adds one to a plain integer here; `report` carries
the sums to the metrics, when somebody looks at them or when a fetch did not succeed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.errors import FunctionNotReady, InvalidRuntime, NotFoundError, TargetInvalid
from serverfull.fetchers.decorating import FetcherDecorator
from serverfull.interfaces import Fetcher


class FetchLogger(Protocol):
    """What is needed of a logger: a structlog one fits."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log an event with its fields."""


class FetchMetrics(Protocol):
    """What is needed of the metrics."""

    def count(self, name: str, value: int = 1, *, tags: Mapping[str, str]) -> Any:
        """Add ``value`` to the counter of that name and tags."""


class ObservingFetcher(FetcherDecorator):
    """Wraps a fetcher: failures are logged, and fetches, failures and unknown names are counted by source.

    Counters: ``fetcher.fetches`` (those that succeeded), tagged with the ``source`` of the function;
    ``fetcher.failures`` and ``fetcher.not_found``, tagged with that of the wrapped fetcher. An unknown name is the
    caller's mistake, so it is counted and not logged.

    :param fetcher: does the work; its answers and exceptions pass through unchanged.
    """

    def __init__(self, fetcher: Fetcher, logger: FetchLogger, metrics: FetchMetrics) -> None:
        super().__init__(fetcher)
        self._source_of = fetcher.source_of
        self._logger = logger
        self._metrics = metrics
        self._fetched: dict[str, int] = {}  # shared with the views of partitions

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Pass on to the wrapped fetcher."""
        try:
            function = await self._fetch(name, qualifier)
        except NotFoundError:
            self._count("fetcher.not_found")
            raise
        except (FunctionNotReady, InvalidRuntime):  # it is known: that it cannot run is no failure of the fetcher
            raise
        except Exception as failure:
            self._failed("fetch failed", failure, name)
            raise
        source = self._source_of(name)
        self._fetched[source] = self._fetched.get(source, 0) + 1
        return function

    async def list(self) -> Mapping[str, Function]:
        """Pass on to the wrapped fetcher.

        :raises TargetInvalid: what that gives is no mapping of names to Functions.
        """
        try:
            functions = await self._fetcher.list()
        except Exception as failure:
            self._failed("listing functions failed", failure, None)
            raise
        return _checked(self._fetcher, functions)

    def source_of(self, name: str) -> str:
        """Ask the wrapped fetcher."""
        return self._source_of(name)

    def at(self, partition: Partition) -> Fetcher:
        """Observe what the wrapped fetcher gives for the partition, with the same counters."""
        view = self._fetcher.at(partition)
        if view is self._fetcher:
            return self
        observing = ObservingFetcher(view, self._logger, self._metrics)
        observing._fetched = self._fetched
        return observing

    def report(self) -> None:
        """Bring the counts of successful fetches to the metrics; call it on the event loop before they are read."""
        fetched = dict(self._fetched)
        self._fetched.clear()
        for source, count in fetched.items():
            self._metrics.count("fetcher.fetches", count, tags={"source": source})

    def _failed(self, event: str, failure: Exception, name: str | None) -> None:
        self._count("fetcher.failures")
        self._logger.error(event, source=self.source, function=name, exc_info=failure)

    def _count(self, counter: str) -> None:
        self.report()
        self._metrics.count(counter, 1, tags={"source": self.source})


def _checked(fetcher: Fetcher, functions: object) -> Mapping[str, Function]:
    where = f"{type(fetcher).__name__}.list() must give a mapping of names to Functions"
    if not isinstance(functions, Mapping):
        raise TargetInvalid(f"{where}, not {functions!r}")
    for name, function in functions.items():
        if not isinstance(name, str) or not isinstance(function, Function):
            raise TargetInvalid(f"{where}, and has {function!r} under {name!r}")
    return functions
