"""What a bootstrap does first: it removes what starts that were killed have left in the folder for temporary files."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from serverfull.lambda_mode.frozen import _MARK, settle_in


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "_MEIown"
    folder.mkdir()
    monkeypatch.setattr(sys, "_MEIPASS", str(folder), raising=False)
    return folder


def test_a_bootstrap_removes_what_nobody_uses_and_leaves_what_somebody_does(unpacked: Path, tmp_path: Path) -> None:
    for name in ("_MEIabandoned", "_MEIinuse"):
        (tmp_path / name).mkdir()
        (tmp_path / name / _MARK).write_text("")
    for name in ("_MEIsomebodyelses", "other"):
        (tmp_path / name).mkdir()
    with (tmp_path / "_MEIinuse" / _MARK).open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        settle_in()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_MEIinuse", "_MEIown", "_MEIsomebodyelses", "other"]
    assert [path.name for path in unpacked.iterdir()] == [_MARK]


@pytest.mark.parametrize("original", [None, "/opt/lib"])
def test_subprocesses_of_a_handler_get_the_systems_libraries(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, original: str | None
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(unpacked))
    if original:
        monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", original)
    settle_in()
    assert os.environ.get("LD_LIBRARY_PATH") == original
    assert "LD_LIBRARY_PATH_ORIG" not in os.environ


def test_outside_of_a_bootstrap_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    settle_in()
    assert os.environ["LD_LIBRARY_PATH"] == "/opt/lib"
