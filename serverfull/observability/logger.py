"""Structured records: of the host's own log (`HostLogger`) and of handlers (`InvocationLogger`).

`HostLogger` is made once by the host, right at the start and before anything replaces ``sys.stdout``; every room gets
it handed down. It writes console lines on a terminal and JSON lines otherwise. structlog is imported for the first
record, by a thread where that would hold up an event loop, and its global configuration is never touched, because
handlers in the same process may have their own. Records may be written from any thread.

`InvocationLogger` is what ``serverfull.logger()`` gives. It has the methods of structlog's loggers and is not made of
them: a private structlog chain with the same output costs twice as much for each line.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import io
import os
import select
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from json import dumps
from typing import IO, Any, Literal

from serverfull.config import LoggingSettings
from serverfull.domain.functions import LogFormat

LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40}

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
_CONTROL.update({0x0D: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"})
_ONE_LINE = {**_CONTROL, 0x0A: "\\n", 0x09: "\\t"}

Record = MutableMapping[str, Any]
Write = Callable[[str], object]
_Render = Callable[[str, str, dict[str, Any]], None]


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

    def flush(self, timeout: float) -> None:
        """Wait until records that wait for an import are written; called before a process ends. Blocks.

        :param timeout: seconds to wait at most.
        """
        self._records.flush(timeout)

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


_READER_PATIENCE = 50
"""Milliseconds that a line waits for the reader of a full pipe, before it and those after it are dropped."""


class _Output:
    """A stream that takes whole lines in one write, and drops what it cannot take.

    Where the stream has a file descriptor the lines go straight to it: nothing is left in a buffer when the process is
    killed, and lines of several worker processes do not mix. Nobody waits long for whoever reads: a pipe that is never
    emptied would hold up the host's loop, and with it every call.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self.stream = stream
        self.dropped = 0
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._patience = _READER_PATIENCE
        self._torn = b""
        self._at_once = sys.maxsize
        self._descriptor: int | None = None
        self.is_terminal = False
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stream is not None:
                self._descriptor = stream.fileno()
                self._poll.register(self._descriptor, select.POLLOUT)
                mode = os.fstat(self._descriptor).st_mode
                if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                    self._at_once = select.PIPE_BUF  # more could block although poll says that there is room
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

    def _write_all(self, descriptor: int, data: bytes) -> None:
        rest = data = self._torn + data
        while rest:
            if not self._poll.poll(self._patience):
                self._patience = 0  # the next line does not wait again
                self._torn = self._torn if rest is data else b"\n"
                raise BlockingIOError
            rest = rest[os.write(descriptor, rest[: self._at_once]) :]
        self._patience, self._torn = _READER_PATIENCE, b""


