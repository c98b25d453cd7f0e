"""Renders the figures for Prometheus: what ``/metrics`` answers.

Called by the probes, on any thread. prometheus_client is imported at the first scrape, because it takes long to
import, and its global registry is not used, because two hosts can live in one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from serverfull.observability import metrics as columns
from serverfull.observability.process import COUNTERS, FIGURES
from serverfull.observability.user_metrics import (
    VALUE_BUCKETS,
    SeriesId,
    dropped,
    tag_label,
    user_series,
)

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from serverfull.observability.metrics import Metrics

_COUNTERS = (
    ("serverfull_errors", "Invocations that ended with a function error.", columns.ERRORS),
    ("serverfull_timeouts", "Invocations that reached their timeout.", columns.TIMEOUTS),
    ("serverfull_lost_threads", "Threads that were stuck beyond a timeout and replaced.", columns.LOST_TOTAL),
    ("serverfull_async_events_received", "Events accepted to run later.", columns.ASYNC_RECEIVED),
    ("serverfull_async_events_dropped", "Accepted events that will not run.", columns.ASYNC_DROPPED),
    (
        "serverfull_dead_letter_errors",
        "Attempts to send an event to a dead-letter queue or topic that failed.",
        columns.DEAD_LETTER_ERRORS,
    ),
    (
        "serverfull_destination_delivery_failures",
        "Attempts to send a record of an event to a destination that failed.",
        columns.DESTINATION_FAILURES,
    ),
    (
        "serverfull_recursive_invocations_dropped",
        "Invocations that were refused because the function calls itself in circles.",
        columns.RECURSIONS_STOPPED,
    ),
    (
        "serverfull_provisioned_concurrency_invocations",
        "Invocations that ran in provisioned environments.",
        columns.PROVISIONED_TOTAL,
    ),
    (
        "serverfull_provisioned_concurrency_spillover_invocations",
        "Invocations that found all provisioned environments busy, and ran in others.",
        columns.SPILLOVER_TOTAL,
    ),
    ("serverfull_log_bytes_dropped", "Bytes of log over an invocation's limit.", columns.LOG_BYTES_DROPPED),
)
_GAUGES = (
    ("serverfull_concurrent_executions", "Invocations that run now.", columns.CONCURRENT),
    (
        "serverfull_concurrent_executions_peak",
        "The most invocations that ran at once since the start; with several workers the sum of their peaks.",
        columns.PEAK,
    ),
    ("serverfull_lost_threads", "Threads that are stuck beyond a timeout now.", columns.LOST),
    (
        "serverfull_provisioned_concurrent_executions",
        "Invocations that run in provisioned environments now.",
        columns.PROVISIONED,
    ),
    (
        "serverfull_provisioned_environments",
        "Provisioned environments that have loaded their code, busy ones too.",
        columns.PROVISIONED_READY,
    ),
)
_PROCESS = {
    "resident_bytes": ("process_resident_memory_bytes", "Resident memory in bytes."),
    "cpu_seconds": ("process_cpu_seconds", "User and system processor time in seconds."),
    "open_fds": ("process_open_fds", "Open file descriptors."),
    "max_fds": ("process_max_fds", "How many file descriptors may be open."),
    "threads": ("serverfull_threads", "Threads."),
    "tasks": ("serverfull_asyncio_tasks", "Tasks of the server's event loop."),
    "gc_collections": ("serverfull_gc_collections", "Garbage collections."),
    "gc_collected": ("serverfull_gc_objects_collected", "Objects that garbage collections freed."),
    "memory_blocks": ("serverfull_memory_blocks", "Memory blocks that the interpreter has allocated."),
    "start_time": ("process_start_time_seconds", "When the host was started, in seconds since 1970."),
}


def exposition(metrics: Metrics) -> tuple[bytes, str]:
    """Render all figures, of all workers, in Prometheus's text format.

    Not in OpenMetrics, which does not allow the counter and the gauge of lost threads beside each other.

    :return: the body and its content type.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest

    metrics.sample()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    return generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8"


