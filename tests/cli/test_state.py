"""``serverfull state``: backups that can be restored, and what a check finds."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.deployed import FUNCTIONS, VERSIONS, DeployedFunction, FunctionVersion
from serverfull.domain.records import Partition
from serverfull.interfaces import CodeStore, StateStore
from serverfull.storage.code import FileCodeStore
from serverfull.storage.durable import held
from serverfull.storage.state import open_state

Run = Callable[..., Any]

HERE = Partition("111122223333", "us-east-1")
PACKAGE = b"PK a package"
SHA256 = sha256(PACKAGE).hexdigest()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "var" / "state"


async def deploy(state: StateStore, name: str) -> None:
    version = FunctionVersion(function=name, role="r", last_modified="now", revision_id="1", code_sha256=SHA256)
    await state.write(HERE, lambda r: r.insert(FUNCTIONS, DeployedFunction(name=name)))
    await state.write(HERE, lambda r: r.insert(VERSIONS, version))


def use(directory: Path, work: Callable[[StateStore, CodeStore], Any]) -> Any:
    """Do something with a state as a host would, and close it."""

    async def main() -> Any:
        state = await open_state(directory)
        code = FileCodeStore(directory)
        try:
            return await work(state, code)
        finally:
            await code.aclose()
            await state.aclose()

    return asyncio.run(main())


@pytest.fixture
def deployed(directory: Path) -> Path:
    """A state with two functions that have the same package."""

    async def work(state: StateStore, code: CodeStore) -> None:
        assert await code.put(PACKAGE) == SHA256
        await deploy(state, "one")
        await deploy(state, "two")

    use(directory, work)
    return directory


def change(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "state.db")) as database, database:
        database.execute(statement)


async def contents(state: StateStore, code: CodeStore) -> tuple[list[str], bytes]:
    names = await state.read(HERE, lambda r: [found.name for found in r.list(FUNCTIONS)])
    return names, await code.package(SHA256)


def restore(file: Path, directory: Path) -> None:
    with tarfile.open(file) as archive:
        archive.extractall(directory, filter="data")


def test_a_backup_holds_all_and_nobody_else_reads_it(run: Run, deployed: Path, tmp_path: Path) -> None:
    done = run("state", "backup", str(deployed), "monday.tar")
    file = tmp_path / "monday.tar"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"monday.tar: {file.stat().st_size} bytes\n", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["monday.tar", "var"]
    with tarfile.open(file) as archive:
        modes = {member.name: member.mode for member in archive}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "code": 0o700, f"code/{SHA256}.zip": 0o600}
    shutil.rmtree(deployed)
    restore(file, deployed)
    assert run("state", "check", str(deployed)).returncode == 0
    assert use(deployed, contents) == (["one", "two"], PACKAGE)


def test_a_backup_of_a_host_that_runs_has_what_was_acknowledged(run: Run, deployed: Path, tmp_path: Path) -> None:
    async def work(state: StateStore, code: CodeStore) -> None:
        await deploy(state, "three")  # is in the log, and not yet in the database's file
        done = await asyncio.to_thread(run, "state", "backup", str(deployed), "live.tar")
        assert (done.returncode, done.stderr) == (0, "")
        done = await asyncio.to_thread(run, "state", "check", str(deployed))
        assert (done.returncode, done.stderr) == (0, "")
        await deploy(state, "four")

    use(deployed, work)
    restore(tmp_path / "live.tar", tmp_path / "restored")
    assert use(tmp_path / "restored", contents) == (["one", "three", "two"], PACKAGE)
    assert use(deployed, contents) == (["four", "one", "three", "two"], PACKAGE)


def test_a_backup_unpacked_over_the_state_of_a_host_that_was_killed_is_what_was_saved(
    run: Run, deployed: Path, tmp_path: Path
) -> None:
    run("state", "backup", str(deployed), "saved.tar")
    crashed = tmp_path / "crashed"

    async def work(state: StateStore, code: CodeStore) -> None:
        await deploy(state, "later")
        shutil.copytree(deployed, crashed)

    use(deployed, work)
    assert (crashed / "state.db-wal").stat().st_size
    restore(tmp_path / "saved.tar", crashed)
    assert use(crashed, contents) == (["one", "two"], PACKAGE)


def test_no_package_is_deleted_while_a_backup_is_written(
    run: Run, deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(*_: object) -> None:
        with pytest.raises(BlockingIOError):
            _hold_alone_at_once(deployed / "code")
        seen.append(True)

    monkeypatch.setattr("serverfull.storage.backup._pack", look)
    run("state", "backup", str(deployed), "b.tar")
    assert seen
    with held(deployed / "code", alone=True):
        pass


def _hold_alone_at_once(folder: Path) -> None:
    import fcntl

    with (folder / ".lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_backup_replaces_nothing(run: Run, deployed: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("precious")
    done = run("state", "backup", str(deployed), "b.tar")
    assert (done.returncode, done.stderr) == (1, "Error: b.tar exists already; a backup replaces nothing\n")
    assert (tmp_path / "b.tar").read_text() == "precious"


def test_a_backup_that_cannot_be_written_leaves_nothing(run: Run, deployed: Path, tmp_path: Path) -> None:
    done = run("state", "backup", str(deployed), "nowhere/b.tar")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: nowhere/b.tar cannot be written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["var"]


def test_there_is_no_backup_of_what_is_damaged(run: Run, deployed: Path, tmp_path: Path) -> None:
    damage(deployed)
    done = run("state", "backup", str(deployed), "b.tar")
    assert done.returncode == 1
    assert "state.db is damaged" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["var"]


def damage(directory: Path) -> None:
    file = directory / "state.db"
    content = bytearray(file.read_bytes())
    for place in range(4096, len(content)):
        content[place] ^= 0xFF if place % 4096 < 8 else 0
    file.write_bytes(content)


def test_a_check_counts_what_is_there(run: Run, deployed: Path) -> None:
    done = run("state", "check", str(deployed))
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("the database is whole, its tables have revision ")
    assert {"functions: 2", "function_versions: 2", "aliases: 0"} <= set(lines)
    assert lines[-1] == "everything can be read"


def test_a_check_changes_nothing(run: Run, deployed: Path) -> None:
    before = {path.name: path.read_bytes() for path in deployed.iterdir() if path.is_file()}
    run("state", "check", str(deployed))
    assert {path.name: path.read_bytes() for path in deployed.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            """UPDATE functions SET document = '{"name":"two","moon":1}' WHERE name = 'two'""",
            "functions 111122223333 us-east-1 two: the record cannot be read (",
        ),
        (
            "UPDATE function_versions SET number = 7 WHERE function = 'one'",
            "function_versions 111122223333 us-east-1 one 7: the record says 0 for number, and its row 7",
        ),
        (
            "UPDATE functions SET code_signing_config = 'x' WHERE name = 'one'",
            "functions 111122223333 us-east-1 one: the record says None for code_signing_config, and its row 'x'",
        ),
    ],
)
def test_a_check_names_the_record_that_is_damaged(run: Run, deployed: Path, statement: str, says: str) -> None:
    change(deployed, statement)
    done = run("state", "check", str(deployed))
    assert (done.returncode, done.stderr.count("1 of the records")) == (1, 1)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(says[:20]) and ": the" in line)
    assert line.startswith(says)


def test_a_check_names_the_packages_that_are_damaged_or_gone(run: Run, deployed: Path) -> None:
    package = deployed / "code" / f"{SHA256}.zip"
    package.chmod(0o600)
    package.write_bytes(b"something else")
    done = run("state", "check", str(deployed))
    assert done.returncode == 1
    assert f"function_versions 111122223333 us-east-1 two 0: its package {package} is damaged\n" in done.stdout
    package.unlink()
    done = run("state", "check", str(deployed))
    assert f"one 0: its package {package} cannot be read (No such file or directory)\n" in done.stdout


def test_packages_that_are_kept_elsewhere_are_not_looked_for(run: Run, deployed: Path) -> None:
    shutil.rmtree(deployed / "code")
    assert run("state", "check", str(deployed)).returncode == 0


def test_a_state_of_an_older_version_is_checked_as_far_as_it_goes(run: Run, deployed: Path) -> None:
    change(deployed, "DROP INDEX functions_by_code_signing_config")
    change(deployed, "ALTER TABLE functions DROP COLUMN code_signing_config")
    done = run("state", "check", str(deployed))
    assert (done.returncode, done.stderr) == (0, "")
    assert "functions: 2\n" in done.stdout


def test_a_table_that_is_missing_is_damage(run: Run, deployed: Path) -> None:
    change(deployed, "DROP TABLE aliases")
    done = run("state", "check", str(deployed))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is damaged (the table aliases is missing)" in done.stderr


@pytest.mark.parametrize("command", ["check", "backup"])
def test_a_state_that_is_damaged_newer_or_absent_is_told(run: Run, deployed: Path, command: str) -> None:
    def tell() -> str:
        done = run("state", command, str(deployed), *(["b.tar"] if command == "backup" else []))
        assert (done.returncode, done.stdout) == (1, "")
        return str(done.stderr)

    change(deployed, "UPDATE alembic_version SET version_num = '9999'")
    assert "was written by a newer serverfull" in tell()
    damage(deployed)
    assert "is damaged" in tell()
    (deployed / "state.db").unlink()
    assert "state.db does not exist" in tell()
    assert not (deployed / "state.db").exists()


def test_a_folder_that_does_not_exist_is_wrong_usage(run: Run) -> None:
    assert run("state", "check", "nowhere").returncode == 2
