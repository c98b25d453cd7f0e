"""Figures of handlers on Lambda, behind ``serverfull.metrics()``: lines in CloudWatch's embedded metric format.

Nobody scrapes a Lambda, so each figure goes into its log, from where CloudWatch takes it. `EmfMetrics` gathers what an
invocation counts; `native` flushes it at the invocation's end. Handlers call it from any thread.

AWS: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from json import dumps
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["count", "gauge", "histogram", "timing"]
Tags: TypeAlias = tuple[tuple[str, str], ...]

MOST_VALUES = 100
"""Values of one metric in one line."""

MOST_METRICS = 100
"""Metrics in one line."""

MOST_DIMENSIONS = 30
MOST_TAG_LENGTH = 256

_UNITS = MappingProxyType({"count": "Count", "gauge": "None", "histogram": "None", "timing": "Seconds"})
_FUNCTION = "FunctionName"
_REQUEST = "requestId"
_OURS = frozenset({"_aws", _FUNCTION, _REQUEST})


@dataclass(slots=True)
class _Figure:
    kind: Kind
    values: list[float] = field(default_factory=list)


class EmfMetrics:
    """Takes handlers' figures; see `observability.handles.MetricsHandle` for what handlers may rely on.

    Counts add up and the last word of a gauge counts within an invocation; of distributions every value is kept. Tags
    become dimensions, beside ``FunctionName``.

    :param namespace: the CloudWatch namespace.
    :param function: the value of the dimension ``FunctionName``.
    :param write: takes whole lines.
    """

    def __init__(self, namespace: str, function: str, write: Callable[[str], object]) -> None:
        self._namespace = namespace
        self._function = function
        self._write = write
        self._shapes: dict[str, tuple[Kind, tuple[str, ...]]] = {}
        self._pending: dict[Tags, dict[str, _Figure]] = {}
        self._lock = threading.RLock()  # a signal handler may count while its own thread does
        self.request_id = ""

    def count(self, name: str, value: float = 1, **tags: object) -> None:
        """Add to a counter."""
        if not 0 <= value < math.inf:
            raise ValueError(f"the counter {name!r} takes numbers from zero up, not {value!r}")
        with self._lock:
            values = self._values("count", name, tags)
            values[:] = [sum(values) + value]

    def gauge(self, name: str, value: float, **tags: object) -> None:
        """Say how much there is now."""
        value = float(value)
        with self._lock:
            values = self._values("gauge", name, tags)
            if math.isfinite(value):  # CloudWatch takes no other
                values[:] = [value]

    def histogram(self, name: str, value: float, **tags: object) -> None:
        """Add one value to a distribution."""
        self._observe("histogram", name, value, tags)

    def timing(self, name: str, seconds: float, **tags: object) -> None:
        """Add one duration to a distribution."""
        self._observe("timing", name, seconds, tags)

    def flush(self) -> None:
        """Write what has been gathered."""
        with self._lock:
            pending, self._pending = self._pending, {}
        for tags, figures in pending.items():
            self._write_lines(tags, figures)

    def _observe(self, kind: Kind, name: str, value: float, tags: dict[str, object]) -> None:
        if not math.isfinite(value):
            raise ValueError(f"the {kind} {name!r} takes finite numbers, not {value!r}")
        with self._lock:
            values = self._values(kind, name, tags)
            values.append(float(value))
            if len(values) >= MOST_VALUES:
                self.flush()

    def _values(self, kind: Kind, name: str, tags: dict[str, object]) -> list[float]:
        if not name:
            raise ValueError("a metric needs a name")
        sorted_tags = tuple(sorted((tag, str(value)[:MOST_TAG_LENGTH]) for tag, value in tags.items()))
        shape = kind, tuple(tag for tag, _ in sorted_tags)
        known = self._shapes.setdefault(name, shape)
        if known != shape:
            raise ValueError(
                f"the {kind} {name!r} with the tags {list(shape[1])} does not fit the {known[0]} of that name with the "
                f"tags {list(known[1])}: a name has one kind and one set of tags"
            )
        return self._pending.setdefault(sorted_tags, {}).setdefault(name, _Figure(kind)).values

    def _write_lines(self, tags: Tags, figures: dict[str, _Figure]) -> None:
        filled = iter([(name, figure) for name, figure in figures.items() if figure.values])
        while part := dict(islice(filled, MOST_METRICS)):
            self._write(dumps(self._document(tags, part), separators=(",", ":")) + "\n")

    def _document(self, tags: Tags, figures: dict[str, _Figure]) -> dict[str, Any]:
        """Put metrics and dimensions into one object, where a name that is taken gets a ``_`` behind it."""
        metrics = {_free(name, _OURS): figure for name, figure in figures.items()}
        named_tags = {_free(tag, {*_OURS, *metrics}): value for tag, value in tags}
        dimensions = list(islice(_filled(named_tags), MOST_DIMENSIONS - 1))
        described = [{"Name": name, "Unit": _UNITS[figure.kind]} for name, figure in metrics.items()]
        return {
            "_aws": {
                "Timestamp": int(time.time() * 1000),
                "CloudWatchMetrics": [
                    {"Namespace": self._namespace, "Dimensions": [[_FUNCTION, *dimensions]], "Metrics": described}
                ],
            },
            _FUNCTION: self._function,
            _REQUEST: self.request_id,
            **named_tags,
            **{name: f.values if len(f.values) > 1 else f.values[0] for name, f in metrics.items()},
        }


def _free(name: str, taken: frozenset[str] | set[str]) -> str:
    return f"{name}_" if name in taken else name


def _filled(tags: dict[str, str]) -> Iterator[str]:
    """Give the tags that have a value: CloudWatch refuses dimensions without one."""
    return (tag for tag, value in tags.items() if value)