class _Collector:
    """What prometheus_client asks for figures, once for each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        from prometheus_client import core

        self._core = core
        self._metrics = metrics
        self._cells = metrics.cells
        self._keys = [key.split("\0") for key in metrics.cells.keys()]  # noqa: SIM118 - no mapping

    def describe(self) -> list[Metric]:
        """Say nothing about figures in advance: they are not known."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give every figure."""
        yield from self._function_figures()
        yield from self._host_figures()
        yield from self._process_figures()
        yield from self._user_figures()

    def _function_figures(self) -> Iterator[Metric]:
        functions = {parts[1]: self._sums(parts) for parts in self._keys if parts[0] == "function"}
        invocations = self._counter("serverfull_invocations", "Invocations that have ended.", ["function"])
        duration = self._histogram("serverfull_duration_seconds", "How long handlers ran.", ["function"])
        age = self._histogram("serverfull_async_event_age_seconds", "Age of events when they start.", ["function"])
        for name, block in functions.items():
            durations = block[columns.DURATION : columns.AGE]
            invocations.add_metric([name], sum(durations))
            duration.add_metric([name], _buckets(columns.DURATION_BUCKETS, durations), block[columns.DURATION_SUM])
            ages = block[columns.AGE :]
            if any(ages):
                age.add_metric([name], _buckets(columns.AGE_BUCKETS, ages), block[columns.AGE_SUM])
        yield from (invocations, duration, age)
        for families, make in ((_COUNTERS, self._counter), (_GAUGES, self._gauge)):
            for family, text, column in families:
                metric = make(family, text, ["function"])
                for name, block in functions.items():
                    metric.add_metric([name], block[column])
                yield metric
        yield from self._concurrency(functions.values())
        text = "Share of the provisioned environments that are busy, of functions that have any."
        utilization = self._gauge("serverfull_provisioned_concurrency_utilization", text, ["function"])
        for name, block in functions.items():
            if block[columns.PROVISIONED_READY]:
                utilization.add_metric([name], block[columns.PROVISIONED] / block[columns.PROVISIONED_READY])
        yield utilization

    def _concurrency(self, blocks: Any) -> Iterator[Metric]:
        total = sum(block[columns.CONCURRENT] for block in blocks)
        unreserved = sum(block[columns.CONCURRENT] for block in blocks if not block[columns.RESERVED])
        yield self._single("serverfull_account_concurrent_executions", "Invocations of all functions now.", total)
        yield self._single(
            "serverfull_unreserved_concurrent_executions",
            "Invocations now of functions that have no concurrency limit of their own.",
            unreserved,
        )

    def _host_figures(self) -> Iterator[Metric]:
        throttles = self._counter("serverfull_throttles", "Refused invocations.", ["function", "reason"])
        stalls = self._counter("serverfull_loop_stalls", "Times that the server's loop was blocked.", ["function"])
        seconds = self._counter("serverfull_loop_stall_seconds", "Time the loop was blocked.", ["function"])
        fetches = self._counter("serverfull_fetches", "Functions that were looked up.", ["source", "result"])
        text = "Records of functions' log that could not be kept where they belong."
        logs = self._counter("serverfull_log_records_dropped", text, ["sink"])
        for parts in self._keys:
            if parts[0] == "throttle":
                throttles.add_metric(parts[1:], self._sums(parts)[0])
            elif parts[0] == "stall":
                count, lasted = self._sums(parts)
                stalls.add_metric(parts[1:], count)
                seconds.add_metric(parts[1:], lasted)
            elif parts[0] == "log":
                logs.add_metric(parts[1:], self._sums(parts)[0])
            elif parts[0] == "fetch":
                for result, value in zip(("found", "failed", "not_found"), self._sums(parts), strict=True):
                    fetches.add_metric([parts[1], result], value)
        yield from (throttles, stalls, seconds, fetches, logs)
        yield from self._server_figures(self._sums(["host"]))
        text = "Values of handlers' own metrics that were dropped: too many series."
        yield self._single("serverfull_user_metrics_dropped", text, dropped(self._cells), counter=True)

    def _server_figures(self, host: Sequence[float]) -> Iterator[Metric]:
        responses = self._counter("serverfull_http_responses", "HTTP answers by class of status.", ["status"])
        for hundred in range(1, 6):
            responses.add_metric([f"{hundred}xx"], host[columns.HOST_RESPONSES + hundred])
        yield responses
        text = "Accepted events that wait to be run."
        yield self._single("serverfull_async_events_waiting", text, host[columns.HOST_EVENTS_WAITING])
        now = self._gauge("serverfull_connections", "Client connections by state.", ["state"])
        for place, state in enumerate(columns.CONNECTION_STATES):
            now.add_metric([state], host[columns.HOST_CONNECTIONS + place])
        yield now
        events = self._counter("serverfull_connection_events", "What happened to connections.", ["event"])
        for place, event in enumerate(columns.CONNECTION_EVENTS):
            events.add_metric([event], host[columns.HOST_CONNECTIONS_TOTAL + place])
        yield events

    def _process_figures(self) -> Iterator[Metric]:
        rows = self._cells.values("process")
        for place, name in enumerate(FIGURES):
            values = [row[place] for row in rows]
            family, text = _PROCESS[name]
            if name == "start_time":
                value = min((value for value in values if value), default=0.0)
            elif name == "max_fds":
                value = max(values)
            else:
                value = sum(values)
            yield self._single(family, text, value, counter=name in COUNTERS)

    def _user_figures(self) -> Iterator[Metric]:
        families: dict[str, list[SeriesId]] = {}
        for series_id in user_series(self._cells):
            families.setdefault(series_id.family, []).append(series_id)
        for family, members in families.items():
            yield self._user_family(family, members)

    def _user_family(self, family: str, members: list[SeriesId]) -> Metric:
        """Make one family. Two workers that began a name with other tags at the same moment both get their way."""
        kind = members[0].kind
        tags = sorted({tag for member in members for tag, _ in member.tags})
        make = {"count": self._counter, "gauge": self._gauge}.get(kind, self._histogram)
        metric = make(family, f"The handlers' own: {members[0].name}", [tag_label(tag) for tag in tags])
        bounds = VALUE_BUCKETS if kind == "histogram" else columns.DURATION_BUCKETS
        for member in members:
            if member.kind != kind:
                continue
            values = dict(member.tags)
            labels = [values.get(tag, "") for tag in tags]
            if kind == "count":
                metric.add_metric(labels, self._cells.sums(member.key())[0])
            elif kind == "gauge":
                value, said = max(self._cells.values(member.key()), key=lambda row: row[1])
                if said:
                    metric.add_metric(labels, value)
            else:
                total, *counts = self._cells.sums(member.key())
                metric.add_metric(labels, _buckets(bounds, counts), total)
        return metric  # type: ignore[no-any-return]

    def _sums(self, parts: list[str]) -> list[float]:
        return self._cells.sums("\0".join(parts))

    def _counter(self, name: str, text: str, labels: list[str]) -> Any:
        return self._core.CounterMetricFamily(name, text, labels=labels)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Any:
        return self._core.GaugeMetricFamily(name, text, labels=labels)

    def _histogram(self, name: str, text: str, labels: list[str]) -> Any:
        return self._core.HistogramMetricFamily(name, text, labels=labels)

    def _single(self, name: str, text: str, value: float, *, counter: bool = False) -> Metric:
        family = self._core.CounterMetricFamily if counter else self._core.GaugeMetricFamily
        return family(name, text, value=value)


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Turn counts of each bucket into Prometheus's running sums."""
    found, total = [], 0.0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        found.append(("+Inf" if bound == float("inf") else repr(bound), total))
    return found