class _LazyRecords:
    """Makes lines out of records with a processor chain of structlog's that is built for the first record.

    The import for that takes a tenth of a second, more on a busy machine. A loop must not be held up for so long, with
    every call on it; so where a loop runs a thread does it, and the records until then wait for the thread.
    """

    def __init__(self, console: bool, color: bool, output: _Output) -> None:
        self._console = console
        self._color = color
        self._output = output
        self._render: _Render | None = None
        self._lock = threading.RLock()  # a field's own __repr__ may log
        self._waiting: list[tuple[str, str, dict[str, Any]]] = []
        self._building = False
        self._builder: threading.Thread | None = None

    def write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Write one record. What a field's own ``__repr__`` does wrong costs that record only."""
        if self._render is None:
            self._wait(level, event, fields)
        else:
            self._write(self._render, level, event, fields)

    def flush(self, timeout: float) -> None:
        """Wait for the thread that builds and writes what waits, if there is one."""
        if self._builder is not None:
            self._builder.join(timeout)

    def _wait(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Leave a record to whoever builds, which may be the caller itself."""
        with self._lock:
            if self._render is not None:  # just now
                return self._write(self._render, level, event, fields)
            self._waiting.append((level, event, {"timestamp": _now(), **fields}))
            if self._building:
                return None
            self._building = True
        if not _holds_up_a_loop():
            return self._build()
        self._builder = threading.Thread(target=self._build, name="serverfull-log")
        return contextvars.Context().run(self._builder.start)

    def _build(self) -> None:
        render = self._renderer()
        with self._lock:
            for record in self._waiting:  # more of them when one logs
                self._write(render, *record)
            self._waiting.clear()
            self._render = render

    def _renderer(self) -> _Render:
        try:
            from serverfull.observability.rendering import RecordLogger

            return RecordLogger(self._output.write, console=self._console, color=self._color).write
        except Exception as error:  # a boundary: a structlog that is broken costs the text of records, nothing else
            return functools.partial(_fail, error)

    def _write(self, render: _Render, level: str, event: str, fields: dict[str, Any]) -> None:
        try:
            render(level, event, fields)
        except Exception as error:  # a boundary: no log record may hurt whoever wrote it
            self._output.dropped += 1
            with contextlib.suppress(Exception):
                self._output.write(dumps({"level": level, "event": str(event), "log_error": type(error).__name__}))


def _fail(error: Exception, *_: object) -> None:
    raise error


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _holds_up_a_loop() -> bool:
    """Say whether importing what renders records would keep a loop from running for long."""
    if hasattr(sys.modules.get("serverfull.observability.rendering"), "RecordLogger"):
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def escape(text: str) -> str:
    """Make control characters visible, so that what is logged cannot steer a terminal; newlines and tabs stay."""
    return text.translate(_CONTROL)


def escape_line(text: str) -> str:
    """Make all control characters visible, newlines too, so that what is logged cannot pass for another line."""
    return text.translate(_ONE_LINE)


_RESERVED = frozenset({"timestamp", "level", "message", "requestId", "function"})


class InvocationLogger:
    """Writes structured records into the log of one invocation, each as one line in one write.

    The methods are those of structlog's loggers. The line is a JSON object, or with the log format ``Text``
    ``[LEVEL] timestamp request-id event key=value`` parted by tabs, as AWS's own Python logging has it. A field with
    the name of one of ours (``timestamp``, ``level``, ``message``, ``requestId``, ``function``) gets a ``_`` behind it.

    :param write: takes a line with its newline.
    :param request_id: of the invocation; empty outside of any.
    :param function: the function's name; empty outside of any.
    :param log_format: ``Text`` or ``JSON``.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
    """

    __slots__ = ("_context", "_function", "_render", "_request_id", "_write")

    def __init__(
        self,
        write: Write,
        request_id: str = "",
        function: str = "",
        log_format: LogFormat = "JSON",
    ) -> None:
        self._write = write
        self._request_id = request_id
        self._function = function
        self._render = _json_line if log_format == "JSON" else _text_line
        self._context: dict[str, Any] = {}

    def bind(self, **fields: Any) -> InvocationLogger:
        """Give a logger that adds these fields to each of its records."""
        return self._with({**self._context, **fields})

    def new(self, **fields: Any) -> InvocationLogger:
        """Give a logger with these fields and none of those that were bound before."""
        return self._with(fields)

    def unbind(self, *names: str) -> InvocationLogger:
        """Give a logger without these fields.

        :raises KeyError: one of them is not bound.
        """
        for name in names:
            self._context[name]
        return self.try_unbind(*names)

    def try_unbind(self, *names: str) -> InvocationLogger:
        """Give a logger without these fields, whether or not they are bound."""
        return self._with({name: value for name, value in self._context.items() if name not in names})

    def _with(self, context: dict[str, Any]) -> InvocationLogger:
        logger = object.__new__(type(self))
        logger._write, logger._request_id, logger._function = self._write, self._request_id, self._function
        logger._render, logger._context = self._render, context
        return logger

    def debug(self, event: object, *args: object, **fields: Any) -> None:
        """Write a record; ``args`` are put into ``event`` with ``%``, as in structlog."""
        self._log("DEBUG", event, args, fields)

    def info(self, event: object, *args: object, **fields: Any) -> None:
        """Write a record; see `debug`."""
        self._log("INFO", event, args, fields)

    def warning(self, event: object, *args: object, **fields: Any) -> None:
        """Write a record; see `debug`."""
        self._log("WARNING", event, args, fields)

    warn = warning

    def error(self, event: object, *args: object, **fields: Any) -> None:
        """Write a record; see `debug`."""
        self._log("ERROR", event, args, fields)

    def critical(self, event: object, *args: object, **fields: Any) -> None:
        """Write a record; see `debug`."""
        self._log("CRITICAL", event, args, fields)

    fatal = critical

    def exception(self, event: object, *args: object, **fields: Any) -> None:
        """Write an error with the exception that is being handled."""
        self._log("ERROR", event, args, {"exc_info": True, **fields})

    def _log(self, level: str, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        message = event if isinstance(event, str) else str(event)
        if args:
            message %= args
        if self._context:
            fields = {**self._context, **fields}
        error = _exception_of(fields.pop("exc_info", None)) if "exc_info" in fields else None
        if not _RESERVED.isdisjoint(fields):
            fields = {f"{name}_" if name in _RESERVED else name: value for name, value in fields.items()}
        now = time.time()
        stamp = f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z"
        self._write(self._render(stamp, level, message, self._request_id, self._function, fields, error))


@functools.lru_cache(maxsize=2)
def _second(second: int) -> str:
    """Write a time to the second; remembered, because most lines share it with the one before (1 µs each)."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _exception_of(exc_info: object) -> BaseException | None:
    """Find the exception in what callers of logging APIs pass as ``exc_info``."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if len(exc_info) > 1 and isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _json_line(
    stamp: str,
    level: str,
    message: str,
    request_id: str,
    function: str,
    fields: dict[str, Any],
    error: BaseException | None,
) -> str:
    record: dict[str, Any] = {"timestamp": stamp, "level": level, "message": message}
    if request_id:
        record["requestId"] = request_id
        record["function"] = function
    if fields:
        record.update(fields)
    if error is not None:
        record["errorType"] = type(error).__name__
        record["errorMessage"] = str(error)
        record["stackTrace"] = traceback.format_exception(error)
    return json_text(record) + "\n"


def _text_line(
    stamp: str,
    level: str,
    message: str,
    request_id: str,
    _function: str,
    fields: dict[str, Any],
    error: BaseException | None,
) -> str:
    line = f"[{level}]\t{stamp}\t{request_id}\t{escape_line(message)}"
    if fields:
        line += "".join([f" {name}={_text_value(value)}" for name, value in fields.items()])
    if error is not None:
        line += "\n" + escape("".join(traceback.format_exception(error))).rstrip("\n")
    return line + "\n"


def _text_value(value: object) -> str:
    if not isinstance(value, str):
        return escape_line(repr(value))
    if value.isalnum():
        return value
    plain = value and not any(character in value for character in ' ="')
    return escape_line(value) if plain else dumps(value, ensure_ascii=False)


def json_text(record: Record) -> str:
    """Give a record as JSON in one line; values that JSON does not know appear as their ``repr``."""
    return _encoder()(record)


@functools.cache
def _encoder() -> Callable[[Record], str]:
    try:
        import orjson
    except ImportError:
        return _slow_json
    dumps, options = orjson.dumps, orjson.OPT_NON_STR_KEYS

    def fast_json(record: Record) -> str:
        try:
            return dumps(record, default=repr, option=options).decode()
        except TypeError:  # an integer over 64 bits, half a surrogate pair
            return _slow_json(record)

    return fast_json


def _slow_json(record: Record) -> str:
    return dumps(record, default=repr, separators=(",", ":"), skipkeys=True)
