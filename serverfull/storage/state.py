"""The state of a host: what was deployed to it, in memory or in a directory.

`open_state` is all that others call. SQLAlchemy is imported when a state is opened and not before.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from serverfull.domain.records import Kind, Partition, Record
from serverfull.errors import InternalFailure, StateDamaged, StateUnusable
from serverfull.interfaces import Records, StateStore

if TYPE_CHECKING:
    from serverfull.storage.database import Database
    from serverfull.storage.folder import StateFolder
    from serverfull.storage.transactions import SerialThread

Result = TypeVar("Result")


async def open_state(
    directory: Path | None, *, lock_timeout: float = 5.0, reached: Callable[[str], None] | None = None
) -> StateStore:
    """Open a state, and make it where there is none.

    :param directory: where it is kept, for this host alone; None keeps it in memory.
    :param lock_timeout: seconds that a write waits for another program that has locked the database.
    :param reached: called, on the thread of the state, with the name of each point of a write, so that a test can stop
        the process there: ``before begin``, ``before commit``, ``after commit``, and for a database that is made or
        migrated ``before migration commit``, ``after migration commit``, ``before rename``, ``after rename``.
    :raises StateInUse: another host uses the directory.
    :raises StateDamaged: the database there is broken, or gone.
    :raises StateTooNew: a newer serverfull wrote it.
    :raises StateUnusable: it cannot be read or written.
    """
    from serverfull.storage.transactions import SerialThread

    thread = SerialThread("serverfull-state")
    try:
        opened = await thread.run(lambda: _open(directory, lock_timeout, reached or _pass))
    except BaseException:
        await thread.aclose(lambda: None)
        raise
    return SqlState(thread, *opened, lock_timeout=lock_timeout)


def _pass(_: str) -> None:
    """Stop nowhere."""


def _open(
    directory: Path | None, lock_timeout: float, reached: Callable[[str], None]
) -> tuple[Database, StateFolder | None]:
    from serverfull.storage.database import Database
    from serverfull.storage.folder import StateFolder

    if directory is None:
        return Database(None, reached=reached), None
    folder = StateFolder(directory)
    try:
        return _database_in(folder, lock_timeout, reached), folder
    except BaseException:
        folder.release()
        raise


def _database_in(folder: StateFolder, lock_timeout: float, reached: Callable[[str], None]) -> Database:
    """Open the database of a folder; it is as this version wants it when it is open."""
    from sqlalchemy.exc import SQLAlchemyError

    from serverfull.storage.database import Database, Locked
    from serverfull.storage.examination import examine, own_fields
    from serverfull.storage.migrations import REVISIONS

    file = folder.database
    if not file.exists():
        _make(folder, reached)
    folder.keep_private()
    found = examine(file, timeout=lock_timeout)
    if found.revision != REVISIONS[-1]:
        from serverfull.storage.migrating import upgrade

        upgrade(file, timeout=lock_timeout, reached=reached)
    try:
        database = Database(file, reached=reached)
        if found.known_fields != own_fields():
            database.note_fields(own_fields())
    except (SQLAlchemyError, InternalFailure, Locked) as failure:
        raise StateUnusable(f"{file} cannot be used: {failure.__cause__ or failure}") from failure
    folder.remember_use()
    return database


def _make(folder: StateFolder, reached: Callable[[str], None]) -> None:
    if folder.was_used:
        raise StateDamaged(folder.database, "is gone, and this folder has been used (delete it to begin anew)")
    from serverfull.storage.migrating import create

    create(folder.database, reached=reached)


class SqlState(StateStore):
    """Records in a database that is used on a thread of its own.

    :param thread: runs everything that touches the database.
    :param folder: is released when the state is closed.
    :param lock_timeout: seconds that a write waits for another program that has locked the database.
    """

    def __init__(
        self, thread: SerialThread, database: Database, folder: StateFolder | None, *, lock_timeout: float
    ) -> None:
        self._thread = thread
        self._database = database
        self._folder = folder
        self._lock_timeout = lock_timeout
        self._closed = False

    async def read(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        return await self._run(lambda: self._database.read(partition, work))

    async def write(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        from serverfull.storage.database import Locked

        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                return await self._run(lambda: self._database.write(partition, work))
            except Locked as locked:
                if time.monotonic() >= deadline:
                    raise InternalFailure from locked
            # Waiting here and not on the thread lets others read meanwhile.
            await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311  # spreads retries, hides nothing

    async def everywhere(self, kind: Kind[Record]) -> Sequence[tuple[Partition, Record]]:
        return await self._run(lambda: self._database.everywhere(kind))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._thread.aclose(self._close)

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._closed:
            raise InternalFailure("The state of this host is closed.")
        return await self._thread.run(work)

    def _close(self) -> None:
        self._database.close()
        if self._folder is not None:
            self._folder.release()
