"""What functions see of logging: the root logger's handler, with AWS's formats and levels.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_TEXT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"

# default=str: a value that is no JSON costs a record its form, not itself.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

_KNOWN = frozenset(
    (
        *vars(logging.LogRecord("", 0, "", 0, "", (), None)),
        "message",
        "asctime",
        "taskName",
        "aws_request_id",
        "tenant_id",
        "_frame_type",
    )
) - {"message", "asctime", "taskName"}
"""Attributes of records that are no user's ``extra``; the three that are taken out are shown by the official client."""


class Current:
    """The invocation that runs now, as records of the log name it."""

    request_id = ""
    tenant_id: str | None = None


class Sink:
    """Writes to standard output."""

    def log(self, text: str) -> None:
        """Write a text as it is."""
        sys.stdout.write(text)


class LambdaLoggerHandler(logging.Handler):
    """The handler that the root logger has from the beginning."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self.log_sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. What is wrong with it is raised where it was logged, as on AWS."""
        self.log_sink.log(self.format(record))


class _NamesInvocation(logging.Filter):
    def __init__(self, current: Current) -> None:
        super().__init__()
        self._current = current

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = self._current.request_id
        record.tenant_id = self._current.tenant_id
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object for each record."""

    def __init__(self) -> None:
        super().__init__(datefmt=_TIME)

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, with its newline."""
        record.levelno = min(50, max(0, record.levelno)) // 10 * 10
        record.levelname = logging.getLevelName(record.levelno)
        whole = isinstance(record.msg, dict) and not record.args
        shown: dict[str, Any] = {
            "timestamp": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "message": record.msg if whole else record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            kind, error, trace = record.exc_info
            shown["stackTrace"] = traceback.format_tb(trace)
            shown["errorType"] = getattr(kind, "__name__", None)
            shown["errorMessage"] = str(error)
        shown["requestId"] = getattr(record, "aws_request_id", None)
        if record.exc_info:
            shown["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        shown["tenantId"] = getattr(record, "tenant_id", None)
        reserved = {"stackTrace", "errorType", "errorMessage", "location", *shown}
        shown.update((name, value) for name, value in vars(record).items() if name not in _KNOWN | reserved)
        return _encode({name: value for name, value in shown.items() if value is not None}) + "\n"


def set_up(log_format: str | None, log_level: str | None, current: Current) -> bool:
    """Prepare the root logger; says whether the log is JSON.

    :param log_format: ``AWS_LAMBDA_LOG_FORMAT``.
    :param log_level: ``AWS_LAMBDA_LOG_LEVEL``.
    """
    is_json = (log_format or "").upper() == "JSON"
    logging.Formatter.converter = time.gmtime
    handler = LambdaLoggerHandler(Sink())
    handler.setFormatter(JsonFormatter() if is_json else logging.Formatter(_TEXT, _TIME[:-1]))
    handler.addFilter(_NamesInvocation(current))
    root = logging.getLogger()
    level = {"": "", "TRACE": "DEBUG"}.get(log_level or "", log_level or "").upper()
    if level in logging._nameToLevel:
        root.setLevel(level)
    root.addHandler(handler)
    return is_json
