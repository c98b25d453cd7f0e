"""Looks after instances that are busy: at their memory, where the kernel does not limit exactly that by itself."""

from __future__ import annotations

import asyncio
from typing import Protocol

WATCH_EVERY = 0.1
"""Seconds between two looks."""


class Watched(Protocol):
    """What has to be looked at while it is busy."""

    def check_memory(self) -> None:
        """Kill it where it has too much."""


class Watcher:
    """Looks at those that are in it. Everything happens on the host's loop."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        """Look at one from now on."""
        self._watched.add(watched)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WATCH_EVERY, self._look)

    def discard(self, watched: Watched) -> None:
        """Look at it no more."""
        self._watched.discard(watched)

    def _look(self) -> None:
        self._timer = None
        for watched in list(self._watched):
            watched.check_memory()
        if self._watched and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WATCH_EVERY, self._look)

    def close(self) -> None:
        """Look at none. Closing twice is fine."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
