"""What errors of SQLite mean for those who start a host, of whatever a file holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from serverfull.errors import StateDamaged, StateUnusable

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def unusable(file: Path, error: sqlite3.Error) -> StateUnusable:
    """Say what an error means, as one that can be raised."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is detail
    if code in _DAMAGED:
        return StateDamaged(file, f"is damaged ({error})")
    if code in _LOCKED:
        return StateUnusable(f"{file} is locked by another program")
    return StateUnusable(f"{file} cannot be used: {error}")
