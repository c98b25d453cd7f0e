"""Routes what running code prints and logs to the invocation it belongs to.

While at least one host runs in the process, four things of the standard library are replaced, and put back after the
last:

- ``sys.stdout`` and ``sys.stderr``: a write goes to the current invocation's log, else to the real stream. What a
  handler assigns to them (``contextlib.redirect_stdout`` does) counts for its invocation alone and ends with it;
- ``threading.Thread.start`` and ``_thread.start_new_thread``: a thread started by a handler inherits its invocation,
  which Python's context variables alone do not do (before 3.14's opt-in flag);
- ``ThreadPoolExecutor.submit``: work handed to a pool belongs to the invocation that handed it in, not to the one that
  happened to create the pool's thread;
- the root logger gets one handler, as on AWS, that writes in AWS's format.

Not captured: output that bypasses Python's streams (``os.write(1, …)``, C's ``printf``, child processes).
"""

from __future__ import annotations

import _thread
import concurrent.futures
import contextvars
import io
import logging
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Sequence
from json import dumps
from typing import Any

from serverfull.domain.log_levels import RANKS
from serverfull.observability.handles import CURRENT
from serverfull.runtimes.activity import Activity
from serverfull.runtimes.patches import Patch


class RoutedStream:
    """Stands in for a standard stream; everything but writing is the real stream's."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.buffer = RoutedBuffer(real)

    def write(self, text: str) -> int:
        """Write to the current invocation's log, else to the real stream."""
        activity = CURRENT.get()
        if activity.__class__ is not Activity:
            return int(self._real.write(text))
        if text.__class__ is not str:
            text = _plain(text)
        activity.log.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __enter__(self) -> RoutedStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()

    def flush(self) -> None:
        """Flush the real stream when the caller writes there."""
        if CURRENT.get().__class__ is not Activity:
            self._real.flush()

    def close(self) -> None:
        """Refuse to close the host's stream from inside a handler, as nothing could be printed any more."""
        if CURRENT.get().__class__ is not Activity:
            self._real.close()

    def isatty(self) -> bool:
        """Say no inside an invocation: its log is no terminal."""
        return CURRENT.get().__class__ is not Activity and bool(self._real.isatty())


def _plain(text: Any) -> str:
    """Turn an instance of a subclass, which may have a ``__len__`` of its own, into the text that it holds."""
    if not isinstance(text, str):
        raise TypeError(f"write() argument must be str, not {type(text).__name__}")
    return "".join(str.__iter__(text))


class RoutedBuffer(io.RawIOBase):
    """The bytes side of a `RoutedStream`; what is no UTF-8 is shown with replacement characters."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes to the current invocation's log, else to the real stream's buffer."""
        activity = CURRENT.get()
        if activity.__class__ is not Activity:
            return int(self._real.buffer.write(data))
        view = bytes(data)
        activity.log.write(view.decode("utf-8", "replace"))
        return len(view)

    def flush(self) -> None:
        """Flush the real stream when the caller writes there."""
        if CURRENT.get().__class__ is not Activity:
            self._real.flush()

    def close(self) -> None:
        """Leave the real stream open, also when this object is collected after the real one was closed."""


class PrintStream(RoutedStream):
    """What ``print`` finds as a standard stream: what the invocation has assigned to it, else the routed stream.

    It is no part of the routed stream, as what a handler assigns may itself write to the stream that was there before.

    :param name: ``stdout`` or ``stderr``.
    """

    def __init__(self, name: str, routed: RoutedStream) -> None:
        super().__init__(routed._real)
        self.name_in_sys = name
        self.routed = routed

    def write(self, text: str) -> int:
        """Write to what the invocation has assigned, else as the routed stream does."""
        activity = CURRENT.get()
        if activity.__class__ is not Activity:
            return int(self._real.write(text))
        if not activity.streams and text.__class__ is str:  # the usual case, without one call more
            activity.log.write(text)
            return len(text)
        stream = activity.streams.get(self.name_in_sys, self.routed)
        if stream is not None:
            stream.write(text)  # what it gives is left out: streams of users often give None
        return len(text)

    def flush(self) -> None:
        """Flush what the invocation has assigned, else as the routed stream does."""
        activity = CURRENT.get()
        streams = activity.streams if activity.__class__ is Activity else {}
        stream = streams.get(self.name_in_sys, self.routed)
        if stream is not None:
            stream.flush()


def _standard_stream(name: str) -> property:
    """Make ``sys.stdout`` or ``sys.stderr`` as it is read and assigned: inside an invocation it is that one's own."""

    def get(module: types.ModuleType) -> Any:
        activity = CURRENT.get()
        if activity.__class__ is Activity and name in activity.streams:
            return activity.streams[name]
        try:
            stream = module.__dict__[name]
        except KeyError:
            raise AttributeError(f"module 'sys' has no attribute {name!r}") from None
        return stream.routed if stream.__class__ is PrintStream else stream

    def assign(module: types.ModuleType, stream: Any) -> None:
        activity = CURRENT.get()
        if activity.__class__ is Activity:
            activity.streams = {**activity.streams, name: stream}
        else:
            routes = RoutedSys.print_streams
            module.__dict__[name] = routes[name] if stream is routes[name].routed else stream

    def delete(module: types.ModuleType) -> None:
        activity = CURRENT.get()
        if activity.__class__ is Activity:
            activity.streams = {key: stream for key, stream in activity.streams.items() if key != name}
        else:
            del module.__dict__[name]

    return property(get, assign, delete)


class RoutedSys(types.ModuleType):
    """The class that the module ``sys`` has while a host runs; `PrintStream` serves those that go past it."""

    print_streams: dict[str, PrintStream]
    stdout = _standard_stream("stdout")
    stderr = _standard_stream("stderr")

    def __reduce__(self) -> Any:
        return __import__, ("sys",)  # picklers that know modules know them by their plain class


