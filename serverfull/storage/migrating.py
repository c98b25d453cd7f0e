"""Makes databases and brings old ones up to date. Importing this imports alembic: do it only where there is work."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from serverfull.errors import StateUnusable
from serverfull.storage.examination import connect
from serverfull.storage.folder import sync_folder
from serverfull.storage.sqlite_errors import unusable

SCRIPTS = Path(__file__).parent / "migrations"


def configuration(connection: Connection) -> Config:
    """Give alembic what it needs to work on a connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def create(file: Path, *, reached: Callable[[str], None]) -> None:
    """Make an empty state. It gets its name when it is whole, so there never is half of one.

    :raises StateUnusable: it cannot be written.
    """
    new = file.with_name(f"{file.name}.new")
    try:
        for left_over in (new, new.with_name(f"{new.name}-journal")):
            left_over.unlink(missing_ok=True)
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        upgrade(new, timeout=0, reached=reached)
        reached("before rename")
        new.rename(file)
        reached("after rename")
        sync_folder(file.parent)
    except OSError as wrong:
        raise StateUnusable(f"{file} cannot be made: {wrong.strerror}") from wrong


def upgrade(file: Path, *, timeout: float, reached: Callable[[str], None]) -> None:
    """Bring the tables of a state up to date, in one transaction.

    :raises StateUnusable: it cannot be done; the state is as it was.
    """
    engine = create_engine("sqlite://", creator=lambda: connect(file, timeout=timeout), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            command.upgrade(configuration(connection), "head")
            reached("before migration commit")
            connection.commit()
            reached("after migration commit")
    except SQLAlchemyError as failure:
        cause = failure.__cause__
        raise (unusable(file, cause) if isinstance(cause, sqlite3.Error) else _failed(file, failure)) from failure
    except CommandError as failure:
        raise _failed(file, failure) from failure
    finally:
        engine.dispose()


def _failed(file: Path, failure: Exception) -> StateUnusable:
    return StateUnusable(f"{file} cannot be brought up to date: {failure}")
