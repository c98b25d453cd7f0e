# ruff: noqa: ASYNC220, ASYNC221, ASYNC240  # nothing else runs on the loop of these tests
"""A state in a directory: who may have it, what is refused at start, and what happens to it while the host runs."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from serverfull.domain.deployed import FUNCTIONS, DeployedFunction
from serverfull.domain.records import Partition
from serverfull.errors import InternalFailure, StateDamaged, StateInUse, StateTooNew, StateUnusable
from serverfull.interfaces import StateStore
from serverfull.storage.migrations import REVISIONS
from serverfull.storage.state import open_state

Powerless: TypeAlias = "Callable[[Path], AbstractContextManager[None]]"

HERE = Partition("111122223333", "us-east-1")


@asynccontextmanager
async def opened(directory: Path, **options: Any) -> AsyncIterator[StateStore]:
    state = await open_state(directory, **options)
    try:
        yield state
    finally:
        await state.aclose()


async def add(state: StateStore, name: str, **fields: Any) -> None:
    await state.write(HERE, lambda r: r.insert(FUNCTIONS, DeployedFunction(name=name, **fields)))


async def names(state: StateStore) -> list[str]:
    return await state.read(HERE, lambda r: [found.name for found in r.list(FUNCTIONS)])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def closed(directory: Path) -> Path:
    """A state with enough in it to be damaged in the middle, of a host that has ended well."""
    async with opened(directory) as state:
        for number in range(40):
            await add(state, f"f{number:02}", tags={"text": "x" * 3000})
    return directory


async def test_what_was_written_is_there_after_a_restart(directory: Path) -> None:
    async with opened(directory) as state:
        await add(state, "one")
    async with opened(directory) as state:
        assert await names(state) == ["one"]


async def test_nobody_else_can_read_what_is_kept(directory: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(directory) as state:
            await add(state, "one")
            files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert files == dict.fromkeys(("lock", "state.db", "state.db-wal", "state.db-shm"), 0o600)


async def test_a_restored_database_that_all_can_read_is_made_private(closed: Path) -> None:
    (closed / "state.db").chmod(0o644)
    async with opened(closed):
        assert stat.S_IMODE((closed / "state.db").stat().st_mode) == 0o600


async def test_commits_wait_for_the_disk(directory: Path) -> None:
    async with opened(directory) as state:
        found = await state.read(
            HERE,
            lambda r: [r._connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("synchronous", "journal_mode")],
        )
    assert found == [2, "wal"]  # 2 is FULL


# One host at a time.


async def test_a_second_host_is_refused_and_told_who_has_the_state(directory: Path) -> None:
    async with opened(directory) as state:
        with pytest.raises(StateInUse, match=rf"used by another host \(process {os.getpid()}\)"):
            await open_state(directory)
        await add(state, "still-ours")
    async with opened(directory) as state:
        assert await names(state) == ["still-ours"]


HOLD = """
import asyncio, sys
from pathlib import Path
from serverfull.storage.state import open_state
async def main():
    state = await open_state(Path(sys.argv[1]))
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_host_that_is_killed_leaves_no_lock_behind(directory: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, directory], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == b"ready\n"
        with pytest.raises(StateInUse, match=f"process {other.pid}"):
            await open_state(directory)
        other.send_signal(signal.SIGKILL)
    async with opened(directory) as state:
        assert await names(state) == []


async def test_a_start_that_fails_gives_the_lock_back(closed: Path) -> None:
    good = (closed / "state.db").read_bytes()
    (closed / "state.db").write_bytes(b"")
    with pytest.raises(StateDamaged):
        await open_state(closed)
    (closed / "state.db").write_bytes(good)
    async with opened(closed) as state:
        assert len(await names(state)) == 40


# Broken states are refused, and left as they are.


def flip(content: bytearray, start: int, count: int = 64) -> bytes:
    for place in range(start, start + count):
        content[place] ^= 0xFF
    return bytes(content)


