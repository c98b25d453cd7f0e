"""Sends the figures to a Datadog agent, or to whatever else speaks DogStatsD over UDP.

Entered by the host where ``stats.output`` is ``DATADOG``; one task on the server's loop gathers and sends. Nothing
waits for the agent: a datagram that cannot be sent is dropped and counted. Where the agent's name means no address, the
host's log says so once. Each worker process sends what it counted itself, so counts add up in the agent; gauges of
several workers carry the tag ``worker``.

The protocol: https://docs.datadoghq.com/developers/dogstatsd/datagram_shell/
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

from serverfull.config import ConnstateSettings, ExpvarSettings, Settings
from serverfull.observability import metrics as columns
from serverfull.observability.metrics import Metrics, Samples
from serverfull.observability.user_metrics import SeriesId, UserMetrics

MetricType: TypeAlias = Literal["c", "g", "h", "ms"]

MAX_DATAGRAM = 65_507
"""Bytes that fit into one UDP datagram over IPv4."""

RESOLVE_TIMEOUT = 2.0
"""Seconds that a flush waits for the agent's address."""

_IN_NAME = re.compile(r"[:|@#,\s]")
_IN_TAG = re.compile(r"[|,\s]")

_FUNCTION_COUNTS = {
    "serverfull.errors": columns.ERRORS,
    "serverfull.timeouts": columns.TIMEOUTS,
    "serverfull.lost_threads_total": columns.LOST_TOTAL,
    "serverfull.async_events_received": columns.ASYNC_RECEIVED,
    "serverfull.async_events_dropped": columns.ASYNC_DROPPED,
    "serverfull.dead_letter_errors": columns.DEAD_LETTER_ERRORS,
    "serverfull.destination_delivery_failures": columns.DESTINATION_FAILURES,
    "serverfull.recursive_invocations_dropped": columns.RECURSIONS_STOPPED,
    "serverfull.provisioned_concurrency_invocations": columns.PROVISIONED_TOTAL,
    "serverfull.provisioned_concurrency_spillover_invocations": columns.SPILLOVER_TOTAL,
    "serverfull.log_bytes_dropped": columns.LOG_BYTES_DROPPED,
}
_FUNCTION_GAUGES = {
    "serverfull.concurrent_executions": columns.CONCURRENT,
    "serverfull.lost_threads": columns.LOST,
    "serverfull.provisioned_concurrent_executions": columns.PROVISIONED,
    "serverfull.provisioned_environments": columns.PROVISIONED_READY,
}


class GarbagePauses:
    """Measures garbage collections while it is started, for the figures that Go calls pauses."""

    def __init__(self) -> None:
        self.last_ns = 0
        self.total_ns = 0
        self._began = 0

    def start(self) -> None:
        """Begin to measure."""
        gc.callbacks.append(self._heard)

    def stop(self) -> None:
        """Stop measuring. Stopping twice is fine."""
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._heard)

    def _heard(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter_ns()
        elif self._began:
            self.last_ns = time.perf_counter_ns() - self._began
            self.total_ns += self.last_ns


class StatsdOutput:
    """Sends all figures of this process. Use it as an async context manager; leaving it sends what is left.

    :param settings: the groups ``stats``, ``connstate`` and ``expvar``.
    :param metrics: the host's figures.
    :param user_metrics: the handlers' own figures.
    :param logger: hears of what fails on our side; a structlog one fits.
    """

    def __init__(self, settings: Settings, metrics: Metrics, user_metrics: UserMetrics, logger: Any) -> None:
        self.dropped = 0
        """Datagrams that could not be sent."""
        self._logger = logger
        self._stats = settings.stats
        self._metrics = metrics
        self._user_metrics = user_metrics
        self._figures = _Figures(settings, metrics, user_metrics)
        self._address: tuple[int, Any] | None = None
        self._said_so = False
        self._sockets: dict[int, socket.socket] = {}
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> StatsdOutput:
        self._metrics.keep_samples()
        self._user_metrics.keep_samples()
        self._figures.pauses.start()
        self._task = asyncio.create_task(self._run(), name="serverfull-statsd")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._figures.pauses.stop()
        await self.flush()
        for open_socket in self._sockets.values():
            open_socket.close()
        self._sockets.clear()

    async def flush(self) -> None:
        """Send everything that was counted since the last time."""
        await self._resolve()
        self._figures.report_connections()
        self._figures.report_process()
        for packet in packets(self._figures.take(), min(self._stats.datadog_packetsize, MAX_DATAGRAM)):
            self._send(packet)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._stats.datadog_flushinterval)
            try:
                await self.flush()
            except Exception:  # the task's boundary: the next flush may do better
                self._logger.exception("statsd flush failed")

    async def _resolve(self) -> None:
        """Look up the agent again each time, because it may move; while that fails the last known address is used."""
        host, _, port = self._stats.datadog_address.rpartition(":")
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host.strip("[]") or "localhost", int(port), type=socket.SOCK_DGRAM
                )
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            if self._address is None and not self._said_so:
                self._said_so = True
                reason = str(error) or f"nobody said what it means within {RESOLVE_TIMEOUT:g} s"
                self._logger.warning("statsd agent not found", address=self._stats.datadog_address, reason=reason)
            return
        # Agents listen on IPv4, and "localhost" often means ::1 first.
        family, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        self._address = (family, address)

    def _send(self, packet: bytes) -> None:
        if self._address is None:
            self.dropped += 1
            return
        family, address = self._address
        try:
            if family not in self._sockets:
                self._sockets[family] = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._sockets[family].sendto(packet, address)
        except OSError:  # a full buffer, no route, too large for the way there
            self.dropped += 1


