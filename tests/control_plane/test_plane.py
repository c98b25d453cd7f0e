"""A control plane whose opening fails says why, leaves nothing behind, and opens later."""

from __future__ import annotations

import gc
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import Settings, StateSettings
from serverfull.config.settings import HotReloadSettings
from serverfull.control_plane import ControlPlane
from serverfull.domain.publication import PUBLISHED_FUNCTIONS
from serverfull.errors import ExtraMissing, StateUnusable
from serverfull.fetchers.static import StaticFetcher
from serverfull.storage.publication import Publication
from serverfull.storage.state import open_state


class Log:
    """Takes what is logged; nothing is expected."""

    def info(self, event: str, **fields: Any) -> None:
        raise AssertionError((event, fields))

    warning = error = info


def plane_on(directory: Path, code_store: str = "", allowed: tuple[str, ...] = ()) -> ControlPlane:
    state = StateSettings(path=str(directory), code_store=code_store)
    settings = Settings(state=state, hot_reload=HotReloadSettings(allowed_paths=allowed))
    nobody: Any = None  # nothing is deployed that could be run
    return ControlPlane(
        StaticFetcher({}),
        settings,
        Log(),
        failure_of=lambda _: None,
        on_open=lambda *_: None,
        running=nobody,
        watching=nobody,
        calls=lambda _: 0.0,
    )


def test_a_host_whose_functions_may_run_from_folders_does_not_start_without_what_watches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serverfull.reload.extra.importlib.util.find_spec", lambda _: None)
    plane_on(tmp_path)
    with pytest.raises(ExtraMissing, match=r"hot_reload\.allowed_paths.*pip install 'serverfull\[reload\]'"):
        plane_on(tmp_path, allowed=("/srv",))


async def test_an_opening_that_fails_again_and_again_leaves_nobody_listening(tmp_path: Path) -> None:
    await (await open_state(tmp_path)).aclose()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        # Whole as far as the start looks at it, and no record: publication is begun and cannot read what was published.
        database.execute(f"INSERT INTO {PUBLISHED_FUNCTIONS.name} VALUES ('1', 'r', 'f', '[]')")
        database.commit()
    plane = plane_on(tmp_path, code_store="s3://bucket/prefix")
    for _ in range(3):
        with pytest.raises(StateUnusable, match="state check"):
            await plane.operations()
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Publication)]
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute(f"DELETE FROM {PUBLISHED_FUNCTIONS.name}")
        database.commit()
    assert "CreateFunction" in await plane.operations()
    await plane.aclose()


@pytest.mark.parametrize("folder", ["code", "unpacked"])
async def test_a_file_where_a_folder_for_code_should_be_is_told(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).touch()
    plane = plane_on(tmp_path)
    with pytest.raises(StateUnusable, match=rf"{tmp_path}/{folder} cannot keep code: File exists"):
        await plane.operations()
    (tmp_path / folder).unlink()
    assert "CreateFunction" in await plane.operations()
    await plane.aclose()
