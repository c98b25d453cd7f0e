"""Where figures live: blocks of doubles, one row for each worker process.

A *block* is a few doubles under a key (one function, one user series). Every process writes only its own row, so a
figure costs an addition and no lock; whoever renders sums the rows. `LocalCells` serves a single process. With
``--workers`` the parent makes a `SharedCells` file and every worker attaches to its row: the figures of a dead worker
stay in the file, and its replacement counts on in the same row.

Blocks are allocated under a lock (for the shared ones an ``flock`` on the file, which the kernel gives back when its
holder is killed). Writing into a block takes no lock: a block has one writing thread, or its owner locks.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from json import dumps, loads
from pathlib import Path
from typing import NamedTuple, Protocol

from serverfull.errors import StartupError


class CellsFull(StartupError):
    """The shared file has no room for another block; its size is fixed when the workers start."""


class Block(Protocol):
    """Doubles that can be read and written by index."""

    def __getitem__(self, index: int, /) -> float: ...
    def __setitem__(self, index: int, value: float, /) -> None: ...
    def __len__(self) -> int: ...


class Entry(NamedTuple):
    """Where a block lies.

    :param base: index of its first double within a row.
    :param columns: how many doubles it has.
    :param gauges: the columns that say how things are now; they are zeroed when their worker dies.
    """

    base: int
    columns: int
    gauges: tuple[int, ...]


class Cells(ABC):
    """Blocks by key, in rows."""

    row: int
    rows: int

    @abstractmethod
    def allocate(self, key: str, columns: int, gauges: Sequence[int] = ()) -> Block:
        """Give this process's block of that key; every call with the key gives the same doubles.

        :raises CellsFull: there is no room.
        """

    @abstractmethod
    def keys(self) -> list[str]:
        """Give the keys of all blocks that any worker has allocated, oldest first."""

    @abstractmethod
    def values(self, key: str) -> list[list[float]]:
        """Give the block of every row."""

    @abstractmethod
    def clear_gauges(self, row: int) -> None:
        """Zero the gauges of a row whose worker has died; its counters stay."""

    def sums(self, key: str) -> list[float]:
        """Give the block's columns, summed over all rows."""
        values = self.values(key)
        return values[0] if len(values) == 1 else [sum(column) for column in zip(*values, strict=True)]


class LocalCells(Cells):
    """Cells of a host that is one process."""

    def __init__(self) -> None:
        self.row = 0
        self.rows = 1
        self._blocks: dict[str, array[float]] = {}
        self._gauges: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def allocate(self, key: str, columns: int, gauges: Sequence[int] = ()) -> Block:
        with self._lock:
            block = self._blocks.get(key)
            if block is None:
                block = self._blocks[key] = array("d", bytes(8 * columns))
                self._gauges[key] = tuple(gauges)
            return block

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._blocks)

    def values(self, key: str) -> list[list[float]]:
        return [self._blocks[key].tolist()]

    def clear_gauges(self, row: int) -> None:
        for key in self.keys():
            for column in self._gauges[key]:
                self._blocks[key][column] = 0.0


_MAGIC = b"SFCELLS1"
_HEADER = struct.Struct("=8sQQQQ")
_DIRECTORY_USED = struct.Struct("=Q")
_DIRECTORY_USED_AT = _HEADER.size - _DIRECTORY_USED.size


