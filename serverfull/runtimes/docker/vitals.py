"""What the kernel tells of a container's processes, and does with them, without the engine: memory, freezing, end.

The engine takes 10 ms for what a file of a control group does in 10 µs, and may itself be gone. Where a file cannot be
read or written, for want of rights, the figure is not known and nothing is frozen.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from serverfull.runtimes.process.places import group_of
from serverfull.runtimes.process.proc import family, high_water

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATISTICS = 16_384
"""Bytes that the statistics of a group have at most."""

_FREEZERS = (("", "cgroup.freeze", ("0", "1")), ("freezer", "freezer.state", ("THAWED", "FROZEN")))
"""Of version 2 and 1: the controller, the file, and what is written into it to let go on and to stop."""


class Vitals:
    """The processes of a container that runs.

    :param pid: of the first one, as this machine counts.
    :param container: its id, which its control groups are named after; any other group is not its own.
    :raises ProcessLookupError: it has ended already.
    :raises OSError: it is not on this machine.
    """

    def __init__(self, pid: int, container: str) -> None:
        self._pid = pid
        self.handle = os.pidfd_open(pid)
        """Becomes readable when it has ended."""
        group = _own_group(pid, "memory", container)
        self._statistics = -1 if group is None else os.open(group / "memory.stat", os.O_RDONLY | os.O_CLOEXEC)
        self._freezer = _freezer(pid, container)
        self._most = 0

    def kill(self) -> bool:
        """Kill it, and with the first process the kernel kills all others; says whether that was allowed."""
        if self.handle < 0:
            return True
        try:
            self.freeze(frozen=False)  # version 1 kills nothing that is frozen
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return True

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process; nothing happens where it is gone, or not ours to signal."""
        if self.handle >= 0:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.handle, number)

    def freeze(self, *, frozen: bool) -> bool:
        """Stop all of it, or let it go on; says whether that was done."""
        if self._freezer is None:
            return False
        file, words = self._freezer
        try:
            file.write_text(words[frozen])
        except OSError:
            return False
        return True

    def used(self) -> int:
        """Give the bytes that its processes have now: no files, and nothing in ``/tmp``; 0 where that is not known."""
        used = 0
        with suppress(OSError, KeyError, ValueError):
            used = _of_processes(self._figures())
        self._most = max(self._most, used)
        return used

    def most(self) -> int:
        """Give the most bytes that were seen; 0 where none were."""
        self.used()
        for member in family(self._pid)[:2]:  # the engine's own init, and what it has started
            self._most = max(self._most, high_water(member))
        return self._most

    def _figures(self) -> Mapping[bytes, int]:
        if self._statistics < 0:
            return {}
        # Opened once: while a container is busy this is read again and again.
        lines = os.pread(self._statistics, _STATISTICS, 0).splitlines()
        return {name: int(value) for name, _, value in (line.partition(b" ") for line in lines)}

    def close(self) -> None:
        """Give back what it holds. Closing twice is fine."""
        handle, self.handle = self.handle, -1
        statistics, self._statistics = self._statistics, -1
        for descriptor in (handle, statistics):
            if descriptor >= 0:
                os.close(descriptor)


def _of_processes(figures: Mapping[bytes, int]) -> int:
    """Give what is of processes in the statistics of a group, of version 2 or 1."""
    if b"anon" in figures:
        return figures[b"anon"] + figures.get(b"kernel_stack", 0) + figures.get(b"pagetables", 0)
    return figures[b"total_rss"]


def _own_group(pid: int, controller: str, container: str) -> Path | None:
    group = group_of(pid, controller)
    return group if group is not None and container in str(group) else None


def _freezer(pid: int, container: str) -> tuple[Path, tuple[str, str]] | None:
    for controller, name, words in _FREEZERS:
        group = _own_group(pid, controller, container)
        if group is not None and os.access(group / name, os.W_OK):
            return group / name, words
    return None