DAMAGES: dict[str, Any] = {
    "the header": lambda content: flip(bytearray(content), 0),
    "a page of the schema": lambda content: flip(bytearray(content), 100),
    "every page's head": lambda content: bytes(
        byte ^ 0xFF if place >= 4096 and place % 4096 < 8 else byte for place, byte in enumerate(content)
    ),
    "the count of unused bytes in every page": lambda content: bytes(
        byte ^ 1 if place >= 4096 and place % 4096 == 7 else byte for place, byte in enumerate(content)
    ),
    "the second half gone": lambda content: content[: len(content) // 2],
    "all but the first page gone": lambda content: content[:4096],
    "a part of a page gone": lambda content: content[:-100],
    "everything gone": lambda content: b"",
    "another kind of file": lambda content: b"[state]\nthis = 'is no database'\n" * 400,
}


@pytest.mark.parametrize("what", DAMAGES)
async def test_a_damaged_database_is_refused_with_a_hint_and_left_as_it_is(closed: Path, what: str) -> None:
    file = closed / "state.db"
    damaged = DAMAGES[what](file.read_bytes())
    file.write_bytes(damaged)
    with pytest.raises(
        StateDamaged, match=r'state\.db .*"serverfull state check".*"serverfull state backup"'
    ) as refused:
        await open_state(closed)
    assert refused.value.exit_code == 3
    assert file.read_bytes() == damaged


async def test_a_database_of_somebody_else_is_refused(directory: Path) -> None:
    directory.mkdir()
    with closing(sqlite3.connect(directory / "state.db")) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(StateDamaged, match="holds no state of serverfull"):
        await open_state(directory)


async def test_a_database_that_is_gone_is_not_made_anew(closed: Path) -> None:
    (closed / "state.db").unlink()
    with pytest.raises(StateDamaged, match="is gone"):
        await open_state(closed)
    assert not (closed / "state.db").exists()


async def test_a_log_that_was_cut_off_loses_the_end_and_nothing_else(directory: Path, tmp_path: Path) -> None:
    async with opened(directory) as state:
        for number in range(20):
            await add(state, f"f{number:02}")
        crashed = tmp_path / "crashed"
        shutil.copytree(directory, crashed)
    log = crashed / "state.db-wal"
    whole = log.read_bytes()
    found = []
    for length in (len(whole), len(whole) * 2 // 3, len(whole) // 3, 16, 0):
        attempt = tmp_path / f"cut-{length}"
        shutil.copytree(crashed, attempt)
        (attempt / "state.db-wal").write_bytes(whole[:length])
        async with opened(attempt) as state:
            found.append(await names(state))
    expected = [f"f{number:02}" for number in range(20)]
    assert found[0] == expected
    assert found[-1] == []
    for some in found:
        assert some == expected[: len(some)]
    assert len({len(some) for some in found}) > 3


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "its tables have revision 9999"),
        (
            """UPDATE known_fields SET fields = '["name", "moon_phase"]' WHERE kind = 'functions'""",
            "its functions have moon_phase",
        ),
        ("INSERT INTO known_fields VALUES ('planets', '[\"name\"]')", "its planets have name"),
    ],
)
async def test_what_a_newer_version_wrote_is_refused(closed: Path, statement: str, says: str) -> None:
    with closing(sqlite3.connect(closed / "state.db")) as newer, newer:
        newer.execute(statement)
    with pytest.raises(StateTooNew, match=f"was written by a newer serverfull.*{says}"):
        await open_state(closed)


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="Not a directory"):
        await open_state(tmp_path / "file" / "state")


async def test_a_read_only_folder_is_told_at_start(open_to_all: Path, directory: Path, powerless: Powerless) -> None:
    async with opened(directory):
        pass  # what is imported on the way may be out of reach later
    with powerless(open_to_all):
        open_to_all.chmod(0o500)
        with pytest.raises(StateUnusable, match="cannot keep the state: Permission denied"):
            await open_state(open_to_all)
        with pytest.raises(StateUnusable, match="cannot keep the state: Permission denied"):
            await open_state(open_to_all / "inside")
        open_to_all.chmod(0o700)


# What goes wrong while the host runs fails single calls.


async def fails(state: StateStore, cause: str) -> None:
    with pytest.raises(InternalFailure) as failed:
        await add(state, "lost")
    assert cause in str(failed.value.__cause__)
    assert "state.db" not in str(failed.value)  # clients learn nothing of the host's files


async def test_a_database_that_vanishes_fails_calls_until_it_is_back(directory: Path, tmp_path: Path) -> None:
    async with opened(directory) as state:
        await add(state, "one")
        (directory / "state.db").rename(tmp_path / "away")
        await fails(state, "state.db")
        with pytest.raises(InternalFailure):
            await names(state)
        assert not (directory / "state.db").exists()
        (tmp_path / "away").rename(directory / "state.db")
        assert await names(state) == ["one"]
        await add(state, "two")
    async with opened(directory) as state:
        assert await names(state) == ["one", "two"]


async def test_a_backup_put_in_the_place_of_a_deleted_database_serves_without_the_log_of_that(
    directory: Path, tmp_path: Path
) -> None:
    async with opened(directory) as state:
        await add(state, "saved")
        with closing(sqlite3.connect(directory / "state.db")) as live, closing(sqlite3.connect(tmp_path / "b")) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        for number in range(10):
            await add(state, f"later-{number}")
        (directory / "state.db").unlink()
        await fails(state, "state.db")
        (tmp_path / "b").rename(directory / "state.db")
        assert await names(state) == ["saved"]
        await add(state, "new")
        assert await names(state) == ["new", "saved"]
    async with opened(directory) as state:
        assert await names(state) == ["new", "saved"]


