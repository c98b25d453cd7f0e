"""What says that files have changed, and builds code of them, as the settings want it. Imported when it is needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from serverfull.interfaces import LogRecord
from serverfull.reload.builds import Builder, BuildFailure
from serverfull.reload.watching import Watcher

if TYPE_CHECKING:
    from serverfull.config.settings import ReloadSettings
    from serverfull.interfaces import LogSink
    from serverfull.reload.builds import BuildLogger
    from serverfull.reload.watching import WatchLogger


def watcher_of(settings: ReloadSettings, logger: WatchLogger) -> Watcher:
    """Make a host's watcher, which starts nothing yet."""
    return Watcher(
        debounce=settings.debounce_ms / 1000,
        include=settings.include,
        exclude=settings.exclude,
        gitignore=settings.gitignore,
        polling=settings.polling,
        poll_interval=settings.poll_interval,
        logger=logger,
    )


_FILE_BYTES = 1 << 46
"""That a file of a build may have: nothing but the disk limits what an owner builds."""


def builder_of(settings: ReloadSettings, logger: BuildLogger, sink: LogSink) -> Builder:
    """Make what runs build commands, as programs that outlive neither the host nor their deadline."""
    from serverfull.config.names import PREFIX
    from serverfull.config.variables import host_variables
    from serverfull.dependencies.running import Failed, Work, run

    async def run_command(command: str, folder: Path) -> str:
        work = Work(
            command=("/bin/sh", "-c", command),
            variables={name: value for name, value in host_variables().items() if not name.startswith(PREFIX)},
            folder=folder,
            watched=folder,
            timeout=settings.build_timeout,
            most_bytes=_FILE_BYTES,
        )
        try:
            return await run(work)
        except Failed as failed:
            raise BuildFailure(failed.why, failed.output) from None
        except OSError as error:
            raise BuildFailure(f"cannot be started: {error.strerror}", "") from None

    def write(function: str, text: str) -> None:
        if text:
            group = f"/aws/lambda/{function}"
            sink.write(LogRecord(function, "", "function", text, time.time(), log_group=group, log_stream="build"))

    return Builder(enabled=settings.builds, run=run_command, output=write, logger=logger)
