"""Copies of files of events for backups and checks, taken while a host goes on writing them or not.

A host has its files locked, and SQLite lets nobody else read them. So a file is copied as it lies there: first the
database, then its log. What the host moves from the log into the database meanwhile is in the log all the same, unless
it begins the log anew. Each log has another header, by which that is seen; then both are copied once more. While
somebody copies, a host moves nothing, so that also a large file is copied from a busy host (`Copiers`).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from shutil import copyfile

from serverfull.errors import EventsDamaged, StateUnusable
from serverfull.storage.event_rows import delivery_of, end_of, event_of
from serverfull.storage.event_tables import STATES, give_back, layout_of, unusable_events
from serverfull.storage.folder import DATABASE

_TRIES = 20
"""Times that a file is copied that changes too much meanwhile. Two are enough for a host that moves nothing."""

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)

_HEADER = 32
"""Bytes that a log begins with; the salt in them is another one each time that it begins."""


class Copiers:
    """Tells a host whether somebody copies files out of a folder. Nobody does whose process has ended.

    :raises OSError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def any(self) -> bool:
        """Say whether there are any."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks: they find out by themselves what has changed
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        """Ask no more. Closing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def _copying(folder: Path) -> Iterator[None]:
    """Be one of the `Copiers` of a folder, after all others."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def event_files(folder: Path) -> list[Path]:
    """Give the files of events in a folder, that of the first process last.

    It takes over what others have left: what is moved while one after the other is copied is there twice, not never.
    """
    files = [file for file in folder.glob("events-*.db") if file.stem.removeprefix("events-").isdecimal()]
    return sorted(files, key=lambda file: int(file.stem.removeprefix("events-")), reverse=True)


def holds_events_alone(folder: Path) -> bool:
    """Say whether a folder is one of events, and no state that has such a folder in it."""
    return bool(event_files(folder)) and not (folder / DATABASE).exists()


def copy_events(folder: Path, target: Path) -> list[Path]:
    """Copy the files of events out of a folder, each as it was at one moment and whole; gives the copies.

    What ran at that moment waits in the copy. A file that a host is only making, or a folder that is not there, has no
    events in it.

    :raises EventsDamaged: one is broken.
    :raises StateTooNew: a newer serverfull wrote it.
    :raises StateUnusable: it cannot be read, or not be copied.
    """
    try:
        if not folder.is_dir():
            return []
        with _copying(folder):
            copies = [(file, target / file.name) for file in event_files(folder) if _copy(file, target / file.name)]
    except OSError as wrong:
        raise StateUnusable(f"the events in {folder} cannot be copied: {wrong}") from wrong
    return [copy for file, copy in copies if _complete(file, copy)]


def _copy(file: Path, copy: Path) -> bool:
    """Copy a file of events with its log; says whether it was there until the end."""
    for _ in range(_TRIES):
        try:
            before = _mark(file)
            copyfile(file, copy)
            with suppress(FileNotFoundError):
                copyfile(_log(file), _log(copy))
            after = _mark(file)
        except FileNotFoundError:  # another process has taken over what was in it
            return False
        if before == after:
            return True
        _log(copy).unlink(missing_ok=True)
    raise StateUnusable(f"{file} changes faster than it can be copied; try again, or stop the host")


def _mark(file: Path) -> tuple[object, ...]:
    """Give what is another one when a copy that was begun before cannot be used."""
    found = file.stat()
    header = b""
    with suppress(FileNotFoundError), _log(file).open("rb") as log:
        header = log.read(_HEADER)
    return (found.st_ino, header) if header else (found.st_ino, found.st_mtime_ns, found.st_size)


def _log(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _complete(file: Path, copy: Path) -> bool:
    """Make one file of a copy and its log, and see that it holds together; says whether it has tables."""
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise EventsDamaged(file, found)
            layout = layout_of(connection, file)
            if layout:
                give_back(connection)
    except sqlite3.Error as error:
        raise unusable_events(file, error) from error
    return bool(layout)


def check_copy(copy: Path, counts: Counter[str]) -> Iterator[str]:
    """Read everything in a copy of a file of events; gives what cannot be read, a sentence each.

    :param counts: how many events there are, by state; what is found is added.
    """
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        columns = "accepted_at, failures, throttles, deaths, details, zeroblob(0)"
        for key, state, ended, *event in connection.execute(f"SELECT key, state, ended, {columns} FROM events"):
            try:
                counts[STATES[state]] += 1
                event_of(event)
                end_of(ended, b"")
            except _UNREADABLE as broken:
                yield f"{copy.name} event {key}: it cannot be read ({broken!r})"
        for name, key, details in connection.execute("SELECT id, event, details FROM deliveries"):
            try:
                delivery_of(details, b"")
            except _UNREADABLE as broken:
                yield f"{copy.name} event {key}: its delivery {name} cannot be read ({broken!r})"
