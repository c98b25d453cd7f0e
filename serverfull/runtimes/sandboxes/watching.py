"""Looks after instances that are busy: at their memory, where the kernel does not limit exactly that by itself."""

from __future__ import annotations

import asyncio
from typing import Protocol

WATCH_EVERY = 0.1
"""Seconds between two looks. Those that began since the last one are left out: most of them have ended at the next, and
each look takes 20 µs or more."""


class Watched(Protocol):
    """What has to be looked at while it is busy."""

    def check_memory(self) -> None:
        """Kill it where it has too much."""


class Watcher:
    """Looks at those that are in it for longer than a moment. Everything happens on the host's loop."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._just_begun: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        """Look at one from now on."""
        self._just_begun.add(watched)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WATCH_EVERY, self._look)

    def discard(self, watched: Watched) -> None:
        """Look at it no more."""
        self._just_begun.discard(watched)
        self._watched.discard(watched)

    def _look(self) -> None:
        self._timer = None
        for watched in list(self._watched):
            watched.check_memory()
        self._watched |= self._just_begun
        self._just_begun.clear()
        if self._watched:
            self._timer = asyncio.get_running_loop().call_later(WATCH_EVERY, self._look)
