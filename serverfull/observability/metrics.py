"""The host's figures in Lambda's vocabulary, kept in cells of our own.

The invoke path calls `FunctionMetrics` on the server's event loop: no lock, no label look-up, no dictionary. A scrape
(`exposition`) or the DogStatsD output reads the cells whenever it likes, from any thread.

Meaning of the figures: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
"""

from __future__ import annotations

import random
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from serverfull.observability.cells import Block, Cells, LocalCells
from serverfull.observability.process import COUNTERS, FIGURES, ProcessFigures

DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
)  # fmt: skip
"""Upper bounds in seconds: from an empty handler to AWS's longest timeout."""

AGE_BUCKETS = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 21600.0)
"""Upper bounds in seconds of the age at which an event starts; events live for six hours."""

(
    ERRORS,
    CONCURRENT,
    PEAK,
    TIMEOUTS,
    LOST,
    LOST_TOTAL,
    ASYNC_RECEIVED,
    ASYNC_DROPPED,
    RECURSIONS_STOPPED,
    DEAD_LETTER_ERRORS,
    DESTINATION_FAILURES,
    LOG_BYTES_DROPPED,
    RESERVED,
    PROVISIONED,
    PROVISIONED_READY,
    PROVISIONED_TOTAL,
    SPILLOVER_TOTAL,
    DURATION_SUM,
    AGE_SUM,
    DURATION,
) = range(20)
AGE = DURATION + len(DURATION_BUCKETS) + 1
FUNCTION_COLUMNS = AGE + len(AGE_BUCKETS) + 1
FUNCTION_GAUGES = (CONCURRENT, PEAK, LOST, RESERVED, PROVISIONED, PROVISIONED_READY)

CONNECTION_STATES = ("new", "active", "idle", "hijacked")
CONNECTION_EVENTS = (*CONNECTION_STATES, "closed", "refused", "evicted")

HOST_RESPONSES = 0
HOST_CONNECTIONS = 6
HOST_CONNECTIONS_TOTAL = HOST_CONNECTIONS + len(CONNECTION_STATES)
HOST_EVENTS_WAITING = HOST_CONNECTIONS_TOTAL + len(CONNECTION_EVENTS)
HOST_COLUMNS = HOST_EVENTS_WAITING + 1
HOST_GAUGES = tuple(range(HOST_CONNECTIONS, HOST_CONNECTIONS_TOTAL))
"""What ends with a process. Events that wait are on the disk; where they are not, the next process soon says so."""

PROCESS_GAUGES = tuple(place for place, name in enumerate(FIGURES) if name not in COUNTERS)

FETCH_COUNTERS = ("fetcher.fetches", "fetcher.failures", "fetcher.not_found")

STALL_COLUMNS = 2

MAX_SAMPLES = 1024


def columns_for(functions: int, user_series: int = 10_000) -> int:
    """Say how many columns a `SharedCells` file needs.

    :param functions: how many functions the workers serve; each may be throttled for several reasons, and may stall.
    :param user_series: room for series of handlers' own metrics.
    """
    return HOST_COLUMNS + 256 + functions * (FUNCTION_COLUMNS + STALL_COLUMNS + 8) + user_series * 4


class Samples:
    """Single values of one flush interval, at most `MAX_SAMPLES`: beyond it a fair random choice of all is kept."""

    __slots__ = ("seen", "values")

    def __init__(self) -> None:
        self.seen = 0
        self.values: list[float] = []

    def add(self, value: float) -> None:
        """Take one value."""
        self.seen += 1
        if len(self.values) < MAX_SAMPLES:
            self.values.append(value)
        elif (place := int(random.random() * self.seen)) < MAX_SAMPLES:  # noqa: S311
            self.values[place] = value


