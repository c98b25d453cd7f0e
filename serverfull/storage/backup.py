"""``serverfull state backup``: a state as one tar file, taken while its host runs or not.

In it are ``state.db``, the packages as ``code/<sha256>.zip``, the events as ``events/events-<number>.db``, and an
empty ``-wal`` beside each database. Unpacked into a folder, it is a state. The empty files are there for those who
unpack over an old state: SQLite would apply the logs of that one. A folder of events alone becomes one again.
"""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from serverfull.errors import StateDamaged, StateUnusable
from serverfull.storage.checking import PATIENCE
from serverfull.storage.durable import held
from serverfull.storage.event_copies import copy_events, holds_events_alone
from serverfull.storage.examination import connect, examine
from serverfull.storage.folder import CODE, DATABASE, EVENTS, sync_folder
from serverfull.storage.sqlite_errors import unusable


def back_up(directory: Path, file: Path, events: Path | None = None) -> int:
    """Write a state to a tar file that does not exist; it gets its name when it is whole. Gives its size in bytes.

    :param directory: the state's, or one with events and nothing else.
    :param events: where its events are, if not in its own folder of them.
    :raises StateDamaged: the state is broken, or there is none; there is no backup.
    :raises EventsDamaged: its events are; there is no backup.
    :raises StateUnusable: it cannot be read, or the file not be written; there is no backup.
    """
    source, alone = directory / DATABASE, holds_events_alone(directory)
    if not alone and not source.is_file():
        raise StateDamaged(source, "does not exist")
    if file.exists():
        raise StateUnusable(f"{file} exists already; a backup replaces nothing")
    try:
        with tempfile.TemporaryDirectory(prefix=".serverfull-backup-", dir=file.parent) as folder:
            written, copies = Path(folder) / "backup.tar", Path(folder) / EVENTS
            copies.mkdir()
            # The events first: all functions that have some are in a state that is copied later.
            found = copy_events(directory if alone else events or directory / EVENTS, copies)
            if alone:
                _pack(written, {copy.name: copy for copy in found})
            else:
                with _no_package_swept(directory / CODE):
                    _copy(source, Path(folder) / DATABASE)
                    _pack(written, _parts(Path(folder) / DATABASE, directory / CODE, found))
            size = written.stat().st_size
            written.rename(file)
        sync_folder(file.parent)
    except OSError as wrong:
        raise StateUnusable(f"{file} cannot be written: {wrong}") from wrong
    return size


@contextmanager
def _no_package_swept(code: Path) -> Iterator[None]:
    """Keep the host from deleting packages that the database, as it was copied, still names."""
    if not code.is_dir():
        yield
        return
    with held(code):
        yield


def _copy(source: Path, copy: Path) -> None:
    """Copy the database as it is at one moment, and see that the copy is whole.

    :raises StateUnusable: it cannot be read, or is damaged.
    """
    try:
        with closing(connect(source, timeout=PATIENCE)) as live, closing(sqlite3.connect(copy)) as saved:
            live.backup(saved)
    except sqlite3.Error as error:
        raise unusable(source, error) from error
    try:
        examine(copy, timeout=PATIENCE, thorough=True)
    except StateDamaged as damaged:
        raise StateDamaged(source, "is damaged") from damaged


def _parts(database: Path, code: Path, events: Sequence[Path]) -> dict[str, Path]:
    """Give what is in a backup, by its name there."""
    parts = {DATABASE: database}
    if code.is_dir():
        parts[CODE] = code
        parts |= {f"{CODE}/{package.name}": package for package in sorted(code.glob("*.zip"))}
    if events:
        parts[EVENTS] = events[0].parent
    return parts | {f"{EVENTS}/{copy.name}": copy for copy in events}


def _pack(written: Path, parts: Mapping[str, Path]) -> None:
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        with tarfile.open(fileobj=target, mode="w") as archive:
            for name, part in parts.items():
                archive.add(part, name, recursive=False, filter=_private)
                if part.suffix == ".db":
                    archive.addfile(_private(tarfile.TarInfo(f"{name}-wal")), io.BytesIO())
        target.flush()
        os.fsync(target.fileno())


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Let who unpacks it own it, and nobody else read it."""
    member.mode = 0o700 if member.isdir() else 0o600
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
