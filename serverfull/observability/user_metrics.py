"""Handlers' own figures, behind ``serverfull.metrics()``: counters, gauges and distributions by name and tags.

Made once by the host. Handlers call it from any thread; a lock makes each call whole. Series live in the host's cells,
so those of all worker processes add up at a scrape, and what a dead worker counted stays.
"""

from __future__ import annotations

import math
import re
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from json import dumps, loads
from typing import Literal, NamedTuple, TypeAlias

from serverfull.observability.cells import Block, Cells, CellsFull
from serverfull.observability.metrics import DURATION_BUCKETS, Samples

Kind: TypeAlias = Literal["count", "gauge", "histogram", "timing"]
Tags: TypeAlias = tuple[tuple[str, str], ...]

VALUE_BUCKETS = tuple(factor * 10.0**power for power in range(-3, 7) for factor in (1.0, 2.5, 5.0))
"""Upper bounds for distributions of anything: sizes, prices, numbers of items."""

MAX_SERIES = 1000
MAX_NAMES = 1000
MAX_TAG_LENGTH = 256

_PREFIX = "user\0"
_DROPPED = "dropped"
_NOT_ALLOWED = r"[^a-zA-Z0-9_]"
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "count": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
    "timing": ("", "_bucket", "_count", "_sum", "_created"),
}
_TAKEN = frozenset(
    f"process_{name}"
    for name in (
        "resident_memory_bytes",
        "cpu_seconds",
        "cpu_seconds_total",
        "open_fds",
        "max_fds",
        "start_time_seconds",
    )
)


class SeriesId(NamedTuple):
    """What a series is: also its key in the cells, so that every worker finds the same one.

    :param name: as the handler wrote it.
    :param family: the name on ``/metrics``, without ``_total``.
    :param tags: sorted by name.
    """

    kind: Kind
    name: str
    family: str
    tags: Tags

    def key(self) -> str:
        """Write it as a key of the cells."""
        return _PREFIX + dumps([self.kind, self.name, self.tags])

    @classmethod
    def parse(cls, key: str) -> SeriesId:
        """Read what `key` wrote."""
        kind, name, tags = loads(key.removeprefix(_PREFIX))
        return cls(kind, name, family_name(kind, name), tuple((tag, value) for tag, value in tags))


class Series:
    """One series of this process; ``samples`` are kept where an output sends single values."""

    __slots__ = ("block", "buckets", "id", "samples")

    def __init__(self, series_id: SeriesId, block: Block, samples: Samples | None) -> None:
        self.id = series_id
        self.block = block
        self.buckets = VALUE_BUCKETS if series_id.kind == "histogram" else DURATION_BUCKETS
        self.samples = samples


