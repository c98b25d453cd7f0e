"""A connection to SQLite and the transactions on it. Everything here runs on the thread of the state.

What goes wrong while the host runs (a full disk, a file that vanishes, another program's lock) fails the transaction
and nothing else; the next one tries again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from serverfull.domain.json_functions import dumps
from serverfull.domain.records import Kind, Partition, Record
from serverfull.errors import InternalFailure, StateUnusable
from serverfull.interfaces import Records
from serverfull.storage.examination import connect, examine
from serverfull.storage.migrations import REVISIONS
from serverfull.storage.records import SqlRecords, Statements, restored

Result = TypeVar("Result")

_PATIENCE = 0.02
"""Seconds that the thread waits for a lock of another program, while it can do nothing else. Writes are tried again."""

_Identity: TypeAlias = "tuple[tuple[int, int], tuple[int, int]]"


class Locked(Exception):
    """Another program has the database for itself; nothing was done."""


class Database:
    """The records in a file that exists, or in memory.

    :param file: the database, examined and up to date; None keeps it in memory.
    :param reached: called with the name of each point of a write that a test may want to stop at.
    :raises SQLAlchemyError: it cannot be connected to.
    """

    def __init__(self, file: Path | None, *, reached: Callable[[str], None]) -> None:
        self._statements = Statements()
        self._file = file
        self._reached = reached
        # Hidden, for errors are logged, and functions' variables are among the parameters.
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=NullPool, hide_parameters=True)
        self._identity: _Identity | None = None
        self._connection: Connection | None = self._connected()
        if file is None:
            self._statements.metadata.create_all(self._connection)
            self._connection.commit()

    def read(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        """Run work that changes nothing.

        :raises InternalFailure: the database cannot be read.
        """
        connection = self._ready()
        records = SqlRecords(connection, self._statements, partition, writable=False)
        with _failing_alone(), _transaction(connection, "BEGIN"):
            return work(records)

    def everywhere(self, kind: Kind[Record]) -> Sequence[tuple[Partition, Record]]:
        """Give all records of a kind.

        :raises InternalFailure: the database cannot be read.
        """
        connection = self._ready()
        with _failing_alone(), _transaction(connection, "BEGIN"):
            rows = connection.execute(self._statements.everywhere(kind))
            return [(Partition(account, region), restored(kind, text)) for account, region, text in rows]

    def write(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        """Run work and keep what it changed.

        :raises Locked: another program writes; try again.
        :raises InternalFailure: the database cannot be written.
        """
        connection = self._ready()
        records = SqlRecords(connection, self._statements, partition, writable=True)
        with _failing_alone():
            self._reached("before begin")
            with _transaction(connection, "BEGIN IMMEDIATE"):
                result = work(records)
                self._reached("before commit")
            self._reached("after commit")
            return result

    def note_fields(self, fields: Mapping[str, Iterable[str]]) -> None:
        """Remember which fields documents may have from now on, by kind.

        :raises Locked: another program writes; try again.
        """
        rows = [{"kind": kind, "fields": dumps(sorted(names))} for kind, names in fields.items()]
        connection = self._ready()
        with _failing_alone(), _transaction(connection, "BEGIN IMMEDIATE"):
            connection.execute(self._statements.note_fields, rows)

    def close(self) -> None:
        """Close the connection. Closing twice is fine."""
        self._disconnect()
        self._engine.dispose()

    def _ready(self) -> Connection:
        """Give the connection, a new one where the files are not those that it has open.

        A connection whose file is gone would go on writing to it, and all of that would be lost with the connection.
        """
        if self._connection is not None and (self._file is None or self._identity == _identity_of(self._file)):
            return self._connection
        try:
            return self._reconnected()
        except (OSError, SQLAlchemyError, StateUnusable) as failure:
            self._disconnect()
            raise InternalFailure from failure

    def _reconnected(self) -> Connection:
        self._disconnect()
        assert self._file is not None
        now = _number(self._file)
        if self._identity is not None and now != self._identity[0]:
            # SQLite would apply the log of the former file to this one.
            log = _log_of(self._file)
            with suppress(FileNotFoundError):
                log.rename(log.with_name(f"{log.name}.orphan"))
        found = examine(self._file, timeout=_PATIENCE)
        if found.revision != REVISIONS[-1]:
            raise StateUnusable(f"{self._file} was replaced by one of revision {found.revision}: restart the host")
        self._connection = self._connected()
        return self._connection

    def _connected(self) -> Connection:
        connection = self._engine.connect()
        if self._file is None:
            return connection
        if connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one() != "wal":
            raise StateUnusable(f"{self._file} is on a file system that cannot keep a database (no shared memory)")
        # FULL: what was acknowledged survives a power loss. NORMAL, the usual choice for this mode, loses it.
        connection.exec_driver_sql("PRAGMA synchronous = FULL")
        connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()  # SQLite opens its files now
        connection.commit()
        self._identity = _identity_of(self._file) or self._identity
        return connection

    def _connect(self) -> sqlite3.Connection:
        if self._file is None:
            return sqlite3.connect(":memory:", isolation_level=None)
        return connect(self._file, timeout=_PATIENCE)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def _failing_alone() -> Iterator[None]:
    """Make an error of the database the failure of this one call.

    The connection stays: where the disk is full, reads go on, and a new connection could not be made.
    """
    try:
        yield
    except SQLAlchemyError as failure:
        raise InternalFailure from failure


@contextmanager
def _transaction(connection: Connection, begin: str) -> Iterator[None]:
    """Keep what is done inside, or nothing where that raises.

    :raises Locked: it cannot begin.
    """
    try:
        connection.exec_driver_sql(begin)
    except DBAPIError as failure:
        connection.rollback()
        if getattr(failure.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise Locked("another program has locked the database") from failure
        raise
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _number(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def _identity_of(file: Path) -> _Identity | None:
    """Tell the database and its log from other files that have their names later; None where one of them is gone."""
    try:
        return _number(file), _number(_log_of(file))
    except FileNotFoundError:
        return None