class FunctionMetrics:
    """The figures of one function. Every method is called on the server's event loop alone, and none of them waits."""

    __slots__ = ("_block", "_concurrent", "_metrics", "_peak", "_throttles", "durations", "name")

    def __init__(self, name: str, block: Block, metrics: Metrics) -> None:
        self.name = name
        self.durations: Samples | None = None
        self._block = block
        self._metrics = metrics
        self._concurrent = 0
        self._peak = 0
        self._throttles: dict[str, Block] = {}

    def started(self) -> None:
        """An invocation starts to run."""
        self._concurrent = concurrent = self._concurrent + 1
        self._block[CONCURRENT] = concurrent
        if concurrent > self._peak:
            self._peak = concurrent
            self._block[PEAK] = concurrent

    def discarded(self) -> None:
        """An invocation that `started` was refused before its handler ran: it does not count as one."""
        self._concurrent = concurrent = self._concurrent - 1
        self._block[CONCURRENT] = concurrent

    def finished(self, duration_s: float, error: bool) -> None:
        """An invocation that `started` has ended. It is counted now: invocations are the sum of the duration buckets.

        :param duration_s: seconds that the handler ran.
        :param error: whether it ended with a function error; timeouts are errors too.
        """
        block = self._block
        self._concurrent = concurrent = self._concurrent - 1
        block[CONCURRENT] = concurrent
        block[DURATION_SUM] += duration_s
        block[DURATION + bisect_left(DURATION_BUCKETS, duration_s)] += 1.0
        if error:
            block[ERRORS] += 1.0
        if self.durations is not None:
            self.durations.add(duration_s)

    def throttled(self, reason: str) -> None:
        """An invocation was refused.

        :param reason: a value of the model's ``ThrottleReason``.
        """
        block = self._throttles.get(reason)
        if block is None:
            block = self._metrics.cells.allocate(f"throttle\0{self.name}\0{reason}", 1)
            self._throttles[reason] = block
        block[0] += 1.0

    def timed_out(self) -> None:
        """An invocation reached its timeout; `finished` is called as well."""
        self._block[TIMEOUTS] += 1.0

    def thread_lost(self) -> None:
        """A thread is stuck in a handler beyond its timeout and was replaced."""
        self._block[LOST] += 1.0
        self._block[LOST_TOTAL] += 1.0

    def thread_recovered(self) -> None:
        """A lost thread came back after all, and ended."""
        self._block[LOST] -= 1.0

    def async_received(self) -> None:
        """An event was accepted to run later."""
        self._block[ASYNC_RECEIVED] += 1.0

    def async_dropped(self) -> None:
        """An accepted event will never run (again)."""
        self._block[ASYNC_DROPPED] += 1.0

    def recursion_stopped(self) -> None:
        """A call was refused because the function calls itself in circles."""
        self._block[RECURSIONS_STOPPED] += 1.0

    def delivery_failed(self, *, dead_letter: bool) -> None:
        """An attempt failed to tell somebody of an event that has ended.

        :param dead_letter: whether by a dead letter, or else by a record for a destination.
        """
        self._block[DEAD_LETTER_ERRORS if dead_letter else DESTINATION_FAILURES] += 1.0

    def async_event_age(self, seconds: float) -> None:
        """An accepted event starts to run.

        :param seconds: since it was accepted; below zero (a clock that was set back) counts as zero.
        """
        seconds = max(0.0, seconds)
        self._block[AGE_SUM] += seconds
        self._block[AGE + bisect_left(AGE_BUCKETS, seconds)] += 1.0

    def log_bytes_dropped(self, count: int) -> None:
        """An invocation wrote more log than it may; the rest was dropped."""
        self._block[LOG_BYTES_DROPPED] += count

    def reserved(self, yes: bool) -> None:
        """Say whether the function has a concurrency limit of its own, so that its executions are not "unreserved"."""
        self._block[RESERVED] = float(yes)

    def provisioned_ready(self, change: int) -> None:
        """So many more provisioned environments have loaded their code, or fewer; busy ones count too."""
        self._block[PROVISIONED_READY] += change

    def provisioned_started(self) -> None:
        """An invocation starts in a provisioned environment."""
        self._block[PROVISIONED] += 1.0
        self._block[PROVISIONED_TOTAL] += 1.0

    def provisioned_ended(self) -> None:
        """An invocation has ended in a provisioned environment."""
        self._block[PROVISIONED] -= 1.0

    def spilled_over(self) -> None:
        """An invocation found all provisioned environments busy, and starts in another one."""
        self._block[SPILLOVER_TOTAL] += 1.0

    @property
    def invocations(self) -> float:
        """How many invocations have ended."""
        return sum(self._block[DURATION + bucket] for bucket in range(len(DURATION_BUCKETS) + 1))

    @property
    def concurrent(self) -> int:
        """How many invocations run now, in this process."""
        return self._concurrent


class ConnectionCounts(NamedTuple):
    """The state of the server's connections.

    :param now: connections by state, of `CONNECTION_STATES`.
    :param total: what happened to connections since the start, of `CONNECTION_EVENTS`.
    """

    now: Mapping[str, int]
    total: Mapping[str, int]


class LosesRecords(Protocol):
    """What cannot keep every record of a log, and counts."""

    @property
    def dropped(self) -> int:
        """How many records were lost so far."""


