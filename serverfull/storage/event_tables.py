"""The tables of a file of events: made, brought up from older layouts, and taken over from processes that are gone.

What an older serverfull has left is changed where it is, in one transaction: a crash leaves it as it was.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from serverfull.errors import EventsDamaged, StateDamaged, StateTooNew, StateUnusable
from serverfull.storage.sqlite_errors import unusable

STATES = ("waiting", "running", "delivering", "ended")
"""What the numbers mean that events have as their states."""

LAYOUT = 2
"""The number of the tables below; a file of a lower one is brought up to it when it is opened."""

_CHECKED_BYTES = 64_000_000
"""Size up to which a file is read as a whole before it is used: 0.3 s. Reading a larger one would delay the start."""

_TABLES = """
CREATE TABLE events (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    line TEXT NOT NULL,
    name TEXT NOT NULL,
    state INTEGER NOT NULL,
    due REAL NOT NULL,
    token INTEGER NOT NULL,
    accepted_at REAL NOT NULL,
    failures INTEGER NOT NULL,
    throttles INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    details TEXT NOT NULL,
    ended TEXT,
    undelivered TEXT NOT NULL DEFAULT '',
    response BLOB,
    payload BLOB NOT NULL
);
CREATE INDEX waiting ON events (line, due, key) WHERE state = 0;
CREATE INDEX not_waiting ON events (state, due) WHERE state <> 0;
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    event INTEGER NOT NULL,
    target TEXT NOT NULL,
    due REAL,
    attempts INTEGER NOT NULL,
    details TEXT NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (due) WHERE due IS NOT NULL;
CREATE INDEX deliveries_of ON deliveries (event);
"""

_NAMES = """
CREATE TABLE names (
    line TEXT NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (line, name)
) WITHOUT ROWID
"""


def prepare(connection: sqlite3.Connection, file: Path | None) -> None:
    """Make the tables, or bring those of an older layout up; within a transaction.

    :param file: what is connected to; None: memory.
    :raises EventsDamaged: the file is broken; one that is large is not looked at as a whole.
    :raises StateTooNew: a newer serverfull wrote it.
    """
    execute = connection.execute
    layout = layout_of(connection, file)
    if layout == 0:
        for statement in _TABLES.split(";"):
            execute(statement)
    elif file is not None and file.stat().st_size <= _CHECKED_BYTES:
        _check(connection, file)
    if layout < 2:
        execute(_NAMES)
    if layout < LAYOUT:
        execute(f"PRAGMA user_version = {LAYOUT}")


def layout_of(connection: sqlite3.Connection, file: Path | None) -> int:
    """Give the layout of the tables; 0: there are none yet.

    :raises StateTooNew: a newer serverfull wrote the file.
    """
    layout: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if layout > LAYOUT:
        raise StateTooNew(
            f"{file} was written by a newer serverfull (its events have layout {layout}, this one knows {LAYOUT} at "
            "most): start that one"
        )
    return layout


def _check(connection: sqlite3.Connection, file: Path) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise EventsDamaged(file, found)


def inherit(connection: sqlite3.Connection, now: float, longest_delay: float) -> None:
    """Make what a process that is gone has left this one's; within a transaction.

    :param longest_delay: seconds that an event may have to wait. One that would wait longer has been written by a clock
        that was ahead.
    """
    execute = connection.execute
    execute("UPDATE events SET state = 0, due = ?, deaths = deaths + 1, token = token + 1 WHERE state = 1", (now,))
    execute(
        # Only a function that has failed waits on: what refused others was the host before.
        "UPDATE events SET due = ? WHERE state = 0 AND due > ? AND (due > ? OR failures = 0 OR throttles > 0)",
        (now, now, now + longest_delay),
    )
    execute("UPDATE events SET accepted_at = ? WHERE accepted_at > ?", (now, now))
    execute("UPDATE deliveries SET due = ? WHERE due > ?", (now, now + longest_delay))


def give_back(connection: sqlite3.Connection) -> None:
    """Let events wait that run, without a death: no host has died."""
    connection.execute("UPDATE events SET state = 0, token = token + 1 WHERE state = 1")


def last_key(connection: sqlite3.Connection) -> int:
    """Give the highest key that an event has ever had, of those that are gone too."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if found is None else int(found[0])


def unusable_events(file: Path | None, error: sqlite3.Error) -> StateUnusable:
    """Say what an error of SQLite means for those who start a host, or look into its files."""
    found = unusable(file or Path(":memory:"), error)
    return EventsDamaged(file, str(error)) if isinstance(found, StateDamaged) else found