class _Figures:
    """Turns cells into DogStatsD lines: what has been added since the last time, and what is now."""

    def __init__(self, settings: Settings, metrics: Metrics, user_metrics: UserMetrics) -> None:
        self.pauses = GarbagePauses()
        self._connstate = settings.connstate
        self._expvar = settings.expvar
        self._metrics = metrics
        self._cells = metrics.cells
        self._user_metrics = user_metrics
        self._tags = settings.stats.datadog_tags
        self._gauge_tags = (f"worker:{self._cells.row}",) if self._cells.rows > 1 else ()
        self._seen: dict[str, list[float]] = {key: self._now(key) for key in self._cells.keys()}  # noqa: SIM118
        self._gauges: list[str] = []
        self._due = {"connections": 0.0, "process": 0.0}

    def report_connections(self) -> None:
        """Write down the gauges of connections, where a report is due."""
        names: ConnstateSettings = self._connstate
        if not self._is_due("connections", names.reportinterval):
            return
        self._metrics.sample()
        now = self._now("host")[columns.HOST_CONNECTIONS :]
        for place, name in enumerate((names.newgauge, names.activegauge, names.idlegauge)):
            self._gauges.append(self._line(name, now[place], "g", self._gauge_tags))

    def report_process(self) -> None:
        """Write down the process's figures, where a report is due."""
        names: ExpvarSettings = self._expvar
        if not self._is_due("process", names.reportinterval):
            return
        figures = self._metrics.process.read()
        resident = figures["resident_bytes"]
        for name, value in (
            (names.alloc, resident),
            (names.heapalloc, resident),
            (names.heapinuse, resident),
            (names.heapstats, resident),
            (names.heapobject, figures["memory_blocks"]),
            (names.frees, figures["gc_collected"]),
            (names.numgc, figures["gc_collections"]),
            (names.pausens, self.pauses.last_ns),
            (names.pausetotalns, self.pauses.total_ns),
            (names.goroutinesexists, figures["tasks"] + figures["threads"]),
        ):
            self._gauges.append(self._line(name, value, "g", self._gauge_tags))

    def take(self) -> list[str]:
        """Give every line since the last time."""
        lines, self._gauges = self._gauges, []
        self._metrics.sample()
        for key in self._cells.keys():  # noqa: SIM118 - no mapping
            now = self._now(key)
            before = self._seen.get(key) or [0.0] * len(now)
            self._seen[key] = now
            lines.extend(self._lines(key, now, [new - old for new, old in zip(now, before, strict=True)]))
        for function in self._metrics.functions():
            if function.durations is not None and function.durations.seen:
                samples, function.durations = function.durations, Samples()
                lines.extend(self._sampled("serverfull.duration", "ms", samples, [f"function:{function.name}"], 1000.0))
        lines.extend(self._user_samples())
        return lines

    def _lines(self, key: str, now: Sequence[float], added: Sequence[float]) -> Iterator[str]:
        kind, *parts = key.split("\0")
        if kind == "function":
            yield from self._function_lines(f"function:{parts[0]}", now, added)
        elif kind == "throttle":
            yield from self._counted("serverfull.throttles", added[0], f"function:{parts[0]}", f"reason:{parts[1]}")
        elif kind == "stall":
            yield from self._counted("serverfull.loop_stalls", added[0], f"function:{parts[0]}")
            yield from self._counted("serverfull.loop_stall_seconds", added[1], f"function:{parts[0]}")
        elif kind == "log":
            yield from self._counted("serverfull.log_records_dropped", added[0], f"sink:{parts[0]}")
        elif kind == "fetch":
            for result, value in zip(("found", "failed", "not_found"), added, strict=True):
                yield from self._counted("serverfull.fetches", value, f"source:{parts[0]}", f"result:{result}")
        elif kind == "host":
            yield from self._host_lines(added)
        elif kind == "dropped":
            yield from self._counted("serverfull.user_metrics_dropped", added[0])
        elif kind == "user":
            yield from self._user_lines(SeriesId.parse(key), now, added)

    def _function_lines(self, tag: str, now: Sequence[float], added: Sequence[float]) -> Iterator[str]:
        yield from self._counted("serverfull.invocations", sum(added[columns.DURATION : columns.AGE]), tag)
        for name, column in _FUNCTION_COUNTS.items():
            yield from self._counted(name, added[column], tag)
        for name, column in _FUNCTION_GAUGES.items():
            yield self._line(name, now[column], "g", (tag, *self._gauge_tags))

    def _host_lines(self, added: Sequence[float]) -> Iterator[str]:
        names = self._connstate
        counters = (
            names.newcounter,
            names.activecounter,
            names.idlecounter,
            names.hijackedcounter,
            names.closedcounter,
        )
        for place, name in enumerate(counters):
            yield from self._counted(name, added[columns.HOST_CONNECTIONS_TOTAL + place])
        for hundred in range(1, 6):
            yield from self._counted(
                "serverfull.http_responses", added[columns.HOST_RESPONSES + hundred], f"status:{hundred}xx"
            )

    def _user_lines(self, series: SeriesId, now: Sequence[float], added: Sequence[float]) -> Iterator[str]:
        tags = [f"{tag}:{value}" for tag, value in series.tags]
        if series.kind == "count":
            yield from self._counted(series.name, added[0], *tags)
        elif series.kind == "gauge" and now[1]:
            yield self._line(series.name, now[0], "g", (*tags, *self._gauge_tags))

    def _user_samples(self) -> Iterator[str]:
        for series in self._user_metrics.series():
            if series.samples is not None and series.samples.seen:
                tags = [f"{tag}:{value}" for tag, value in series.id.tags]
                samples = self._user_metrics.take_samples(series)
                timing = series.id.kind == "timing"
                yield from self._sampled(
                    series.id.name, "ms" if timing else "h", samples, tags, 1000.0 if timing else 1.0
                )

    def _sampled(
        self, name: str, kind: MetricType, samples: Samples, tags: Iterable[str], factor: float
    ) -> Iterator[str]:
        rate = len(samples.values) / samples.seen
        tags = tuple(tags)
        for value in samples.values:
            yield self._line(name, value * factor, kind, tags, rate)

    def _counted(self, name: str, value: float, *tags: str) -> Iterator[str]:
        if value > 0:
            yield self._line(name, value, "c", tags)

    def _line(self, name: str, value: float, kind: MetricType, tags: Iterable[str], rate: float = 1.0) -> str:
        return line(name, value, kind, (*self._tags, *tags), rate)

    def _now(self, key: str) -> list[float]:
        return self._cells.values(key)[self._cells.row]

    def _is_due(self, what: str, interval: float) -> bool:
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + interval
        return True


def line(name: str, value: float, kind: MetricType, tags: Iterable[str] = (), rate: float = 1.0) -> str:
    """Write one figure as DogStatsD reads it, such as ``orders:1|c|@0.5|#shop:north``.

    :param rate: which part of all values is sent.
    """
    text = f"{_IN_NAME.sub('_', name)}:{value:.15g}|{kind}"
    if rate < 1:
        text += f"|@{rate:.6g}"
    shown = ",".join(_IN_TAG.sub("_", tag) for tag in tags)
    return f"{text}|#{shown}" if shown else text


def packets(lines: Iterable[str], size: int) -> Iterator[bytes]:
    """Put lines together into as few datagrams as hold them.

    :param size: bytes of a datagram at most; a line that is longer goes alone.
    """
    packet = b""
    for each in lines:
        data = each.encode("utf-8", "replace")
        if packet and len(packet) + 1 + len(data) > size:
            yield packet
            packet = b""
        packet = packet + b"\n" + data if packet else data
    if packet:
        yield packet
