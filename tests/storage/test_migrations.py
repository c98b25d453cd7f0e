"""The migrations make the tables that the kinds of today need, and find the indexes used."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from serverfull.domain.deployed import FUNCTIONS, VERSIONS, DeployedFunction
from serverfull.domain.kinds import KINDS
from serverfull.domain.records import Kind, Partition
from serverfull.errors import StateUnusable
from serverfull.storage.migrating import SCRIPTS, create, upgrade
from serverfull.storage.migrations import REVISIONS
from serverfull.storage.records import Statements
from serverfull.storage.state import open_state
from serverfull.storage.tables import metadata_of

ROOT = Path(__file__).parents[2]
HERE = Partition("111122223333", "us-east-1")


@pytest.fixture
def migrated(tmp_path: Path) -> Path:
    create(tmp_path / "state.db", reached=lambda _: None)
    return tmp_path / "state.db"


@pytest.fixture
def database(migrated: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(migrated)) as connection:
        yield connection


def tables(connection: sqlite3.Connection) -> dict[str, Any]:
    """All that SQLite knows of the tables and indexes."""
    found = {}
    for (table,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'"
    ):
        indexes = {
            (name, unique, origin, tuple(connection.execute(f"PRAGMA index_xinfo({name})")))
            for _, name, unique, origin, _ in connection.execute(f"PRAGMA index_list({table})")
        }
        found[table] = (connection.execute(f"PRAGMA table_info({table})").fetchall(), indexes)
    return found


def test_the_migrations_make_the_tables_that_the_kinds_need(database: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(":memory:")) as fresh:
        engine = create_engine("sqlite://", creator=lambda: fresh)
        metadata_of().create_all(engine)
        assert tables(database) == tables(fresh), "write a migration: python cmd/migration.py"
        assert {kind.name for kind in KINDS} | {"known_fields"} == tables(fresh).keys()


def test_alembic_finds_nothing_that_is_missing(migrated: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata_of()) == []
    engine.dispose()


def test_the_revisions_that_a_host_knows_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_keys_that_are_numbers_are_kept_as_numbers(database: sqlite3.Connection) -> None:
    types = {name: type for _, name, type, *_ in database.execute("PRAGMA table_info(function_versions)")}
    assert (types["number"], types["function"]) == ("INTEGER", "TEXT")


def test_a_migration_that_fails_leaves_the_database_as_it_was(migrated: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(migrated)) as database, database:
        database.execute("DELETE FROM alembic_version")  # so that all of it is made again, where there is one of it
        database.execute("DROP TABLE aliases")
    before = migrated.read_bytes()
    with pytest.raises(StateUnusable, match="already exists"):
        upgrade(migrated, timeout=0, reached=lambda _: None)
    with closing(sqlite3.connect(migrated)) as database:
        assert "aliases" not in tables(database)
    assert migrated.read_bytes() == before


async def test_an_older_state_is_brought_up_to_date_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = await open_state(tmp_path)
    await state.write(HERE, lambda r: r.insert(FUNCTIONS, DeployedFunction(name="old")))
    await state.aclose()
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "r9999_later.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '9999'\ndown_revision = {REVISIONS[-1]!r}\n"
        "def upgrade():\n    op.create_table('later', sa.Column('a', sa.Text()))\n"
    )
    monkeypatch.setattr("serverfull.storage.migrating.SCRIPTS", scripts)
    for module in ("migrations", "examination", "database"):
        monkeypatch.setattr(f"serverfull.storage.{module}.REVISIONS", (*REVISIONS, "9999"))
    state = await open_state(tmp_path)
    assert await state.read(HERE, lambda r: r.get(FUNCTIONS, "old")) == DeployedFunction(name="old")
    await state.aclose()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        assert "later" in tables(database)


@pytest.mark.slow
def test_the_migrations_are_in_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "serverfull", tmp_path / "serverfull", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tmp_path, check=True, timeout=50)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"serverfull/storage/migrations/{path.relative_to(SCRIPTS)}" for path in SCRIPTS.rglob("*.py")}
    assert len(wanted) >= 3
    assert wanted <= inside


# What SQLite does with the statements.


def plan(database: sqlite3.Connection, kind: Kind[Any], statement: Any) -> list[str]:
    compiled = statement.compile(create_engine("sqlite://"))
    rows = database.execute(f"EXPLAIN QUERY PLAN {compiled}", ["1"] * len(compiled.positiontup))
    return [row[-1] for row in rows]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_look_up_goes_by_an_index_and_nothing_is_sorted(database: sqlite3.Connection, kind: Kind[Any]) -> None:
    statements = Statements()
    makes = [statements.get(kind), statements.replace(kind)]
    for prefix in range(len(kind.key) + 1):
        makes += [statements.delete(kind, prefix)]
        for where in ((), *((name,) for name in kind.indexed)):
            makes += [statements.count(kind, prefix, where)]
            makes += [statements.list(kind, prefix, after, where) for after in range(len(kind.key) - prefix + 1)]
    for statement in makes:
        steps = plan(database, kind, statement)
        assert len(steps) == 1, statement
        assert re.match(rf"SEARCH {kind.name} USING (COVERING )?INDEX ", steps[0]), (str(statement), steps)


def test_a_page_begins_where_the_last_one_ended_and_not_at_the_beginning(database: sqlite3.Connection) -> None:
    statements = Statements()
    (step,) = plan(database, FUNCTIONS, statements.list(FUNCTIONS, 0, 1, ()))
    assert "(account=? AND region=? AND name>?)" in step
    (step,) = plan(database, FUNCTIONS, statements.list(FUNCTIONS, 0, 1, ("code_signing_config",)))
    assert "(account=? AND region=? AND code_signing_config=? AND name>?)" in step
    (step,) = plan(database, VERSIONS, statements.list(VERSIONS, 1, 1, ()))
    assert "(account=? AND region=? AND function=? AND number>?)" in step
    (step,) = plan(database, VERSIONS, statements.list(VERSIONS, 0, 2, ()))
    assert "(account=? AND region=? AND (function,number)>(?,?))" in step


@pytest.mark.parametrize("count", [100, 10_000])
def test_a_page_takes_the_same_steps_however_many_functions_there_are(database: sqlite3.Connection, count: int) -> None:
    with database:
        database.executemany(
            "INSERT INTO functions (account, region, name, document) VALUES ('1', '1', ?, '{}')",
            ((f"f{number:05}",) for number in range(count)),
        )
    statement = Statements().list(FUNCTIONS, 0, 1, ()).compile(create_engine("sqlite://"))
    given = {"is_account": "1", "is_region": "1", "after_name": f"f{count - 60:05}", "at_most": 50}
    values = statement.construct_params(given)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    database.set_progress_handler(step, 10)
    rows = database.execute(str(statement), [values[name] for name in statement.positiontup]).fetchall()
    assert len(rows) == 50
    assert steps < 60
