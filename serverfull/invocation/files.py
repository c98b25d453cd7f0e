"""The functions' log in files: a folder with a file for each function, which are renamed when they are full.

``hello.log`` is the newest of a function, ``hello.log.1`` was before it, and so on; each line is a record as
`JsonLines` writes it. `FileSink` writes them on its own thread. Several processes may write into one folder: each takes
the lock of the file ``.lock`` for as long as it appends. `FileLog` reads them, in the host or in a command that has no
host.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from serverfull.errors import ConfigurationError
from serverfull.interfaces import LogRecord
from serverfull.invocation.recent import gap, since_then
from serverfull.invocation.sinks import BatchSink, JsonLines

LEAST_FILES = 2
"""Whoever follows a log finds the rest of a file that has just become full in the one before the newest."""

_LOCK = ".lock"
_LONGEST_NAME = 200
"""Characters of a file's name; no function's is nearly as long."""
_PIECE = 1_000_000
"""Bytes that a follower reads at once."""


def _newest(folder: Path, function: str) -> Path:
    return folder / f"{quote(function, safe='')}.log"  # callers may ask for names that no function can have


def _older(folder: Path, function: str, number: int) -> Path:
    return _newest(folder, function).with_suffix(f".log.{number}")


class FileSink(BatchSink):
    """Appends records to the files of their functions.

    What cannot be written, because the disk is full or the folder gone, is dropped and counted, and said in the host's
    log once, until it works again.

    :param folder: made where it is missing, readable by its owner alone.
    :param size: bytes after which a file is full; a record that is longer has one to itself.
    :param count: files kept of each function.
    :param logger: the host's own log.
    :raises ConfigurationError: the folder cannot be made, or nothing can be written there.
    """

    def __init__(self, folder: Path, size: int, count: int, logger: Any) -> None:
        super().__init__("serverfull-log-files", logger, backlog=100_000, most_waiting=64 * 1024 * 1024)
        self._folder = folder
        self._size = size
        self._count = max(LEAST_FILES, count)
        self._render = JsonLines()
        self._failing: set[str] = set()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder, fcntl.LOCK_EX):
                pass
        except OSError as error:
            raise ConfigurationError(f"logging.files: {folder} cannot be written to: {error.strerror}") from None

    def _write_batch(self, batch: list[LogRecord]) -> int:
        texts: dict[str, list[str]] = {}
        for record in batch:
            texts.setdefault(record.function, []).append(self._render(record))
        lost = 0
        for function, lines in texts.items():
            try:
                self._append(function, "".join(lines).encode("utf-8", "backslashreplace"))
            except OSError as error:
                lost += len(lines)
                self._failed(function, error)
            else:
                self._failing.discard(function)
        return lost

    def _failed(self, function: str, error: OSError) -> None:
        if function not in self._failing:
            self._failing.add(function)
            self._logger.error("log of a function cannot be written", function=function, reason=str(error))

    def _append(self, function: str, data: bytes) -> None:
        """Append whole lines, to as many files as they need.

        :raises OSError: not all could be written; no line is there in part.
        """
        with _locked(self._folder, fcntl.LOCK_EX):
            while data:
                descriptor = os.open(_newest(self._folder, function), _APPEND, 0o600)
                try:
                    before = os.fstat(descriptor).st_size
                    fits = _fitting(data, self._size - before, empty=before == 0)
                    _write(descriptor, data[:fits], before)
                finally:
                    os.close(descriptor)
                data = data[fits:]
                if data:
                    self._rename(function)

    def _rename(self, function: str) -> None:
        """Make room for a new file: each becomes the one before it, the oldest goes."""
        for number in range(self._count - 1, 0, -1):
            newer = _older(self._folder, function, number - 1) if number > 1 else _newest(self._folder, function)
            with suppress(FileNotFoundError):
                newer.replace(_older(self._folder, function, number))


_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def _fitting(data: bytes, room: int, *, empty: bool) -> int:
    """Say how many bytes, of whole lines, go into a file."""
    if len(data) <= room:
        return len(data)
    fits = data.rfind(b"\n", 0, max(0, room)) + 1
    return data.find(b"\n") + 1 if empty and not fits else fits


def _write(descriptor: int, data: bytes, before: int) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, before)  # the next line must not begin in the middle of this one
        raise


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold the folder's lock; a reader does without where nobody has written yet."""
    flags = os.O_RDONLY if how == fcntl.LOCK_SH else os.O_RDWR | os.O_CREAT
    try:
        descriptor = os.open(folder / _LOCK, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        if how != fcntl.LOCK_SH:
            raise
        yield
        return
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a function's log has been read.

    :param file: the device and inode of the file that was the newest; None: there was none.
    :param offset: bytes of it that were read.
    """

    file: tuple[int, int] | None = None
    offset: int = 0


class FileLog:
    """Reads what a `FileSink` writes, also while it does, from any process that may.

    :param folder: as the sink has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, function: str) -> bool:
        """Say whether there is a log of that function."""
        return _newest(self._folder, function).exists() or _older(self._folder, function, 1).exists()

    def lines(self, function: str, since: float | None = None) -> tuple[Iterable[str], _Place]:
        """Give the lines of a function, oldest first and read as they are asked for, and where `following` goes on.

        :param since: seconds on the wall clock; older lines are left out.
        """
        stack = ExitStack()
        files = [stack.enter_context(file) for file in self._open(function)]
        newest = os.fstat(files[-1].fileno()) if files else None
        place = _Place((newest.st_dev, newest.st_ino), newest.st_size) if newest else _Place()

        def read() -> Iterator[str]:
            with stack:
                yield ""  # from here on the files are closed, however far anybody reads
                for file in files:
                    status = os.fstat(file.fileno())
                    end = place.offset if file is files[-1] else status.st_size
                    if since is None or status.st_mtime >= since:
                        yield from _lines(file, end)

        lines = read()
        next(lines)
        return since_then(lines, since), place

    async def following(self, function: str, position: _Place, tick: float) -> AsyncIterator[list[str]]:
        """Give the lines of a function as they come; an empty list where for a while there are none.

        A line that says so stands for those that were gone before their reader came to them.

        :param position: as `lines` gave it.
        :param tick: seconds of a while.
        """
        while True:
            lines, position = await asyncio.to_thread(self.news, function, position)
            yield lines
            if not lines:
                await asyncio.sleep(tick)

    def news(self, function: str, place: _Place) -> tuple[list[str], _Place]:
        """Give some lines behind a place, none where there are no more now, and the place behind them."""
        with suppress(FileNotFoundError):
            status = _newest(self._folder, function).stat()
            if place == _Place((status.st_dev, status.st_ino), status.st_size):
                return [], place
        with ExitStack() as stack:
            files = [stack.enter_context(file) for file in self._open(function)]
            known = [_identity(file) for file in files]
            if not files:
                return [], place
            lost = place.file is not None and place.file not in known
            first = known.index(place.file) if place.file in known else 0
            offset = place.offset if place.file in known else 0
            lines, offset = _piece(files[first], offset)
            if not lines and first + 1 < len(files):  # that one is full, and read to its end
                first += 1
                lines, offset = _piece(files[first], 0)
            return [*([gap(function)] if lost else []), *lines], _Place(known[first], offset)

    def _open(self, function: str) -> list[Any]:
        """Open the files of a function, the oldest first."""
        found: list[Any] = []
        if len(_newest(self._folder, function).name) > _LONGEST_NAME:
            return found
        with _locked(self._folder, fcntl.LOCK_SH):
            with suppress(FileNotFoundError):
                found.append(_newest(self._folder, function).open("rb"))  # not there: its maker died in between
            with suppress(FileNotFoundError):
                found.extend(_older(self._folder, function, number).open("rb") for number in itertools.count(1))
        return found[::-1]


def _identity(file: Any) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def _lines(file: Any, end: int) -> Iterator[str]:
    read = 0
    for line in file:
        read += len(line)
        if read > end:
            return
        yield line.decode("utf-8", "replace")


def _piece(file: Any, offset: int) -> tuple[list[str], int]:
    """Read some whole lines; gives them, and where the next begin."""
    file.seek(offset)
    data = file.read(_PIECE)
    end = data.rfind(b"\n") + 1
    if not end:  # one long line, or one that is being written
        data = file.readline() if not data else data + file.readline()
        end = len(data) if data.endswith(b"\n") else 0
    lines = data[:end].decode("utf-8", "replace").split("\n")[:-1]  # not splitlines: JSON has other line ends in it
    return [line + "\n" for line in lines], offset + end
