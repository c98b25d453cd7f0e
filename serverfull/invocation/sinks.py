"""Where the functions' log goes: sinks that write in batches, each on a thread of its own, so that no call waits.

`StreamSink` is the host's own output. `serverfull.invocation.files` and `serverfull.invocation.cloudwatch` have the
others. Where there are several, a `FanOutSink` gives each record to all, and none of them waits for another.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import os
import re
import select
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring
from queue import SimpleQueue
from typing import Any

from serverfull.interfaces import LogRecord, LogSink
from serverfull.invocation.recent import RecentLog

_GATHER = 0.02
"""Seconds that the writer lets records gather, so that many share one system call."""


_BATCH = 1_000_000
"""Characters after which gathered records are written, although more wait."""


_TELL_AGAIN = 60.0
"""Seconds after which the host's log says again that records were dropped, where more were."""


class NullSink(LogSink):
    """Keeps nothing."""

    def write(self, record: LogRecord) -> None:
        """Drop the record."""


class FanOutSink(LogSink):
    """Gives each record to several sinks."""

    def __init__(self, sinks: Sequence[LogSink]) -> None:
        self._sinks = tuple(sinks)

    def write(self, record: LogRecord) -> None:
        """Give the record to all."""
        for sink in self._sinks:
            sink.write(record)


def to_all(sinks: Iterable[LogSink]) -> LogSink:
    """Give one sink for any number of them."""
    several = tuple(sinks)
    if not several:
        return NullSink()
    return FanOutSink(several) if len(several) > 1 else several[0]


class BatchSink(LogSink):
    """Takes records from any thread, and writes them in batches on one of its own; how is up to who inherits.

    The `write` side only appends. What is slow or gone makes records pile up to ``backlog`` and then be dropped and
    counted: a call never waits for its log. The host's own log says so when the place takes records again.

    :param thread: the name of the thread.
    :param logger: the host's own log.
    :param backlog: records waiting at most.
    :param most_waiting: characters in records waiting at most.
    :param gather: seconds that records gather before they are written.
    :param batch: records written at once, at most.
    :ivar dropped: how many records were lost so far.
    """

    def __init__(
        self, thread: str, logger: Any, *, backlog: int, most_waiting: int, gather: float = _GATHER, batch: int = 1_000
    ) -> None:
        self._logger = logger
        self._backlog = backlog
        self._most_waiting = most_waiting
        self._gather = gather
        self._batch = batch
        self._taken = 0  # characters so far, as the next: two counters, because they are changed by different threads
        self._written = 0
        self._records: deque[LogRecord] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()  # not a semaphore: a writing thread may be stopped inside one
        self._waking = False
        self._refused = 0
        self._lost = 0
        self._told = 0  # of those refused
        self._tell_at = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name=thread, daemon=True)

    @abstractmethod
    def _write_batch(self, batch: list[LogRecord]) -> int:
        """Write records, on the sink's own thread; gives how many were lost. It must not raise."""

    @property
    def dropped(self) -> int:
        """How many records were lost so far."""
        return self._refused + self._lost  # two counters here as well

    def start(self) -> None:
        """Start the thread that writes."""
        contextvars.Context().run(self._thread.start)

    def write(self, record: LogRecord) -> None:
        """Take a record; it is written soon."""
        length = len(record.text)
        if len(self._records) >= self._backlog or self._taken + length - self._written > self._most_waiting:
            self._refused += 1
            return
        self._taken += length
        self._records.append(record)
        if not self._waking:
            self._waking = True
            self._wake.put(None)

    def end(self) -> None:
        """Let the thread write what is there and end. Ending twice is fine."""
        self._ending.set()
        self._wake.put(None)

    def close(self, within: float = 5.0) -> None:
        """End, and wait for that.

        :param within: seconds at most.
        """
        self.end()
        if self._thread.is_alive():
            self._thread.join(timeout=within)
        if self._refused > self._told:
            self._tell()

    def _write_all(self) -> None:
        while not self._ending.is_set():
            self._wake.get()
            self._waking = False  # before the look, so that a record added after it wakes the thread again
            self._flush()
            self._ending.wait(self._gather)  # after it: under load the thread wakes once for each batch, and not twice
        self._flush()  # what came between the last look and the end

    async def written(self, within: float) -> None:
        """Wait until what was taken so far is written.

        :param within: seconds at most; a reader of the stream that does not read makes it last.
        """
        taken, deadline = self._taken, time.monotonic() + within
        while self._written < taken and time.monotonic() < deadline:  # noqa: ASYNC110 (the writer has no time for it)
            await asyncio.sleep(_GATHER / 4)

    def _flush(self) -> None:
        records = self._records
        while records:
            batch: list[LogRecord] = []
            length = 0
            while records and len(batch) < self._batch and length < _BATCH:
                record = records.popleft()
                length += len(record.text)
                batch.append(record)
            self._lost += self._write_batch(batch)
            self._written += length
            if self._refused > self._told and time.monotonic() >= self._tell_at:
                self._tell()

    def _tell(self) -> None:
        """Say what was refused since the last time; not where it is, because that may be a handler's thread."""
        refused = self._refused
        self._logger.warning(
            "log of functions was dropped",
            records=refused - self._told,
            reason="more came than was taken",
            thread=self._thread.name,
        )
        self._told = refused
        self._tell_at = time.monotonic() + _TELL_AGAIN


