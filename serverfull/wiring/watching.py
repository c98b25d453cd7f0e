"""What says that files have changed, as the settings want it. Imported by the first who wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.reload.watching import Watcher

if TYPE_CHECKING:
    from serverfull.config.settings import ReloadSettings
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
