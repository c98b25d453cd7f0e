"""``serverfull state check``: whether a state is whole, down to each record and each package. Changes nothing."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serverfull.domain.checksums import sha256_of
from serverfull.domain.kinds import KINDS
from serverfull.domain.records import Kind
from serverfull.errors import EventsDamaged, InternalFailure, StateDamaged
from serverfull.storage.event_copies import check_copy, copy_events, holds_events_alone
from serverfull.storage.examination import connect, examine
from serverfull.storage.folder import CODE, DATABASE, EVENTS
from serverfull.storage.records import restored
from serverfull.storage.sqlite_errors import unusable
from serverfull.storage.tables import DOCUMENT, PARTITION

PATIENCE = 5.0
"""Seconds to wait for a lock. The host that uses the state holds none that would keep readers out."""


@dataclass(slots=True)
class Report:
    """What was found.

    :param revision: that of the tables; None: there are events and nothing else.
    :param counts: how many records there are, by kind.
    :param events: how many events there are, by state.
    :param problems: what is wrong, a sentence each.
    """

    revision: str | None
    counts: dict[str, int] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def check(directory: Path, events: Path | None = None) -> Report:
    """Read everything that a state holds. The host that uses it may go on meanwhile.

    :param directory: the state's, or one with events and nothing else.
    :param events: where its events are, if not in its own folder of them.
    :raises StateDamaged: the database does not hold together, or is not there.
    :raises StateTooNew: a newer serverfull wrote it.
    :raises StateUnusable: it cannot be read.
    """
    file = directory / DATABASE
    if holds_events_alone(directory):
        report = Report(None)
        _check_events(directory, report)
        return report
    if not file.is_file():
        raise StateDamaged(file, "does not exist")
    report = Report(examine(file, timeout=PATIENCE, thorough=True).revision)
    packages = _Packages(directory / CODE)
    try:
        with closing(connect(file, timeout=PATIENCE)) as connection:
            connection.execute("BEGIN")  # one view, whatever the host does
            for kind in KINDS:
                _check_kind(connection, kind, packages, report)
    except sqlite3.Error as error:
        raise unusable(file, error) from error
    _check_events(events or directory / EVENTS, report)
    return report


def _check_events(folder: Path, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="serverfull-check-") as copies:
        try:
            for copy in copy_events(folder, Path(copies)):
                report.problems += check_copy(copy, report.events)
        except EventsDamaged as damaged:
            report.problems.append(str(damaged))


def _check_kind(connection: sqlite3.Connection, kind: Kind[Any], packages: _Packages, report: Report) -> None:
    there = {name for _, name, *_ in connection.execute(f'PRAGMA table_info("{kind.name}")')}
    if not there:
        return  # a database from before the kind lacks its table until the next start, and others some of their columns
    columns = [*PARTITION, *(name for name in (*kind.key, *kind.indexed) if name in there), DOCUMENT]
    # Names of our own tables and columns; there is nothing of a user's in them.
    rows = connection.execute(f'SELECT {", ".join(columns)} FROM "{kind.name}"')  # noqa: S608
    report.counts[kind.name] = 0
    for values in rows:
        report.counts[kind.name] += 1
        row = dict(zip(columns, values, strict=True))
        where = " ".join(str(row[name]) for name in (*PARTITION, *kind.key) if name in there)
        report.problems += (f"{kind.name} {where}: {problem}" for problem in _problems(kind, row, packages))


def _problems(kind: Kind[Any], row: dict[str, Any], packages: _Packages) -> Iterator[str]:
    try:
        record = restored(kind, row[DOCUMENT])
    except InternalFailure as broken:
        yield f"the record cannot be read ({broken.__cause__})"
        return
    for name in (*kind.key, *kind.indexed):
        if name in row and getattr(record, name) != row[name]:
            yield f"the record says {getattr(record, name)!r} for {name}, and its row {row[name]!r}"
    package = getattr(record, "code_sha256", "")
    if package and (problem := packages.problem(package)):
        yield problem


class _Packages:
    """The packages beside the database. Where there is no folder of them, they are kept elsewhere and not looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._here = folder.exists()
        self._found: dict[str, str | None] = {}

    def problem(self, sha256: str) -> str | None:
        """Say what is wrong with a package; many records may have the same."""
        if sha256 not in self._found:
            self._found[sha256] = self._look(sha256) if self._here else None
        return self._found[sha256]

    def _look(self, sha256: str) -> str | None:
        file = self._folder / f"{sha256}.zip"
        try:
            return None if sha256_of(file.read_bytes()) == sha256 else f"its package {file} is damaged"
        except OSError as wrong:
            return f"its package {file} cannot be read ({wrong.strerror})"
