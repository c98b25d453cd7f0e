"""Turns the host's records into lines, with a structlog chain that is private to this process's `HostLogger`.

Imported for the first record, because structlog takes long to import.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from serverfull.observability.logger import escape, escape_line, json_text

Record = MutableMapping[str, Any]


class RecordLogger:
    """Writes records through structlog, whatever the process has configured structlog to do elsewhere.

    :param write: takes one line without its newline.
    :param console: for people; False: JSON.
    :param color: colours, for people at a terminal.
    """

    def __init__(self, write: Callable[[str], object], *, console: bool, color: bool) -> None:
        self._logger = structlog.wrap_logger(
            _Sink(write),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.MaybeTimeStamper(fmt="iso", utc=True),  # records that waited have theirs
                structlog.processors.format_exc_info,
                *(
                    (_escaped, _console_renderer(color))
                    if console
                    else (_ordered, structlog.processors.JSONRenderer(_json))
                ),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            context_class=dict,
            cache_logger_on_first_use=False,
        ).bind()

    def write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Write one record.

        :param level: ``debug``, ``info``, ``warning`` or ``error``.
        """
        getattr(self._logger.bind(**fields), level)(event)


class _Sink:
    """What structlog takes for a logger: every level is the same line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.debug = self.info = self.warning = self.error = write


def _ordered(_: Any, __: str, record: Record) -> Record:
    """Put first what every record has, so that eyes find it."""
    first = {"timestamp": record.pop("timestamp"), "level": record.pop("level"), "event": record.pop("event")}
    return {**first, **record}


def _escaped(_: Any, __: str, record: Record) -> Record:
    """Make control characters visible in whatever is shown, keys included."""
    trace = record.pop("exception", None)
    shown: Record = {escape_line(str(key)): _shown(value) for key, value in record.items()}
    if trace is not None:
        shown["exception"] = escape(str(trace))
    return shown


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return escape_line(value if isinstance(value, str) else repr(value))


def _console_renderer(color: bool) -> Any:
    return structlog.dev.ConsoleRenderer(colors=color, exception_formatter=structlog.dev.plain_traceback)


def _json(record: Record, **_: Any) -> str:
    return json_text(record)
