"""What this process uses: memory, processor time, descriptors, threads, garbage collections, tasks.

Read when somebody scrapes or a report is due, on any thread; nothing here runs in between.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
import threading
import time
from pathlib import Path

FIGURES = (
    "resident_bytes",
    "cpu_seconds",
    "open_fds",
    "max_fds",
    "threads",
    "tasks",
    "gc_collections",
    "gc_collected",
    "memory_blocks",
    "start_time",
)
COUNTERS = ("cpu_seconds", "gc_collections", "gc_collected")
"""Figures that only grow, and that are kept when a worker dies."""

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")


class ProcessFigures:
    """Reads the figures of this process.

    :ivar loop: the server's loop, whose tasks are counted; None until it is known.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.started = time.time()
        self._page = os.sysconf("SC_PAGE_SIZE")

    def read(self) -> dict[str, float]:
        """Give every figure of `FIGURES`, in that order."""
        generations = gc.get_stats()
        return {
            "resident_bytes": self._resident(),
            "cpu_seconds": time.process_time(),
            "open_fds": _open_descriptors(),
            "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "threads": threading.active_count(),
            "tasks": self._tasks(),
            "gc_collections": sum(generation["collections"] for generation in generations),
            "gc_collected": sum(generation["collected"] for generation in generations),
            "memory_blocks": sys.getallocatedblocks(),
            "start_time": self.started,
        }

    def uptime(self) -> float:
        """Give the seconds since the host was made."""
        return max(0.0, time.time() - self.started)

    def _resident(self) -> float:
        try:
            return int(_STATM.read_bytes().split()[1]) * self._page
        except OSError:  # not Linux: the highest it ever was is the nearest there is
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _tasks(self) -> int:
        loop = self.loop
        return 0 if loop is None or loop.is_closed() else len(asyncio.all_tasks(loop))


def _open_descriptors() -> int:
    try:
        return sum(1 for _ in _DESCRIPTORS.iterdir()) - 1  # the listing holds one open itself
    except OSError:
        return 0
