"""Looks whether a file is a whole state that this version can read, before anything is done with it.

Needs nothing but the standard library: a host that starts on a good state imports no alembic.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import quote

from serverfull.domain.json_functions import loads
from serverfull.domain.kinds import KINDS
from serverfull.errors import StateDamaged, StateTooNew
from serverfull.storage.migrations import REVISIONS
from serverfull.storage.sqlite_errors import unusable


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    :param revision: that of its tables.
    :param known_fields: the fields that documents in it may have, by kind.
    """

    revision: str
    known_fields: Mapping[str, frozenset[str]]


def own_fields() -> dict[str, frozenset[str]]:
    """Give the fields that this version knows, by kind."""
    return {kind.name: frozenset(field.name for field in fields(kind.record)) for kind in KINDS}


def connect(file: Path, *, timeout: float) -> sqlite3.Connection:
    """Connect to a database that exists; nothing is made where there is none.

    :param timeout: seconds to wait for another program's lock.
    """
    # No isolation level: the driver would begin transactions where it likes.
    return sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, isolation_level=None, timeout=timeout)


def examine(file: Path, *, timeout: float, thorough: bool = False) -> Examination:
    """Read the whole database and see whether it holds together.

    :param timeout: seconds to wait for another program's lock.
    :param thorough: compares the indexes with the rows, too, which takes several times as long.
    :raises StateDamaged: it is broken, or no state of serverfull.
    :raises StateTooNew: a newer serverfull wrote it.
    :raises StateUnusable: it cannot be read now.
    """
    try:
        with closing(connect(file, timeout=timeout)) as connection:
            found = connection.execute("PRAGMA integrity_check" if thorough else "PRAGMA quick_check").fetchall()
            if found != [("ok",)]:
                # A headline, and a line for each place; the first of them will do.
                place = next(line for line in str(found[0][0]).splitlines() if not line.startswith("***"))
                raise StateDamaged(file, f"is damaged ({place})")
            examination = _examined(file, connection)
            _refuse_newer(file, examination)
            _read_documents(file, connection, whole=examination.revision == REVISIONS[-1])
    except sqlite3.Error as error:
        raise unusable(file, error) from error
    return examination


def _read_documents(file: Path, connection: sqlite3.Connection, *, whole: bool) -> None:
    """See that every document is JSON in ASCII, as it was written: the check above looks at how a row is stored, not at
    what is in it. Parsing all of them would take some times as long.

    :param whole: whether every table has to be there. One from before a kind lacks its table until it is migrated.
    """
    tables = _tables(connection)
    for kind in KINDS:
        if kind.name not in tables:
            if whole:
                raise StateDamaged(file, f"is damaged (the table {kind.name} is missing)")
            continue
        query = f'SELECT json_valid(document), CAST(document AS BLOB) FROM "{kind.name}"'  # noqa: S608  # our own names
        broken = sum(not (valid and document.isascii()) for valid, document in connection.execute(query))
        if broken:
            raise StateDamaged(file, f"is damaged ({kind.name} that cannot be read: {broken})")


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _examined(file: Path, connection: sqlite3.Connection) -> Examination:
    if not {"alembic_version", "known_fields"} <= _tables(connection):
        raise StateDamaged(file, "is empty or holds no state of serverfull")
    revisions = connection.execute("SELECT CAST(version_num AS BLOB) FROM alembic_version").fetchall()
    rows = connection.execute("SELECT CAST(kind AS BLOB), CAST(fields AS BLOB) FROM known_fields").fetchall()
    try:
        ((revision,),) = revisions
        return Examination(revision.decode(), {kind.decode(): frozenset(loads(text)) for kind, text in rows})
    except (ValueError, TypeError, AttributeError) as broken:
        raise StateDamaged(file, f"is damaged (alembic_version or known_fields: {broken})") from broken


def _refuse_newer(file: Path, found: Examination) -> None:
    if found.revision not in REVISIONS:
        raise StateTooNew(
            f"{file} was written by a newer serverfull (its tables have revision {found.revision}, this one knows "
            f"{REVISIONS[-1]} at most): start that one, or restore a backup from before"
        )
    own = own_fields()
    for kind, known in found.known_fields.items():
        if new := known - own.get(kind, frozenset()):
            raise StateTooNew(
                f"{file} was written by a newer serverfull (its {kind} have {', '.join(sorted(new))}, which this one "
                "does not know): start that one, or restore a backup from before"
            )
