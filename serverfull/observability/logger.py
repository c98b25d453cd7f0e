"""The host's own log: structured records, as console lines on a terminal and as JSON lines otherwise.

`HostLogger` is made once by the host, right at the start and before anything replaces ``sys.stdout``; every room gets
it handed down. structlog is imported when the first record is written, and its global configuration is never touched,
because handlers in the same process may have their own. Records may be written from any thread.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import IO, Any, Literal

from serverfull.config import LoggingSettings

LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40}

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
_CONTROL.update({0x0D: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"})
_ONE_LINE = {**_CONTROL, 0x0A: "\\n", 0x09: "\\t"}

Record = MutableMapping[str, Any]
Write = Callable[[str], object]


class HostLogger:
    """Writes the host's records. No method ever raises because of where the log goes; such records are counted.

    :param settings: level, output and format.
    :param color: colours on a terminal; False with ``NO_COLOR``.
    :param stream: where to write, instead of what ``settings.output`` says.
    """

    def __init__(self, settings: LoggingSettings, *, color: bool = True, stream: IO[str] | None = None) -> None:
        self._threshold = LEVELS[settings.level]
        self._output = _Output(stream if stream is not None else _stream(settings.output))
        self._console = settings.format == "console" or (settings.format == "auto" and self._output.is_terminal)
        self._color = color and self._console and self._output.is_terminal
        self._context: dict[str, Any] = {}
        self._records = _LazyRecords(self._console, self._color, self._output)
        self._bind_levels()

    def _bind_levels(self) -> None:
        """Put a function that does nothing in place of each disabled level: such a call costs next to nothing."""
        for level in ("debug", "info", "warning", "error"):
            if LEVELS[level.upper()] < self._threshold or self._output.stream is None:
                setattr(self, level, _nothing)

    def bind(self, **fields: Any) -> HostLogger:
        """Give a logger that adds these fields to each of its records."""
        bound = object.__new__(HostLogger)
        bound.__dict__.update(self.__dict__)
        bound._context = {**self._context, **fields}
        return bound

    def debug(self, event: str, **fields: Any) -> None:
        """Write a record for whoever looks for a fault in the host."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write a record of what happens in a healthy host."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a record of what somebody should look at, some time."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write a record of what failed."""
        self._write("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Write an error with the traceback of the exception that is being handled."""
        if self._output.stream is not None:
            self._write("error", event, {"exc_info": sys.exc_info(), **fields})

    @property
    def dropped(self) -> int:
        """How many records could not be written."""
        return self._output.dropped

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self._records.write(level, event, {**self._context, **fields})


def _nothing(event: str, **fields: Any) -> None:
    """What a disabled level does."""


def _stream(output: Literal["STDOUT", "STDERR", "NULL"]) -> IO[str] | None:
    return {"STDOUT": sys.stdout, "STDERR": sys.stderr, "NULL": None}[output]


class _Output:
    """A stream that takes whole lines in one write, and drops what it cannot take.

    Where the stream has a file descriptor the lines go straight to it: nothing is left in a buffer when the process is
    killed, and lines of several worker processes do not mix.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self.stream = stream
        self.dropped = 0
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self.is_terminal = False
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stream is not None:
                self._descriptor = stream.fileno()
                self.is_terminal = stream.isatty()

    def write(self, line: str) -> None:
        try:
            data = (line + "\n").encode("utf-8", "backslashreplace")
            with self._lock:
                if self._descriptor is None:
                    assert self.stream is not None
                    self.stream.write(data.decode())
                else:
                    self._write_all(self._descriptor, data)
        except (OSError, ValueError, io.UnsupportedOperation):  # closed pipe, full disk, closed file
            self.dropped += 1

    @staticmethod
    def _write_all(descriptor: int, data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]


class _LazyRecords:
    """Makes lines out of records with a processor chain of structlog's that is built at the first record."""

    def __init__(self, console: bool, color: bool, output: _Output) -> None:
        self._console = console
        self._color = color
        self._output = output
        self._logger: Any = None
        self._lock = threading.Lock()

    def write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Write one record. What a field's own ``__repr__`` does wrong costs that record only."""
        try:
            if self._logger is None:
                with self._lock:
                    self._build()
            self._logger.write(level, event, fields)
        except Exception as error:  # a boundary: no log record may hurt whoever wrote it
            self._output.dropped += 1
            with contextlib.suppress(Exception):
                self._output.write(json.dumps({"level": level, "event": str(event), "log_error": type(error).__name__}))

    def _build(self) -> None:
        from serverfull.observability.rendering import RecordLogger

        if self._logger is None:
            self._logger = RecordLogger(self._output.write, console=self._console, color=self._color)


def escape(text: str) -> str:
    """Make control characters visible, so that what is logged cannot steer a terminal; newlines and tabs stay."""
    return text.translate(_CONTROL)


def escape_line(text: str) -> str:
    """Make all control characters visible, newlines too, so that what is logged cannot pass for another line."""
    return text.translate(_ONE_LINE)