class StreamSink(BatchSink):
    """Writes records to a file descriptor.

    What cannot be written, because the reader is gone or the disk full, is dropped and counted, and said in the host's
    log once, until it works again.

    :param descriptor: an open file descriptor, such as 1; it is not closed.
    :param render: a record's bytes.
    :param logger: the host's own log.
    :param backlog: records waiting at most.
    :param most_waiting: characters in records waiting at most.
    :param recent: keeps what was written last, as JSON.
    """

    def __init__(
        self,
        descriptor: int,
        render: Callable[[LogRecord], str],
        logger: Any,
        backlog: int = 100_000,
        most_waiting: int = 64 * 1024 * 1024,
        recent: RecentLog | None = None,
    ) -> None:
        super().__init__("serverfull-log", logger, backlog=backlog, most_waiting=most_waiting)
        self._descriptor = descriptor
        self._failing = False
        self._render = render
        self._recent = recent
        self._as_json = render if isinstance(render, JsonLines) else JsonLines()

    def _write_batch(self, batch: list[LogRecord]) -> int:
        text = "".join(map(self._render, batch))
        if self._recent is not None:
            self._recent.add(text if self._render is self._as_json else "".join(map(self._as_json, batch)))
        return 0 if self._put(text) else len(batch)

    def _put(self, text: str) -> bool:
        data = text.encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[self._write_some(data) :]
        except OSError as error:  # a closed pipe or a full disk must not end the host
            if not self._failing:
                self._failing = True
                self._logger.error("log of functions cannot be written", reason=str(error))
            return False
        self._failing = False
        return True

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # who shares the pipe or terminal may have made it so
            room = select.poll()
            room.register(self._descriptor, select.POLLOUT)
            room.poll()
            return 0


CONTROL = {code: f"\\x{code:02x}" for code in [*range(32), 127, *range(128, 160)] if code not in (9, 10)}
"""Turns control characters into text, for ``str.translate``; only tabs and newlines stay."""


_INNER_RETURN = re.compile(r"\r(?!\n)")


def with_newlines(text: str) -> str:
    """Give text with the newlines that it has on AWS.

    Runtime clients write carriage returns in their place, so that what is to be one event, such as an error with its
    traceback, is one line where lines are told apart.
    """
    return _INNER_RETURN.sub("\n", text) if "\r" in text else text


def lines_for_people(text: str) -> list[str]:
    """Give the lines of a text, with control characters escaped."""
    return with_newlines(text).replace("\r\n", "\n").translate(CONTROL).removesuffix("\n").split("\n")


def as_console(record: LogRecord) -> str:
    """Show a record for people: each line behind the function's name.

    What the function wrote stands behind a bar, what the host says about it behind a colon.
    """
    prefix = f"{record.function} {'|' if record.kind == 'function' else ':'} "
    return "".join(f"{prefix}{line}\n" for line in lines_for_people(record.text))


class JsonLines:
    """Shows records for machines: one JSON object on a line for each, so that no text can pass for another record's.

    Used by one thread; it keeps the text of the current second, because formatting a time costs as much as the rest.
    """

    def __init__(self) -> None:
        self._second = -1
        self._stamp = ""
        self._quote = _quoting()

    def __call__(self, record: LogRecord) -> str:
        """Give a record's line."""
        at = record.at
        second = int(at)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        message = self._quote(record.text.removesuffix("\n"))
        place = record.partition
        where = "" if place is None else f'"account":"{place.account}","region":"{place.region}",'
        return (
            f'{{"time":"{self._stamp}.{int((at - second) * 1000):03d}Z","type":"{record.kind}",{where}'
            f'"function":"{record.function}","requestId":"{record.request_id}","message":{message}}}\n'
        )


def _quoting() -> Callable[[str], str]:
    """Choose what makes a JSON string of a text: orjson where it is installed, which takes a tenth of the time."""
    try:
        dumps = importlib.import_module("orjson").dumps
    except ImportError:
        return encode_basestring

    def quote(text: str) -> str:
        try:
            return dumps(text).decode()  # type: ignore[no-any-return]
        except TypeError:  # lone surrogates
            return encode_basestring(text)

    return quote