class NoLock:
    """Stands where logging wants a lock, and locks nothing."""

    def acquire(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *exc: object) -> None:
        """Do nothing."""


class InvocationLogHandler(logging.Handler):
    """Writes log records of handlers as AWS's Python runtime does; records of no invocation go to standard error."""

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Do without a lock: the log needs none, and a thread stopped while it holds one would block all logging."""
        self.lock = NoLock()  # type: ignore[assignment] # it has what logging asks of a lock

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record where it belongs."""
        try:
            activity = CURRENT.get()
            if activity.__class__ is not Activity:
                if record.levelno >= logging.WARNING:
                    sys.stderr.write(f"[{record.levelname}]\t{record.name}\t{self._plain(record)}\n")
            elif activity.identity.log_format == "JSON":
                if record.levelno >= RANKS[activity.identity.application_log_level or "TRACE"]:
                    activity.log.write(_json_line(record, activity))
            else:
                activity.log.write(
                    f"[{record.levelname}]\t{_stamp(record.created)}.{int(record.msecs):03d}Z\t"
                    f"{activity.request_id}\t{self._plain(record)}\n"
                )
        except RecursionError:
            raise
        except Exception:  # a broken log call is the handler's bug and must not end its invocation
            self.handleError(record)

    @staticmethod
    def _plain(record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.stack_info:
            text += "\n" + record.stack_info
        return text


_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _json_line(record: logging.LogRecord, activity: Activity) -> str:
    document: dict[str, Any] = {
        "timestamp": _stamp(record.created) + "Z",
        "level": record.levelname,
        "message": record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage(),
        "logger": record.name,
    }
    if record.exc_info and record.exc_info[0] is not None:
        document["stackTrace"] = traceback.format_tb(record.exc_info[2])
        document["errorType"] = record.exc_info[0].__name__
        document["errorMessage"] = str(record.exc_info[1])
        document["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
    document["requestId"] = activity.request_id
    if activity.tenant_id is not None:
        document["tenantId"] = activity.tenant_id
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS and key not in document}
    return dumps({**document, **extra}, ensure_ascii=False, default=str) + "\n"


class CapturePatch(Patch):
    """Installs the routing above, and takes it back."""

    @classmethod
    def _apply(cls) -> Sequence[Callable[[], None]]:
        return [_route_streams(), _route_logging(), _route_threads(), _route_pools()]


def _route_streams() -> Callable[[], None]:
    plain, real = sys.__class__, {"stdout": sys.stdout, "stderr": sys.stderr}
    RoutedSys.print_streams = routes = {name: PrintStream(name, RoutedStream(stream)) for name, stream in real.items()}
    vars(sys).update(routes)
    sys.__class__ = RoutedSys
    rerouted = _replace_handler_streams({id(real[name]): stream.routed for name, stream in routes.items()})

    def undo() -> None:
        sys.__class__ = plain
        for name, stream in routes.items():
            if vars(sys).get(name) is stream:
                setattr(sys, name, real[name])
        for handler, stream in rerouted:
            handler.stream = stream

    return undo


def _replace_handler_streams(routed: dict[int, RoutedStream]) -> list[tuple[Any, Any]]:
    """Reroute logging handlers that took hold of a standard stream before the host started."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    found = []
    for handler in {handler for logger in loggers for handler in getattr(logger, "handlers", ())}:
        stream = getattr(handler, "stream", None)
        if id(stream) in routed:
            found.append((handler, stream))
            handler.stream = routed[id(stream)]
    return found


def _route_logging() -> Callable[[], None]:
    handler = InvocationLogHandler()
    logging.getLogger().addHandler(handler)
    return lambda: logging.getLogger().removeHandler(handler)


def threads_inherit() -> Callable[[], None]:
    """Let threads, and work handed to pools, belong to the invocation that started them; gives what takes that back.

    For a process that runs one function under AWS's own client, which sees to the streams and to logging.
    """
    threads, pools = _route_threads(), _route_pools()

    def undo() -> None:
        pools()
        threads()

    return undo


def _route_threads() -> Callable[[], None]:
    real_start = threading.Thread.start
    real_new_thread = _thread.start_new_thread

    def start(self: threading.Thread) -> None:
        if CURRENT.get() is not None:
            # Not `run`, because what reports an exception of the thread is called after it.
            thread: Any = self
            context, bootstrap = contextvars.copy_context(), thread._bootstrap
            thread._bootstrap = lambda: context.run(bootstrap)
        real_start(self)

    def start_new_thread(function: Any, args: Any, kwargs: Any = {}) -> int:  # noqa: B006 - the real signature
        if CURRENT.get() is None:
            return real_new_thread(function, args, kwargs)
        return real_new_thread(contextvars.copy_context().run, (function, *args), kwargs)

    threading.Thread.start = start  # type: ignore[method-assign]
    _thread.start_new_thread = start_new_thread

    def undo() -> None:
        threading.Thread.start = real_start  # type: ignore[method-assign]
        _thread.start_new_thread = real_new_thread

    return undo


def _route_pools() -> Callable[[], None]:
    pool: Any = concurrent.futures.ThreadPoolExecutor
    real_submit = pool.submit

    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return real_submit(self, fn, *args, **kwargs)
        context = contextvars.copy_context()
        token = CURRENT.set(None)  # a thread that the pool starts now outlives this invocation and must not inherit it
        try:
            return real_submit(self, context.run, fn, *args, **kwargs)
        finally:
            CURRENT.reset(token)

    pool.submit = submit

    def undo() -> None:
        pool.submit = real_submit

    return undo
