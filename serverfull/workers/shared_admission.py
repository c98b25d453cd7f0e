"""Limits of concurrency and of lost threads that are true over all workers.

Each worker counts in its own row of shared cells what it runs, and adds the rows up. A call is first counted in and
then checked. What the check may miss is one call of each other worker, the one that is being counted in at that moment:
older counts have long reached the memory. So while the sum stays that far below the limit, no lock is needed, and
a call costs about 1 µs. Nearer to the limit the call is taken out again and asks under a lock, which makes check and
take one step; 2 µs more, and a wait for the interpreter lock, which `lockf` lets go of.

Two calls that race for the last permit never both get it, and never both are refused. The lock is a record lock, which
the kernel takes back from a process that dies; the dead one's row is cleared by the supervisor and by its replacement.

`take` and `release` are called on the worker's event loop alone: a record lock does not tell threads apart.
"""

from __future__ import annotations

from fcntl import LOCK_EX, LOCK_UN, lockf
from typing import TYPE_CHECKING

from serverfull.errors import TooManyRequests
from serverfull.interfaces import Admission
from serverfull.invocation.admission import FUNCTION_REASON, HOST_REASON
from serverfull.observability.metrics import LOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serverfull.observability.cells import SharedCells


class SharedAdmission(Admission):
    """Counts in memory that all workers see.

    :param limit: invocations of all functions at once, in all workers.
    :param cells: the cells of the permits, attached to this worker's row.
    :param lock: descriptor of the file that is locked.
    :param limited: names of the functions that have a limit of their own.
    """

    def __init__(self, limit: int, cells: SharedCells, lock: int, limited: Iterable[str] = ()) -> None:
        self._limit = limit
        self._cells = cells
        self._row = cells.row
        self._unseen = cells.rows - 1
        self._lock = lock
        self._host = self._column("host")
        self._by_name = {name: self._column(f"function\0{name}") for name in limited}

    @property
    def running(self) -> int:
        """How many invocations run now, in all workers."""
        return int(sum(self._host))

    def take(self, name: str, limit: int | None) -> None:
        """Take a permit of the host, and one of the function where it has a limit.

        :raises TooManyRequests: with AWS's reason; see
            https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
        """
        function = None if limit is None else self._function(name)
        if function is None or limit is None:
            if not self._take_far_below(self._host, self._limit):
                self._take_locked(None, 0)
        elif not self._take_far_below(function, limit):
            self._take_locked(function, limit)
        elif not self._take_far_below(self._host, self._limit):
            function[self._row] -= 1.0
            self._take_locked(function, limit)

    def _take_far_below(self, column: memoryview[float], limit: int) -> bool:
        """Take a permit where the limit is so far away that nothing which cannot be seen yet would reach it."""
        column[self._row] += 1.0
        if sum(column) + self._unseen <= limit:
            return True
        column[self._row] -= 1.0
        return False

    def _take_locked(self, function: memoryview[float] | None, limit: int) -> None:
        lockf(self._lock, LOCK_EX)
        try:
            if sum(self._host) >= self._limit:
                raise TooManyRequests(HOST_REASON)
            if function is not None:
                if sum(function) >= limit:
                    raise TooManyRequests(FUNCTION_REASON)
                function[self._row] += 1.0
            self._host[self._row] += 1.0
        finally:
            lockf(self._lock, LOCK_UN)

    def release(self, name: str, limit: int | None) -> None:
        """Give the permit back.

        This needs no lock: nobody else writes the row, and a reader sees one count or the next.
        """
        self._host[self._row] -= 1.0
        if limit is not None:
            self._by_name[name][self._row] -= 1.0

    def _function(self, name: str) -> memoryview[float]:
        column = self._by_name.get(name)
        if column is None:
            column = self._by_name[name] = self._column(f"function\0{name}")
        return column

    def _column(self, key: str) -> memoryview[float]:
        self._cells.allocate(key, 1, gauges=(0,))
        return self._cells.column(key, 0)


class LostElsewhere:
    """Says how many threads of a function are stuck in the other workers, from the gauges of their metrics.

    :param cells: the cells of the metrics.
    :param row: this worker's row.
    """

    def __init__(self, cells: SharedCells, row: int) -> None:
        self._cells = cells
        self._row = row
        self._columns: dict[str, memoryview[float]] = {}

    def __call__(self, name: str) -> int:
        column = self._columns.get(name)
        if column is None:
            self._cells.keys()  # reads what has been allocated since; a function's figures are, before it is invoked
            column = self._columns[name] = self._cells.column(f"function\0{name}", LOST)
        return int(sum(column) - column[self._row])