async def test_a_log_that_is_deleted_costs_nothing(directory: Path) -> None:
    async with opened(directory) as state:
        await add(state, "one")
        (directory / "state.db-wal").unlink()
        await add(state, "two")
        with closing(sqlite3.connect(f"file:{directory / 'state.db'}?mode=ro", uri=True)) as other:
            assert other.execute("SELECT count(*) FROM functions").fetchone() == (2,)


async def test_a_database_damaged_while_the_host_runs_is_not_taken_back(directory: Path) -> None:
    async with opened(directory) as state:
        await add(state, "one")
        (directory / "state.db").unlink()
        (directory / "state.db").write_bytes(b"rubbish" * 1000)
        await fails(state, "is damaged")


async def test_a_database_of_an_older_version_is_not_taken_while_the_host_runs(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as state:
        await add(state, "one")
        shutil.copy(directory / "state.db", tmp_path / "older")
        with closing(sqlite3.connect(tmp_path / "older")) as older, older:
            older.execute("UPDATE alembic_version SET version_num = '0000'")
        monkeypatch.setattr("serverfull.storage.examination.REVISIONS", ("0000", *REVISIONS))
        (tmp_path / "older").rename(directory / "state.db")
        await fails(state, "was replaced by one of revision 0000: restart the host")


async def test_a_full_disk_fails_writes_and_nothing_else(directory: Path) -> None:
    async with opened(directory) as state:
        await add(state, "one")
        _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((directory / "state.db-wal").stat().st_size, hard))
        try:
            with pytest.raises(InternalFailure) as failed:
                await add(state, "big", tags={"text": "x" * 100_000})
            reads = await names(state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert isinstance(failed.value.__cause__, Exception)
        assert reads == ["one"]
        await add(state, "two")
        assert await names(state) == ["one", "two"]


async def test_a_folder_that_becomes_read_only_fails_writes_until_it_is_not(
    open_to_all: Path, powerless: Powerless
) -> None:
    async with opened(open_to_all) as state:
        await add(state, "one")
        (open_to_all / "state.db-wal").unlink()  # so that the next transaction needs a new file
        with powerless(open_to_all):
            open_to_all.chmod(0o500)
            await fails(state, "")
            open_to_all.chmod(0o700)
            await add(state, "two")
            assert await names(state) == ["one", "two"]


async def test_while_another_program_has_locked_the_database_reads_go_on_and_writes_wait(directory: Path) -> None:
    async with opened(directory, lock_timeout=30) as state:
        with closing(sqlite3.connect(directory / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            waiting = asyncio.ensure_future(add(state, "patient"))
            for _ in range(20):
                assert await names(state) == []
            assert not waiting.done()
            other.execute("ROLLBACK")
        await waiting
        assert await names(state) == ["patient"]


async def test_a_lock_that_stays_fails_writes_until_it_is_gone(directory: Path) -> None:
    async with opened(directory, lock_timeout=0.2) as state:
        with closing(sqlite3.connect(directory / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await fails(state, "another program has locked the database")
        await add(state, "kept")
        assert await names(state) == ["kept"]


async def test_a_record_that_cannot_be_read_fails_the_call_alone(closed: Path) -> None:
    with closing(sqlite3.connect(closed / "state.db")) as other, other:
        other.execute("UPDATE functions SET document = '{}' WHERE name = 'f07'")
    async with opened(closed) as state:
        with pytest.raises(InternalFailure):
            await state.read(HERE, lambda r: r.get(FUNCTIONS, "f07"))
        assert await state.read(HERE, lambda r: r.get(FUNCTIONS, "f08"))


# What it costs.


@pytest.mark.slow
async def test_a_flip_anywhere_is_refused_or_harmless(closed: Path) -> None:
    file = closed / "state.db"
    whole = file.read_bytes()
    refused = 0
    for place in range(50, len(whole), len(whole) // 60):
        file.write_bytes(flip(bytearray(whole), place, 8))
        try:
            async with opened(closed) as state:
                assert await names(state) == [f"f{number:02}" for number in range(40)]
        except StateDamaged:
            refused += 1
    assert refused > 10


def test_nothing_imports_sqlalchemy_before_a_state_is_opened() -> None:
    code = "import sys, serverfull.storage.state; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "alembic", "sqlite3"} & set(loaded)


async def test_a_start_on_a_state_that_is_up_to_date_does_without_alembic(closed: Path) -> None:
    code = HOLD.replace('print("ready", flush=True)', "print(*sys.modules); return")
    done = subprocess.run([sys.executable, "-c", code, closed], capture_output=True, text=True, check=True)
    assert "sqlalchemy" in done.stdout.split()
    assert "alembic" not in done.stdout.split()
