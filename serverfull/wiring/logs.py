"""What takes the functions' log, as the settings have it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.invocation.sinks import BatchSink, JsonLines, StreamSink, as_console

if TYPE_CHECKING:
    from serverfull.config import Settings
    from serverfull.invocation.recent import RecentLog


def sinks_of(settings: Settings, recent: RecentLog, logger: Any) -> dict[str, BatchSink]:
    """Make what takes the functions' log, by the word that figures call it.

    :raises ConfigurationError: the settings name a folder that cannot be written to.
    :raises ExtraMissing: what CloudWatch Logs is called with is not installed.
    """
    sinks: dict[str, BatchSink] = {}
    logging = settings.logging
    stream = {"STDOUT": sys.__stdout__, "STDERR": sys.__stderr__, "NULL": None}[logging.functions]
    if stream is not None:
        console = logging.format == "console" or (logging.format == "auto" and stream.isatty())
        render = as_console if console else JsonLines()
        sinks["stream"] = StreamSink(stream.fileno(), render, logger, recent=recent)
    if logging.files:
        from serverfull.invocation.files import FileSink

        sinks["files"] = FileSink(Path(logging.files), logging.files_size, logging.files_count, logger)
    if logging.cloudwatch:
        from serverfull.invocation.cloudwatch import CloudWatchEndpoint, CloudWatchSink

        endpoint = CloudWatchEndpoint(logging.cloudwatch, settings.functions.region)
        sinks["cloudwatch"] = CloudWatchSink(endpoint, logger)
    return sinks
