# ruff: noqa: ASYNC240  # nothing else runs on the loop of these tests
"""A process that is killed at any point of a write leaves the state before the write or after it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from serverfull.domain.deployed import ALIASES, FUNCTIONS, VERSIONS
from serverfull.domain.records import Partition
from serverfull.interfaces import Records
from serverfull.storage.state import open_state

HERE = Partition("111122223333", "us-east-1")

# Makes a function with a version and an alias, in one transaction after another, and dies at a point of the given one.
CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from serverfull.domain.deployed import ALIASES, FUNCTIONS, VERSIONS, Alias, DeployedFunction, FunctionVersion
from serverfull.domain.records import Partition
from serverfull.storage.state import open_state

directory, point, wanted = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen = 0

def reached(name):
    global seen
    seen += name == point
    if seen == wanted and name == point:
        os.kill(os.getpid(), signal.SIGKILL)

def deploy(name):
    def work(records):
        reached("first statement")
        records.insert(FUNCTIONS, DeployedFunction(name=name))
        reached("second statement")
        records.insert(VERSIONS, FunctionVersion(function=name, role="r", last_modified="now", revision_id="1"))
        reached("third statement")
        records.insert(ALIASES, Alias(function=name, name="live", version="$LATEST", revision_id="1"))
        reached("after the last statement")
    return work

def remove(name):
    def work(records):
        for kind in (FUNCTIONS, VERSIONS, ALIASES):
            records.delete(kind, name)
            reached("between deletions")
    return work

async def main():
    state = await open_state(directory, reached=reached)
    for number in range(3):
        await state.write(Partition("111122223333", "us-east-1"), deploy(f"f{number}"))
        print(f"f{number}", flush=True)
    await state.write(Partition("111122223333", "us-east-1"), remove("f0"))
    print("gone", flush=True)
    await state.aclose()

asyncio.run(main())
"""


def run(directory: Path, point: str, time: int) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, directory, point, str(time)], capture_output=True, text=True, timeout=50
    )
    assert not done.stderr
    return done.returncode, done.stdout.split()


async def contents(directory: Path) -> list[str]:
    """The functions that are there, each of them whole."""

    def look(records: Records) -> list[str]:
        functions = [found.name for found in records.list(FUNCTIONS)]
        assert [found.function for found in records.list(VERSIONS)] == functions
        assert [found.function for found in records.list(ALIASES)] == functions
        return functions

    state = await open_state(directory)
    try:
        return await state.read(HERE, look)
    finally:
        await state.aclose()


async def whole(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "state.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


BEFORE = ("before begin", "first statement", "second statement", "third statement", "after the last statement")


@pytest.mark.parametrize("point", [*BEFORE, "before commit"])
async def test_a_write_that_is_killed_before_its_commit_never_was(tmp_path: Path, point: str) -> None:
    code, acknowledged = run(tmp_path, point, 2)
    assert (code, acknowledged) == (-signal.SIGKILL, ["f0"])
    assert await contents(tmp_path) == ["f0"]
    await whole(tmp_path)


async def test_a_write_that_is_killed_after_its_commit_is_kept(tmp_path: Path) -> None:
    code, acknowledged = run(tmp_path, "after commit", 2)
    assert (code, acknowledged) == (-signal.SIGKILL, ["f0"])
    assert await contents(tmp_path) == ["f0", "f1"]
    await whole(tmp_path)


@pytest.mark.parametrize("time", [1, 2, 3])
async def test_a_deletion_that_is_killed_deleted_nothing(tmp_path: Path, time: int) -> None:
    code, acknowledged = run(tmp_path, "between deletions", time)
    assert (code, acknowledged) == (-signal.SIGKILL, ["f0", "f1", "f2"])
    assert await contents(tmp_path) == ["f0", "f1", "f2"]
    await whole(tmp_path)


@pytest.mark.parametrize(
    "point", ["before migration commit", "after migration commit", "before rename", "after rename"]
)
async def test_a_state_whose_making_was_killed_is_made_by_the_next_start(tmp_path: Path, point: str) -> None:
    code, acknowledged = run(tmp_path, point, 1)
    assert (code, acknowledged) == (-signal.SIGKILL, [])
    assert await contents(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "state.db"]
    assert run(tmp_path, "nowhere", 1) == (0, ["f0", "f1", "f2", "gone"])
    assert await contents(tmp_path) == ["f1", "f2"]