class Metrics:
    """All figures of one host, made by the host and handed down.

    :param cells: where they live; None: in this process.
    :param functions: names known from the start. Shared cells need them: room is made for them before anything else.
    """

    def __init__(self, cells: Cells | None = None, functions: Iterable[str] = ()) -> None:
        self.cells: Cells = LocalCells() if cells is None else cells
        self.process = ProcessFigures()
        self.connections: Callable[[], ConnectionCounts] | None = None
        """What tells the state of the connections; set by whoever owns the server. Called on any thread."""
        self.before_sample: list[Callable[[], object]] = []
        """Called before figures are read, for parts that count on their own (`ObservingFetcher.report`)."""
        self._functions: dict[str, FunctionMetrics] = {}
        self._stalls: dict[str, Block] = {}
        self._fetches: dict[str, Block] = {}
        self._lock = threading.Lock()
        self._sampling = False
        self._host = self.cells.allocate("host", HOST_COLUMNS, HOST_GAUGES)
        self._process = self.cells.allocate("process", len(FIGURES), PROCESS_GAUGES)
        # A worker that replaces a dead one counts on from where that one stopped.
        self._connections_before = [
            self._host[HOST_CONNECTIONS_TOTAL + place] for place in range(len(CONNECTION_EVENTS))
        ]
        self._process_before = [self._process[place] for place in range(len(FIGURES))]
        for name in sorted(functions):
            self.function(name)

    def function(self, name: str) -> FunctionMetrics:
        """Give the figures of a function; the same object every time. The caller may keep it."""
        figures = self._functions.get(name)
        if figures is None:
            with self._lock:
                figures = self._functions.get(name)
                if figures is None:
                    block = self.cells.allocate(f"function\0{name}", FUNCTION_COLUMNS, FUNCTION_GAUGES)
                    figures = FunctionMetrics(name, block, self)
                    figures.durations = Samples() if self._sampling else None
                    self._functions[name] = figures
        return figures

    def invocations_of(self, name: str) -> float:
        """Give how many invocations of a function have ended, none where it has no figures yet."""
        figures = self._functions.get(name)
        return 0.0 if figures is None else figures.invocations

    def functions(self) -> Iterator[FunctionMetrics]:
        """Give every function's figures that this process has."""
        with self._lock:
            return iter(list(self._functions.values()))

    def keep_samples(self) -> None:
        """Keep single durations from now on, for an output that sends them (DogStatsD)."""
        self._sampling = True
        for figures in self.functions():
            figures.durations = Samples()

    def loop_stalled(self, function: str) -> None:
        """The server's loop has stopped; called once for a stall, by the watchdog's thread alone.

        :param function: the function whose handler blocks it.
        """
        self._stall(function)[0] += 1.0

    def loop_stall_seconds(self, function: str, seconds: float) -> None:
        """Add to the time that a function has kept the loop from running; by the watchdog's thread alone."""
        self._stall(function)[1] += seconds

    def count(self, name: str, value: int = 1, *, tags: Mapping[str, str]) -> None:
        """Count what fetchers do; called on the event loop.

        :param name: one of `FETCH_COUNTERS`.
        :param tags: ``source``, the fetcher's one word.
        """
        source = tags["source"]
        block = self._fetches.get(source)
        if block is None:
            block = self._fetches[source] = self.cells.allocate(f"fetch\0{source}", len(FETCH_COUNTERS))
        block[FETCH_COUNTERS.index(name)] += value

    def watch_log(self, name: str, sink: LosesRecords) -> None:
        """Show how much of the functions' log a sink has lost.

        :param name: one word for where that log goes.
        """
        block = self.cells.allocate(f"log\0{name}", 1)
        before = block[0]  # a worker that replaces a dead one counts on

        def report() -> None:
            block[0] = before + sink.dropped

        self.before_sample.append(report)

    def watch_events(self, waiting: Callable[[], int]) -> None:
        """Show how many accepted events wait to be run."""

        def report() -> None:
            self._host[HOST_EVENTS_WAITING] = waiting()

        self.before_sample.append(report)

    def responded(self, status: int) -> None:
        """An HTTP answer was given; called on the event loop."""
        self._host[HOST_RESPONSES + status // 100] += 1.0

    def sample(self) -> None:
        """Write down connections and process figures. A scrape does it; each of several workers does now and then."""
        for report in self.before_sample:
            report()
        self._process_sample()
        if self.connections is None:
            return
        counts = self.connections()
        for place, state in enumerate(CONNECTION_STATES):
            self._host[HOST_CONNECTIONS + place] = counts.now.get(state, 0)
        for place, state in enumerate(CONNECTION_EVENTS):
            self._host[HOST_CONNECTIONS_TOTAL + place] = self._connections_before[place] + counts.total.get(state, 0)

    def _process_sample(self) -> None:
        for place, (name, value) in enumerate(self.process.read().items()):
            self._process[place] = value + (self._process_before[place] if name in COUNTERS else 0.0)

    def _stall(self, function: str) -> Block:
        block = self._stalls.get(function)
        if block is None:
            block = self._stalls[function] = self.cells.allocate(f"stall\0{function}", STALL_COLUMNS)
        return block
