"""Hosts that are killed again and again while they take and run events."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.events.killing import CONCURRENCY, KillLoop

TORTURE = "SERVERFULL_TORTURE" in os.environ


@pytest.mark.slow
@pytest.mark.timeout(3600 if TORTURE else 120)
@pytest.mark.parametrize("workers", [1, 2])
def test_no_acknowledged_event_is_lost_when_hosts_are_killed(tmp_path: Path, workers: int) -> None:
    kills, events = (100, 50_000) if TORTURE else (3, 200)
    tally = KillLoop(tmp_path, workers=workers).run(kills, events)
    print(f"\n{workers} workers: {tally}")
    assert (len(tally.acknowledged) >= events, tally.kills) == (True, kills)
    assert not tally.lost
    assert tally.duplicates <= kills * CONCURRENCY
