"""Writes the migration that brings the tables of the last one to the kinds of today, for `serverfull.storage`.

    python cmd/migration.py "Keep what layers publish"    a further step
    python cmd/migration.py --initial                     the first step anew, as long as it has never been released

Read what it wrote, run ``ruff format`` on it, and add a further step to REVISIONS in
serverfull/storage/migrations/__init__.py.
"""

from __future__ import annotations

import sqlite3
import sys

from alembic import command
from sqlalchemy import create_engine

from serverfull.storage.migrating import SCRIPTS, configuration
from serverfull.storage.migrations import REVISIONS

INITIAL = SCRIPTS / "versions" / "r0001_initial_tables.py"


def main(message: str) -> None:
    initial = message == "--initial"
    if initial:
        INITIAL.unlink(missing_ok=True)
    revision = "0001" if initial else f"{len(REVISIONS) + 1:04}"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(":memory:", isolation_level=None))
    with engine.connect() as connection:
        config = configuration(connection)
        config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
        command.upgrade(config, "head")
        command.revision(config, "Initial tables" if initial else message, autogenerate=True, rev_id=revision)


if len(sys.argv) != 2:
    sys.exit(__doc__)
main(sys.argv[1])
