"""The database of events, and what is done with it in transactions. All of it runs on one thread.

One process has the file, by a lock that the kernel takes back when the process ends and that its children do not
inherit. So what another process had leased is known to be nobody's by the time that the file can be opened, whatever
the clock says, and needs no time after which a lease ends.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.events import (
    ACCEPTED_BEFORE,
    NAME_TAKEN,
    Delivery,
    EventEnd,
    KeptEvent,
    Lease,
    PendingDelivery,
    QueuedEvent,
    Upcoming,
)
from serverfull.errors import InternalFailure, StateInUse
from serverfull.storage.event_copies import Copiers
from serverfull.storage.event_rows import (
    delivery_details,
    delivery_of,
    details_of,
    end_details,
    end_of,
    event_of,
    in_ascii,
)
from serverfull.storage.event_tables import STATES, give_back, inherit, last_key, prepare, unusable_events

if TYPE_CHECKING:
    from serverfull.interfaces import Clock

_WAITING, _RUNNING, _DELIVERING, _ENDED = range(4)

_LOG_PAGES = 4000
"""Pages in the log after which they are moved into the database."""

_VALUES = 10
_INSERTS = {
    rows: "INSERT INTO events (key, line, name, state, due, token, accepted_at, failures, throttles, deaths, details,"
    f" payload) VALUES {', '.join(['(?, ?, ?, 0, ?, 0, ?, ?, ?, ?, ?, ?)'] * rows)}"
    for rows in (64, 32, 16, 8, 4, 2, 1)
}
"""What inserts so many new events of so many values each. A row costs half of what it does with a statement of its
own, and there are few statements, so that all stay prepared."""

_EVENT = "accepted_at, failures, throttles, deaths, details, payload"
_ENDS_EARLY = "accepted_at, failures, throttles, deaths, details, zeroblob(0)"
_SHORT_RESPONSE = "CASE WHEN length(response) <= 8192 THEN response ELSE zeroblob(0) END"


class EventFile:
    """Events in a file, or in memory.

    :param file: made where it does not exist; None: in memory.
    :param clock: says when what is appended is due.
    :param synchronous: ``full`` or ``normal``, for what was accepted.
    :param longest_delay: seconds that an event may have to wait; see `inherit`.
    :raises StateInUse: another host has the file.
    :raises EventsDamaged: it is broken.
    :raises StateTooNew: a newer serverfull wrote it.
    :raises StateUnusable: it cannot be opened.
    """

    def __init__(self, file: Path | None, clock: Clock, *, synchronous: str, longest_delay: float) -> None:
        self._file = file
        self._clock = clock
        self._accepting = synchronous.upper()
        self._level = ""
        self._copiers: Copiers | None = None
        self._copied = False
        try:
            self._connection = sqlite3.connect(":memory:" if file is None else file, isolation_level=None, timeout=0)
            try:
                self._open(longest_delay)
            except BaseException:
                self.release()
                raise
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise StateInUse(f"{file} is used by another host: stop that one, or name another folder") from error
            raise unusable_events(file, error) from error
        except sqlite3.Error as error:
            raise unusable_events(file, error) from error
        self._identity = _identity(file)

    def _open(self, longest_delay: float) -> None:
        execute = self._connection.execute
        if self._file is not None:
            execute("PRAGMA locking_mode = EXCLUSIVE")
            execute("PRAGMA journal_mode = WAL")
            execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            execute("PRAGMA journal_size_limit = 67108864")
            self._file.chmod(0o600)
            self._copiers = Copiers(self._file.parent)
        self._synchronise("FULL")
        with self._transaction():
            prepare(self._connection, self._file)
            inherit(self._connection, self._clock.now(), longest_delay)
            self._last_key = last_key(self._connection)

    def close(self) -> None:
        """Give the file back; what was leased is not, and no host has died. Closing twice is fine."""
        try:
            with self._transaction():
                give_back(self._connection)
        except sqlite3.Error:  # closed before, or the disk fails: a death that was none is counted
            pass
        finally:
            self.release()

    def release(self) -> None:
        """Give the file back as a process does that is killed. Releasing twice is fine."""
        self._connection.close()
        if self._copiers is not None:
            self._copiers.close()

    def check_place(self) -> None:
        """See that the file is still the one that others will find.

        :raises InternalFailure: it was deleted, or replaced: what is written would be gone with this process.
        """
        if _identity(self._file) != self._identity:
            raise InternalFailure(f"{self._file} is gone or another file. Restart the host.")

    @contextmanager
    def transaction(self, *, accepting: bool) -> Iterator[None]:
        """Do all that follows, or nothing where it raises.

        :param accepting: somebody is told afterwards that the host has it, so it has to be on the disk. Everything else
            survives the end of the process, and would only be done again after a power loss.
        """
        if accepting and self._file is not None:
            self.check_place()
        self._synchronise(self._accepting if accepting else "NORMAL")
        self._let_copy()
        with self._transaction():
            yield

    def _synchronise(self, level: str) -> None:
        if level != self._level:
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._level = level

    def _let_copy(self) -> None:
        """Leave the log as it is for as long as somebody copies it."""
        if self._copiers is not None and self._copiers.any() != self._copied:
            self._copied = not self._copied
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {0 if self._copied else _LOG_PAGES}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def append(self, events: Sequence[QueuedEvent]) -> list[int]:
        """Add events that are due now; gives their keys."""
        now, keys = self._clock.now(), []
        values: list[Any] = []
        for event in events:
            if event.execution_name is not None and (taken := self._name(event, now)) is not None:
                keys.append(taken)
                continue
            key = self._new_key()
            values += (key, event.line, event.name, now, event.accepted_at, event.failures, event.throttles)
            values += (event.deaths, details_of(event), event.payload)
            keys.append(key)
        begin = 0
        for rows, statement in _INSERTS.items():
            size = rows * _VALUES
            while begin + size <= len(values):
                self._connection.execute(statement, values[begin : begin + size])
                begin += size
        return keys

    def _new_key(self) -> int:
        """Give a key that no event has had. The file's sequence remembers it, from when it is committed."""
        self._last_key += 1
        return self._last_key

    def _name(self, event: QueuedEvent, now: float) -> int | None:
        """Give an event its name, or say why it is not to be taken."""
        named = f"{event.line}/{event.generation}", event.execution_name
        digest = hashlib.sha256(event.payload).digest()
        found = self._connection.execute("SELECT digest FROM names WHERE line = ? AND name = ?", named).fetchone()
        if found is None:
            self._connection.execute("INSERT INTO names VALUES (?, ?, ?, ?)", (*named, digest, now))
            return None
        return ACCEPTED_BEFORE if found[0] == digest else NAME_TAKEN

    def lines(self) -> dict[str, int]:
        """Count what waits, by line."""
        return dict(self._connection.execute("SELECT line, count(*) FROM events WHERE state = 0 GROUP BY line"))

    def upcoming(self, line: str, limit: int) -> list[Upcoming]:
        """Give what waits in a line, and when it is due."""
        rows = self._connection.execute(
            "SELECT key, due, deaths FROM events WHERE state = 0 AND line = ? ORDER BY due, key LIMIT ?", (line, limit)
        )
        return [Upcoming(*row) for row in rows]

    def claim(self, key: int, by: float) -> Lease | None:
        """Lease an event that waits, if it is due by then."""
        waits = f"SELECT token, {_EVENT} FROM events WHERE key = ? AND state = 0 AND due <= ?"
        found = self._connection.execute(waits, (key, by)).fetchone()
        if found is None:
            return None
        token = found[0] + 1
        self._connection.execute(
            "UPDATE events SET state = 1, token = ?, due = ? WHERE key = ?", (token, self._clock.now(), key)
        )
        return Lease(key, token, event_of(found[1:]))

    def reschedule(self, lease: Lease, event: QueuedEvent, due: float) -> bool:
        """Let a leased event wait."""
        changed = self._connection.execute(
            "UPDATE events SET state = 0, due = ?, failures = ?, throttles = ?, deaths = ?"
            " WHERE key = ? AND token = ? AND state = 1",
            (max(due, self._clock.now()), event.failures, event.throttles, event.deaths, lease.key, lease.token),
        )
        return changed.rowcount == 1

    def end(self, lease: Lease, end: EventEnd, deliveries: Sequence[Delivery], *, keep: bool) -> bool:
        """End a leased event."""
        valid = "key = ? AND token = ? AND state = 1", (lease.key, lease.token)
        if not deliveries and not keep:
            return self._connection.execute(f"DELETE FROM events WHERE {valid[0]}", valid[1]).rowcount == 1
        text, response = end_details(end)
        changed = self._connection.execute(
            f"UPDATE events SET state = ?, due = ?, ended = ?, response = ? WHERE {valid[0]}",
            (_DELIVERING if deliveries else _ENDED, end.at, text, response, *valid[1]),
        )
        if changed.rowcount != 1:
            return False
        for delivery in deliveries:
            self._connection.execute(
                "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, 0, ?, ?)",
                (delivery.id, lease.key, delivery.target, end.at, delivery_details(delivery), delivery.body),
            )
        return True

    def pending(
        self, limit: int, running: Collection[str], besides: Collection[str]
    ) -> tuple[list[PendingDelivery], float | None]:
        """Give what is to be delivered now, and when there is more."""
        now = self._clock.now()
        others = f"id NOT IN ({', '.join('?' * len(running))}) AND target NOT IN ({', '.join('?' * len(besides))})"
        rows = self._connection.execute(
            f"SELECT details, body, attempts FROM deliveries WHERE due <= ? AND {others} ORDER BY due LIMIT ?",
            (now, *running, *besides, limit),
        )
        found = [PendingDelivery(delivery_of(details, body), attempts) for details, body, attempts in rows]
        later = self._connection.execute("SELECT min(due) FROM deliveries WHERE due > ?", (now,)).fetchone()[0]
        return found, later

    def delivered(self, delivery_id: str) -> None:
        """Forget a delivery, and its event with the last one."""
        self._settle(delivery_id, "DELETE FROM deliveries WHERE id = ?", (delivery_id,))

    def undelivered(self, delivery_id: str, reason: str, again: float | None) -> None:
        """Note that a delivery has failed, for now or for good."""
        self._connection.execute(
            "UPDATE events SET undelivered = ? WHERE key = (SELECT event FROM deliveries WHERE id = ?)",
            (in_ascii(reason), delivery_id),
        )
        if again is not None:
            self._connection.execute(
                "UPDATE deliveries SET due = ?, attempts = attempts + 1 WHERE id = ?", (again, delivery_id)
            )
            return
        self._settle(
            delivery_id, "UPDATE deliveries SET due = NULL, attempts = attempts + 1 WHERE id = ?", (delivery_id,)
        )

    def _settle(self, delivery_id: str, statement: str, values: tuple[str, ...]) -> None:
        """Take a delivery from those that are made; with the last one its event goes, or is kept."""
        row = self._connection.execute("SELECT event FROM deliveries WHERE id = ?", (delivery_id,)).fetchone()
        if row is None:
            return
        self._connection.execute(statement, values)
        left = self._connection.execute(
            "SELECT count(*), count(due) FROM deliveries WHERE event = ?", (row[0],)
        ).fetchone()
        if left[0] == 0:
            self._connection.execute("DELETE FROM events WHERE key = ? AND state = 2", (row[0],))
        elif left[1] == 0:
            self._connection.execute("UPDATE events SET state = 3 WHERE key = ? AND state = 2", (row[0],))

    def shown(
        self, states: Sequence[str], *, function: str | None, after: int, limit: int, keys: Sequence[int] = ()
    ) -> list[KeptEvent]:
        """Give events for people to look at; with payloads and long responses where they are asked for by key."""
        numbers = ", ".join(str(STATES.index(state)) for state in states)
        where, values = [f"state IN ({numbers})", "key > ?"], [after]
        if function is not None:
            where.append("name = ?")
            values.append(function)  # type: ignore[arg-type]
        if keys:
            where.append(f"key IN ({', '.join(str(int(key)) for key in keys)})")
        rows = self._connection.execute(
            f"SELECT key, state, due, ended, undelivered, length(payload), {'response' if keys else _SHORT_RESPONSE},"
            f" {_EVENT if keys else _ENDS_EARLY} FROM events WHERE {' AND '.join(where)} ORDER BY key LIMIT ?",
            (*values, limit),
        )
        return [
            KeptEvent(key, event_of(event), STATES[state], due, end_of(ended, response), undelivered, size)
            for key, state, due, ended, undelivered, size, response, *event in rows
        ]

    def copy_from(self, other: EventFile) -> None:
        """Take over all events of another file, which nobody else has, and what is to be delivered for them."""
        execute = self._connection.execute
        columns = (
            "key, line, name, state, due, token, accepted_at, failures, throttles, deaths, details, ended, undelivered"
        )
        columns += ", response, payload"
        with self.transaction(accepting=True):
            for name in other._connection.execute("SELECT * FROM names"):
                execute("INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?)", name)
            for old, *event in other._connection.execute(f"SELECT {columns} FROM events ORDER BY key"):
                row = self._new_key(), *event
                execute(f"INSERT INTO events ({columns}) VALUES ({', '.join('?' * len(row))})", row)
                for delivery in other._connection.execute("SELECT * FROM deliveries WHERE event = ?", (old,)):
                    values = delivery[0], row[0], *delivery[2:]
                    execute("INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            # Where a crash interrupted this, what is delivered for is here from before, too.
            execute("DELETE FROM events WHERE state = 2 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = key)")

    def redrive(self, keys: Sequence[int]) -> int:
        """Let ended events run again, or be delivered."""
        now, count = self._clock.now(), 0
        for key in keys:
            again = self._connection.execute(
                "UPDATE deliveries SET due = ?, attempts = 0 WHERE event = ? AND due IS NULL",
                (now, key),
            ).rowcount
            if again:
                statement = "UPDATE events SET state = 2, undelivered = '' WHERE key = ? AND state = 3"
                values: tuple[Any, ...] = (key,)
            else:
                statement = (
                    "UPDATE events SET state = 0, due = ?, accepted_at = ?, failures = 0, throttles = 0, deaths = 0,"
                    " ended = NULL, response = NULL, undelivered = '' WHERE key = ? AND state = 3"
                )
                values = (now, now, key)
            count += self._connection.execute(statement, values).rowcount
        return count

    def purge(self, keys: Sequence[int]) -> int:
        """Delete events that do not run."""
        count = 0
        for key in keys:
            gone = self._connection.execute("DELETE FROM events WHERE key = ? AND state <> 1", (key,)).rowcount
            if gone:
                self._connection.execute("DELETE FROM deliveries WHERE event = ?", (key,))
            count += gone
        return count

    def forget(self, ended_before: float) -> int:
        """Delete what ended long ago, and names that were given then."""
        self._connection.execute("DELETE FROM names WHERE at < ?", (ended_before,))
        rows = self._connection.execute(
            "SELECT key FROM events WHERE state = 3 AND due < ? LIMIT 1000", (ended_before,)
        )
        return self.purge([key for (key,) in rows.fetchall()])


def _identity(file: Path | None) -> tuple[int, int] | None:
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