class UserMetrics:
    """Takes handlers' figures; see `observability.handles.MetricsHandle` for what handlers may rely on.

    A name has at most `max_series` combinations of tag values; further ones are dropped and counted, with one warning.

    :param cells: where the figures live; the same as the host's.
    :param warn: takes a message and fields; called once for each name that has too many series.
    """

    def __init__(
        self, cells: Cells, warn: Callable[..., object] = lambda *_, **__: None, max_series: int = MAX_SERIES
    ) -> None:
        self._cells = cells
        self._warn = warn
        self._max_series = max_series
        self._series: dict[tuple[object, ...], Series | None] = {}
        self._families: dict[str, tuple[Kind, str, tuple[str, ...]]] = {}
        self._per_name: dict[str, int] = {}
        self._claimed: dict[str, str] = {}
        self._known: set[str] = set()
        self._warned: set[str] = set()
        self._sampling = False
        self._dropped = cells.allocate(_DROPPED, 1)
        self._lock = threading.RLock()  # a signal handler may count while its own thread does

    def count(self, name: str, value: float = 1, **tags: object) -> None:
        """Add to a counter."""
        if not 0 <= value < math.inf:
            raise ValueError(f"the counter {name!r} takes numbers from zero up, not {value!r}")
        with self._lock:
            series = self._find("count", name, tags)
            if series is not None:
                series.block[0] += value

    def gauge(self, name: str, value: float, **tags: object) -> None:
        """Say how much there is now."""
        value = float(value)
        with self._lock:
            series = self._find("gauge", name, tags)
            if series is not None:
                series.block[0] = value
                series.block[1] = time.monotonic()  # one clock for all processes: the last word counts

    def histogram(self, name: str, value: float, **tags: object) -> None:
        """Add one value to a distribution."""
        self._observe("histogram", name, value, tags)

    def timing(self, name: str, seconds: float, **tags: object) -> None:
        """Add one duration to a distribution."""
        self._observe("timing", name, seconds, tags)

    def _observe(self, kind: Kind, name: str, value: float, tags: dict[str, object]) -> None:
        if not math.isfinite(value):
            raise ValueError(f"the {kind} {name!r} takes finite numbers, not {value!r}")
        with self._lock:
            series = self._find(kind, name, tags)
            if series is None:
                return
            series.block[0] += value
            series.block[1 + bisect_left(series.buckets, value)] += 1.0
            if series.samples is not None:
                series.samples.add(value)

    def keep_samples(self) -> None:
        """Keep single values of distributions from now on, for an output that sends them (DogStatsD)."""
        with self._lock:
            self._sampling = True
            for series in self._series.values():
                if series is not None and series.id.kind in ("histogram", "timing"):
                    series.samples = Samples()

    def series(self) -> Iterator[Series]:
        """Give this process's series."""
        with self._lock:
            return iter({id(series): series for series in self._series.values() if series is not None}.values())

    def take_samples(self, series: Series) -> Samples:
        """Take away the single values that a series has gathered."""
        with self._lock:
            taken, series.samples = series.samples or Samples(), Samples()
            return taken

    def _find(self, kind: Kind, name: str, tags: dict[str, object]) -> Series | None:
        written = (kind, name, *((tag, str(value)[:MAX_TAG_LENGTH]) for tag, value in tags.items()))
        try:
            return self._series[written]
        except KeyError:
            series = self._make(kind, name, tags)
            if series is not None:  # a refused one is not remembered: that would be the very leak that is avoided
                self._series[written] = series
            return series

    def _make(self, kind: Kind, name: str, tags: dict[str, object]) -> Series | None:
        sorted_tags = tuple(sorted((tag, str(value)[:MAX_TAG_LENGTH]) for tag, value in tags.items()))
        series_id = SeriesId(kind, name, family_name(kind, name), sorted_tags)
        if series_id.family not in self._families:
            self._learn()
        self._claim(series_id)
        key = series_id.key()
        if key not in self._known and not self._has_room(series_id.family):
            self._drop(series_id, f"it has {self._max_series} series already")
            return None
        try:
            block = self._cells.allocate(key, _columns(kind), (0, 1) if kind == "gauge" else ())
        except CellsFull:
            self._drop(series_id, "the memory that the workers share for figures is full")
            return None
        if key not in self._known:
            self._known.add(key)
            self._per_name[series_id.family] = self._per_name.get(series_id.family, 0) + 1
        samples = Samples() if self._sampling and kind in ("histogram", "timing") else None
        return Series(series_id, block, samples)

    def _has_room(self, family: str) -> bool:
        if len(self._per_name) >= MAX_NAMES and family not in self._per_name:
            return False
        return self._per_name.get(family, 0) < self._max_series

    def _learn(self) -> None:
        """Hear of the series that other workers have, so that a name means the same in all of them."""
        for key in self._cells.keys():  # noqa: SIM118 - no mapping
            if key.startswith(_PREFIX) and key not in self._known:
                series_id = SeriesId.parse(key)
                self._known.add(key)
                self._per_name[series_id.family] = self._per_name.get(series_id.family, 0) + 1
                self._families.setdefault(series_id.family, _shape(series_id))
                self._claimed.update(
                    {series_id.family + suffix: series_id.family for suffix in _SUFFIXES[series_id.kind]}
                )

    def _claim(self, series_id: SeriesId) -> None:
        shape = _shape(series_id)
        known = self._families.get(series_id.family)
        if known == shape:
            return
        name = series_id.name
        if known is not None:
            raise ValueError(
                f"the {series_id.kind} {name!r} with the tags {list(shape[2])} does not fit the {known[0]} "
                f"{known[1]!r} with the tags {list(known[2])}: a name on /metrics has one kind and one set of tags"
            )
        if series_id.family.startswith("serverfull_") or series_id.family in _TAKEN:
            raise ValueError(f"{name!r} cannot be used: the name is one of the host's own on /metrics")
        if len({tag_label(tag) for tag in shape[2]}) < len(shape[2]):
            raise ValueError(f"{name!r} has tags whose names are the same on /metrics: {list(shape[2])}")
        names = _names(series_id)
        other = next((self._claimed[taken] for taken in names if taken in self._claimed), None)
        if other is not None:
            raise ValueError(f"{name!r} cannot be used beside {other!r}: on /metrics their names are the same")
        self._families[series_id.family] = shape
        self._claimed.update(dict.fromkeys(names, series_id.family))

    def _drop(self, series_id: SeriesId, why: str) -> None:
        self._dropped[0] += 1.0
        if series_id.family not in self._warned and len(self._warned) < MAX_NAMES:
            self._warned.add(series_id.family)
            self._warn("metric series dropped", metric=series_id.name, reason=why)


def family_name(kind: Kind, name: str) -> str:
    """Give the name on ``/metrics``: what Prometheus does not allow becomes ``_``.

    :raises ValueError: there is no name.
    """
    if not name:
        raise ValueError("a metric needs a name")
    family = re.sub(_NOT_ALLOWED, "_", name)
    if family[0].isdigit():
        family = f"_{family}"
    if kind == "count":
        return family.removesuffix("_total") or family
    if kind == "timing" and not family.endswith("_seconds"):
        return f"{family}_seconds"
    return family


def tag_label(tag: str) -> str:
    """Give the label of a tag on ``/metrics``."""
    label = re.sub(_NOT_ALLOWED, "_", tag)
    if label.startswith("__") or not label or label[0].isdigit() or label == "le":
        return f"tag_{label.lstrip('_')}"
    return label


def dropped(cells: Cells) -> float:
    """Say how many values were dropped because their series had no room."""
    return cells.sums(_DROPPED)[0] if _DROPPED in cells.keys() else 0.0  # noqa: SIM118 - no mapping


def user_series(cells: Cells) -> list[SeriesId]:
    """Give the series of all workers."""
    return [SeriesId.parse(key) for key in cells.keys() if key.startswith(_PREFIX)]  # noqa: SIM118 - no mapping


def _shape(series_id: SeriesId) -> tuple[Kind, str, tuple[str, ...]]:
    return (series_id.kind, series_id.name, tuple(tag for tag, _ in series_id.tags))


def _names(series_id: SeriesId) -> list[str]:
    """Give every name that the series takes on ``/metrics``."""
    return [series_id.family + suffix for suffix in _SUFFIXES[series_id.kind]]


def _columns(kind: Kind) -> int:
    buckets = {"count": 0, "gauge": 1, "histogram": len(VALUE_BUCKETS) + 1, "timing": len(DURATION_BUCKETS) + 1}
    return 1 + buckets[kind]
