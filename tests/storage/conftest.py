from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serverfull.interfaces import StateStore
from serverfull.storage.state import open_state


@pytest.fixture(params=["memory", "directory"])
async def state(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    """An empty state, once of each sort."""
    state = await open_state(None if request.param == "memory" else tmp_path / "state")
    yield state
    await state.aclose()
