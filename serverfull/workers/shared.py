"""The memory that a supervisor and its workers share: figures, permits, and one lock.

The supervisor makes it before it starts workers. It is memory without a name (``memfd``), so nothing of it stays behind
when every process is killed, and no other user can open it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from serverfull.observability.cells import SharedCells
from serverfull.observability.metrics import columns_for

MAX_FUNCTIONS = 4096
"""Functions that there is room for. Only room that is used takes memory."""

_DIRECTORY_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """File descriptors of the shared memory; workers inherit them, programs that handlers start do not.

    :param figures: cells of the metrics.
    :param permits: cells that count what runs.
    :param lock: what `SharedAdmission` locks. Nothing else may open it: closing any descriptor of a file gives up a
        process's record locks on it.
    """

    figures: int
    permits: int
    lock: int

    @classmethod
    def create(cls, workers: int) -> SharedMemory:
        """Make it.

        :param workers: how many rows the cells have.
        """
        figures, permits, lock = (os.memfd_create(f"serverfull-{name}") for name in ("figures", "permits", "lock"))
        for descriptor, columns in ((figures, columns_for(MAX_FUNCTIONS)), (permits, MAX_FUNCTIONS + 1)):
            SharedCells.lay_out(descriptor, rows=workers, columns=columns, directory_bytes=_DIRECTORY_BYTES)
        return cls(figures, permits, lock)

    def figure_cells(self, row: int | None) -> SharedCells:
        """Attach to the cells of the metrics; as `SharedCells`."""
        return SharedCells(f"/proc/self/fd/{self.figures}", row)

    def permit_cells(self, row: int | None) -> SharedCells:
        """Attach to the cells of the permits; as `SharedCells`."""
        return SharedCells(f"/proc/self/fd/{self.permits}", row)

    def clear(self, row: int) -> None:
        """Take back what a dead worker held and showed: its permits and gauges. Its counters stay."""
        self.permit_cells(None).clear_gauges(row)
        self.figure_cells(None).clear_gauges(row)

    def close(self) -> None:
        """Close the descriptors; the memory lives as long as a worker has it."""
        for descriptor in (self.figures, self.permits, self.lock):
            os.close(descriptor)
