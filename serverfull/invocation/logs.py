"""The log of one invocation: what its handler wrote, between AWS's START, END and REPORT lines.

An `InvocationLog` takes text from any thread, gives whole lines to the host's `LogSink` as they come, and keeps the
last 4 KB where the caller asked for them. START is written with the first line, or with REPORT where the handler
wrote none, so that a silent invocation costs one record; what code writes while it is loaded comes before. Where the
log is JSON, what is below the function's levels is left out before it is counted as anything.

Formats: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html (text) and
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html (JSON).
"""

from __future__ import annotations

import resource
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from serverfull.domain.limits import LOG_TAIL_BYTES
from serverfull.domain.log_levels import RANKS
from serverfull.interfaces import LogRecord
from serverfull.invocation import platform_lines
from serverfull.invocation.levels import kept
from serverfull.invocation.sinks import with_newlines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serverfull.interfaces import FunctionIdentity, LogSink

_TURN_WAIT = 0.02
"""Seconds that the end of an invocation waits for a thread that is just passing text on."""

_LONGEST_LINE = 65_536
"""Characters without a newline that are held back before they are passed on as they are."""


class InvocationLog:
    """Collects one invocation's log. `write` may be called from any thread, the rest on the loop.

    No write waits for another: a thread that times out may be stopped at any point, also here, and must leave nothing
    locked that the host needs. Text is put on a deque; whoever gets the turn passes it on for all.

    :param budget: characters that the handler may write; what is over is dropped, and said before END.
    :param tail: whether to keep the last 4 KB.
    :ivar log_stream: the stream that its records name; an environment may change it before anything is written.
    """

    __slots__ = (
        "_budget",
        "_dropped",
        "_early_ms",
        "_identity",
        "_least",
        "_loading",
        "_partial",
        "_phase",
        "_request_id",
        "_restore_ms",
        "_shared",
        "_sink",
        "_started",
        "_tail",
        "log_stream",
    )

    def __init__(self, identity: FunctionIdentity, request_id: str, sink: LogSink, budget: int, *, tail: bool) -> None:
        self._identity = identity
        self._request_id = request_id
        self._sink = sink
        self._budget = budget
        self._dropped = 0
        self._partial = ""
        self._loading = ""  # how, while code is loaded
        self._phase = "init"
        self._restore_ms: tuple[float, float] | None = None
        self._shared: list[tuple[threading.Lock, deque[str]]] = []  # made by the first write, most calls have none
        self._tail: str | None = "" if tail else None
        self._started = time.time()
        self._least = 0 if identity.application_log_level is None else RANKS[identity.application_log_level]
        self.log_stream = identity.log_stream

    def initialising(self, how: str, at: float, runtime: str = "") -> None:
        """Begin with what code writes while it is loaded; START comes behind that.

        :param how: ``on-demand``, ``provisioned-concurrency`` or ``snap-start``.
        :param at: when that began, in seconds since the epoch.
        :param runtime: of code that is loaded for a snapshot.
        """
        self._loading = how
        self._pass_on("platform", platform_lines.init_start(self._identity, how, self._phase, at, runtime))

    def initialised(self, seconds: float, status: str, error_type: str = "") -> None:
        """End with what code writes while it is loaded.

        :param seconds: how long that took.
        :param status: ``success``, ``error`` or ``timeout``.
        :param error_type: of an error.
        """
        if self._shared:
            self._finish_lines(*self._shared[0])
        text = platform_lines.init_end(
            self._identity, self._loading, self._phase, ms=seconds * 1000.0, status=status, error_type=error_type
        )
        self._pass_on("platform", text)
        self._early_ms = seconds * 1000.0 if self._loading != platform_lines.ON_DEMAND else None
        self._loading, self._phase = "", "invoke" if self._phase == "init" else "over"
        self._started = time.time()

    def extension(self, name: str, state: str, events: Sequence[str], error_type: str) -> None:
        """Say how the initialisation of an extension went."""
        self._pass_on("platform", platform_lines.extension(self._identity, name, state, events, error_type))

    def subscribed(self, api: str, name: str, types: Sequence[str]) -> None:
        """Say that an extension has subscribed to telemetry."""
        self._pass_on("platform", platform_lines.subscription(self._identity, api, name, types))

    def timed_out(self) -> None:
        """Say that extensions were not done in time; END and REPORT have been written."""
        self._pass_on("platform", platform_lines.timed_out(self._identity, self._request_id))

    def restoring(self, at: float, runtime: str) -> None:
        """Begin with what code writes while its environment is made of a snapshot; START comes behind that.

        :param at: when that began, in seconds since the epoch.
        :param runtime: such as ``python3.12``.
        """
        self._loading = "restore"
        self._pass_on("platform", platform_lines.restore_start(self._identity, runtime, at))

    def restored(self, seconds: float, billed: float, status: str, error_type: str = "") -> None:
        """End with what code writes while its environment is made of a snapshot.

        :param seconds: how long that took.
        :param billed: seconds of these in which the function's own code could run.
        :param status: ``success``, ``error`` or ``timeout``.
        :param error_type: of an error.
        """
        if self._shared:
            self._finish_lines(*self._shared[0])
        ms = seconds * 1000.0
        text = platform_lines.restore_end(self._identity, ms=ms, status=status, error_type=error_type)
        self._pass_on("platform", text)
        self._restore_ms = ms, billed * 1000.0
        self._loading = ""
        self._started = time.time()

    def write(self, text: str) -> None:
        """Take text of the handler; complete lines go to the sink at once."""
        room = self._budget
        if len(text) > room:
            self._dropped += len(text) - room
            text = text[:room]
        self._budget = room - len(text)
        shared = self._shared
        if not shared:
            shared.append((threading.Lock(), deque()))  # two threads may both do so; the first entry is everybody's
        turn, parts = shared[0]
        parts.append(text)
        while parts and turn.acquire(blocking=False):
            try:
                self._pass_on_lines(parts)
            finally:
                turn.release()

    def _pass_on_lines(self, parts: deque[str]) -> None:
        text = self._partial
        while parts:
            text += parts.popleft()
        lines, newline, rest = text.rpartition("\n")
        if not newline and len(rest) > _LONGEST_LINE:
            lines, rest = rest, ""
        self._partial = rest
        if lines or newline:
            self._emit_lines(lines + "\n")

    def _emit_lines(self, text: str) -> None:
        if self._least:
            text = kept(text, self._least)
            if not text:
                return
        self._emit("function", text)

    def _emit(self, kind: str, text: str) -> None:
        if self._started and not self._loading and self._request_id:  # else it is of no invocation
            start, self._started = self._start_line(self._started), 0.0
            self._pass_on("platform", start)
        self._pass_on(kind, text)

    def _pass_on(self, kind: str, text: str) -> None:
        if not text:
            return
        identity = self._identity
        record = LogRecord(
            identity.name,
            self._request_id,
            kind,
            text,
            time.time(),
            identity.log_group,
            self.log_stream,
            identity.partition,
        )
        self._sink.write(record)
        if self._tail is not None:
            self._tail = (self._tail + text)[-LOG_TAIL_BYTES:]

    def finish(
        self,
        duration: float,
        status: str,
        trace_id: str | None,
        memory_mb: int,
        init_seconds: float | None = None,
        ended_by: str = "",
    ) -> bytes | None:
        """Write END and REPORT.

        :param duration: seconds that the handler took.
        :param status: ``success``, ``error`` or ``timeout``.
        :param memory_mb: what REPORT gives as the most memory used.
        :param init_seconds: how long the environment was initialised before, for this call; None: not at all. It is not
            told where that was in vain and the code was loaded once more, in the time of the handler: INIT_REPORT does.
        :param ended_by: the error that ended the environment, if one did.
        :return: the last 4 KB of the log, or None where nobody asked.
        """
        if self._shared:
            self._finish_lines(*self._shared[0])
        started, self._started = self._started, 0.0
        text = platform_lines.end(
            self._identity,
            self._request_id,
            ms=duration * 1000.0,
            status=status,
            memory_mb=memory_mb,
            init_ms=None if init_seconds is None or self._phase == "over" else init_seconds * 1000.0,
            early_ms=None if self._phase == "init" else self._early_ms,
            restore_ms=self._restore_ms,
            trace_id=trace_id,
            ended_by=ended_by,
        )
        self._pass_on("platform", self._start_line(started) + text if started else text)
        tail, self._tail = self._tail, None
        return None if tail is None else _last_bytes(tail)

    def _finish_lines(self, turn: threading.Lock, parts: deque[str]) -> None:
        mine = turn.acquire(timeout=_TURN_WAIT)  # not for ever: its holder may have been stopped
        try:
            self._pass_on_lines(parts)
            if self._partial:
                self._emit_lines(self._partial + "\n")
                self._partial = ""
            if self._dropped:
                self._emit("platform", f"[{self._dropped} more characters of this invocation's log were dropped]\n")
        finally:
            if mine:
                turn.release()

    @property
    def dropped(self) -> int:
        """Characters that were over the budget."""
        return self._dropped

    def _start_line(self, at: float) -> str:
        return platform_lines.start(self._identity, self._request_id, at)


def _last_bytes(text: str) -> bytes:
    """Give the last 4 KB as UTF-8, from the first whole character on."""
    encoded = with_newlines(text).encode("utf-8", "replace")
    if len(encoded) <= LOG_TAIL_BYTES:
        return encoded
    return encoded[-LOG_TAIL_BYTES:].decode("utf-8", "ignore").encode()


class MemoryFigure:
    """The most memory that the host's process had resident so far: in process there is no figure per function.

    Asked for at each call, looked up once a second (5 µs).
    """

    __slots__ = ("_mb", "_until")

    def __init__(self) -> None:
        self._mb = 0
        self._until = 0.0

    def mb(self, now: float) -> int:
        """Give megabytes.

        :param now: seconds on any clock that goes on.
        """
        if now >= self._until:
            self._until = now + 1.0
            self._mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return self._mb