class SharedCells(Cells):
    """Cells in a file that the worker processes map into their memory.

    The file is a header, a directory of blocks (one JSON line each, only ever appended) and the rows. A block exists
    once the header counts its line; a process that is killed before that leaves nothing behind.

    :param path: a file that `create` has made.
    :param row: the row that this process writes; its gauges are zeroed, because whoever wrote them is gone.
        None: a process that only reads and clears, such as the parent.
    """

    def __init__(self, path: str | Path, row: int | None) -> None:
        self._path = Path(path)
        with self._path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        magic, self.rows, self._capacity, self._directory_size, _ = _HEADER.unpack_from(self._map)
        if magic != _MAGIC:
            raise StartupError(f"{path} does not hold the figures of a serverfull host")
        if row is not None and not 0 <= row < self.rows:
            raise StartupError(f"{path} has rows 0 to {self.rows - 1}, there is no row {row}")
        self.row = -1 if row is None else row
        self._doubles = memoryview(self._map)[_HEADER.size + self._directory_size :].cast("d")
        self._entries: dict[str, Entry] = {}
        self._read = 0
        self._used = 0
        self._lock = threading.Lock()
        if row is not None:
            self.clear_gauges(row)

    @classmethod
    def create(cls, path: str | Path, *, rows: int, columns: int, directory_bytes: int = 1 << 20) -> SharedCells:
        """Make the file and attach to it without a row.

        :param rows: how many worker processes there will be.
        :param columns: doubles in a row; the file is sparse, what is not used takes no disk.
        :param directory_bytes: room for the keys, a multiple of 8.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            cls.lay_out(descriptor, rows=rows, columns=columns, directory_bytes=directory_bytes)
        finally:
            os.close(descriptor)
        return cls(path, None)

    @staticmethod
    def lay_out(descriptor: int, *, rows: int, columns: int, directory_bytes: int = 1 << 20) -> None:
        """Make an open, empty file into one that processes can attach to; for memory that has no path of its own."""
        if directory_bytes % 8 or rows < 1 or columns < 1:
            raise ValueError("rows and columns must be at least 1, and directory_bytes a multiple of 8")
        os.pwrite(descriptor, _HEADER.pack(_MAGIC, rows, columns, directory_bytes, 0), 0)
        os.ftruncate(descriptor, _HEADER.size + directory_bytes + 8 * rows * columns)

    def allocate(self, key: str, columns: int, gauges: Sequence[int] = ()) -> Block:
        if self.row < 0:
            raise ValueError("a process without a row cannot write figures")
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                with self._exclusive():
                    self._refresh()
                    entry = self._entries.get(key) or self._append(key, columns, tuple(gauges))
        base = self.row * self._capacity + entry.base
        return self._doubles[base : base + entry.columns]

    def keys(self) -> list[str]:
        with self._lock:
            with self._exclusive():
                self._refresh()
            return list(self._entries)

    def values(self, key: str) -> list[list[float]]:
        entry = self._entries[key]
        starts = range(entry.base, self.rows * self._capacity, self._capacity)
        return [[float(value) for value in self._doubles[start : start + entry.columns]] for start in starts]

    def column(self, key: str, index: int) -> memoryview[float]:
        """Give one column of an allocated block in every row, to be read often; a process writes its own row only."""
        return self._doubles[self._entries[key].base + index :: self._capacity]

    def clear_gauges(self, row: int) -> None:
        for key in self.keys():
            entry = self._entries[key]
            for column in entry.gauges:
                self._doubles[row * self._capacity + entry.base + column] = 0.0

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the file's lock, on a description of our own, so that threads exclude each other as processes do."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _refresh(self) -> None:
        """Read the lines that were appended since the last look."""
        (end,) = _DIRECTORY_USED.unpack_from(self._map, _DIRECTORY_USED_AT)
        for line in self._map[_HEADER.size + self._read : _HEADER.size + end].splitlines():
            key, base, columns, gauges = loads(line)
            self._entries[key] = Entry(base, columns, tuple(gauges))
            self._used = base + columns
        self._read = end

    def _append(self, key: str, columns: int, gauges: tuple[int, ...]) -> Entry:
        line = dumps([key, self._used, columns, gauges]).encode() + b"\n"
        end = self._read + len(line)
        if self._used + columns > self._capacity or end > self._directory_size:
            raise CellsFull(
                f"no room for the figures of {key.replace(chr(0), ' ')}: the file that the workers share has "
                f"{self._capacity} columns, {self._used} are used and {columns} more are needed"
            )
        self._map[_HEADER.size + self._read : _HEADER.size + end] = line
        _DIRECTORY_USED.pack_into(self._map, _DIRECTORY_USED_AT, end)
        entry = self._entries[key] = Entry(self._used, columns, gauges)
        self._read, self._used = end, self._used + columns
        return entry
