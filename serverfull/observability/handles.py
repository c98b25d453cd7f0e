"""``serverfull.logger()`` and ``serverfull.metrics()``: what handlers use to log records and to count things.

A runtime puts an object with both handles into `CURRENT` while a handler runs; tasks inherit it with their context, and
threads where the runtime passes it on. Outside of any invocation (while a module is imported, in a unit test) both
functions give something that works: a logger that writes JSON lines to standard error, and metrics that keep nothing.
What a module took hold of that way belongs, whenever it is used in an invocation, to that one.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any, Protocol

from serverfull.observability.logger import InvocationLogger


class MetricsHandle(Protocol):
    """Figures that handlers make; they appear on ``/metrics`` and in the DogStatsD output. Usable on any thread.

    Names may hold anything; on ``/metrics`` what Prometheus does not allow becomes ``_``. The tags of a name are the
    same at every call, with other values; tag values come from a small set, not from user ids and the like.
    """

    def count(self, name: str, value: float = 1, **tags: object) -> None:
        """Add to a counter.

        :param value: zero or more.
        :raises ValueError: the name is used with other tags, or for another kind of figure.
        """

    def gauge(self, name: str, value: float, **tags: object) -> None:
        """Say how much there is now; the last word counts.

        :raises ValueError: as for `count`.
        """

    def histogram(self, name: str, value: float, **tags: object) -> None:
        """Add one value to a distribution.

        :raises ValueError: as for `count`.
        """

    def timing(self, name: str, seconds: float, **tags: object) -> None:
        """Add one duration to a distribution.

        :raises ValueError: as for `count`.
        """


class NoMetrics:
    """Takes figures and keeps none."""

    def count(self, name: str, value: float = 1, **tags: object) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float, **tags: object) -> None:
        """Do nothing."""

    def histogram(self, name: str, value: float, **tags: object) -> None:
        """Do nothing."""

    def timing(self, name: str, seconds: float, **tags: object) -> None:
        """Do nothing."""


class Handles(Protocol):
    """What a runtime puts into `CURRENT`; its own record of an invocation may be it."""

    @property
    def logger(self) -> InvocationLogger:
        """Give the logger of the invocation."""

    @property
    def metrics(self) -> MetricsHandle:
        """Give the metrics of the host."""


CURRENT: ContextVar[Handles | None] = ContextVar("serverfull_current", default=None)
"""The invocation that the running code belongs to."""


class CurrentLogger(InvocationLogger):
    """Writes each record into the log of the invocation that runs then, and to standard error where none does."""

    __slots__ = ()

    def _log(self, level: str, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        handles = CURRENT.get()
        if handles is None:
            super()._log(level, event, args, fields)
        else:
            handles.logger._log(level, event, args, {**self._context, **fields})


class CurrentMetrics(NoMetrics):
    """Takes each figure to the host of the invocation that runs then; where none does, it is not kept."""

    def count(self, name: str, value: float = 1, **tags: object) -> None:
        """Add to a counter."""
        if (handles := CURRENT.get()) is not None:
            handles.metrics.count(name, value, **tags)

    def gauge(self, name: str, value: float, **tags: object) -> None:
        """Say how much there is now."""
        if (handles := CURRENT.get()) is not None:
            handles.metrics.gauge(name, value, **tags)

    def histogram(self, name: str, value: float, **tags: object) -> None:
        """Add one value to a distribution."""
        if (handles := CURRENT.get()) is not None:
            handles.metrics.histogram(name, value, **tags)

    def timing(self, name: str, seconds: float, **tags: object) -> None:
        """Add one duration to a distribution."""
        if (handles := CURRENT.get()) is not None:
            handles.metrics.timing(name, seconds, **tags)


def logger() -> InvocationLogger:
    """Give the structured logger of the invocation that runs now.

    Its records are lines of the invocation's own log, with its request id. What is given outside of any invocation, to
    a module that is imported, may be used in all of them; outside of them it writes JSON lines to standard error.
    """
    handles = CURRENT.get()
    return handles.logger if handles is not None else CurrentLogger(_to_standard_error)


def metrics() -> MetricsHandle:
    """Give the host's metrics for handlers' own figures.

    What is given outside of any invocation may be used in all of them; outside of them nothing is kept.
    """
    handles = CURRENT.get()
    return handles.metrics if handles is not None else CurrentMetrics()


def _to_standard_error(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
