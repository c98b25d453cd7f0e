"""What a check makes of states that a host of this version did not leave."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from serverfull.errors import StateDamaged
from serverfull.storage.checking import check
from serverfull.storage.migrations import REVISIONS
from serverfull.storage.state import open_state


@pytest.fixture
async def lacking(tmp_path: Path) -> Path:
    """A state without a table."""
    await (await open_state(tmp_path)).aclose()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute("DROP TABLE aliases")
    return tmp_path


async def test_a_host_does_not_start_without_a_table(lacking: Path) -> None:
    with pytest.raises(StateDamaged, match="the table aliases is missing"):
        await open_state(lacking)


def test_a_table_that_an_older_version_did_not_have_is_not_missed(
    lacking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serverfull.storage.examination.REVISIONS", (*REVISIONS, "next"))
    report = check(lacking)
    assert report.counts["functions"] == 0
    assert "aliases" not in report.counts
    assert not report.problems
