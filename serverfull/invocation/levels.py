"""Which lines of a function's log are kept, where its log is JSON and has levels.

A line says its level where it is a JSON object with ``level`` and a time; every other line is INFO, as on AWS.

https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from serverfull.domain.json_functions import loads
from serverfull.domain.log_levels import RANKS

_INFO = RANKS["INFO"]
_TIMES = ("timestamp", "time", "@timestamp")
"""What runtimes and logging libraries call the time of a record."""


def kept(text: str, least: int) -> str:
    """Give the lines that are at least at a level.

    :param text: whole lines.
    :param least: a value of `RANKS`.
    """
    if least <= _INFO and not _may_be_less(text):  # the usual case, without reading JSON
        return text
    return "".join(line for line in text.splitlines(keepends=True) if _rank(line) >= least)


def _may_be_less(text: str) -> bool:
    if '"level"' not in text:
        return False
    small = text.casefold()
    return '"debug"' in small or '"trace"' in small


def _rank(line: str) -> int:
    if not line.startswith("{"):
        return _INFO
    try:
        document: Any = loads(line)
    except (ValueError, RecursionError):
        return _INFO
    level = document.get("level")
    if not isinstance(level, str) or not any(_is_time(document.get(name)) for name in _TIMES):
        return _INFO
    return RANKS.get(level.upper(), _INFO)


def _is_time(text: object) -> bool:
    """Tell whether this is a time as RFC 3339 has it."""
    if not isinstance(text, str) or "T" not in text:
        return False
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
