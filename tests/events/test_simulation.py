"""Many hosts, events and faults on a clock that jumps. ``SERVERFULL_SEED=17`` runs the simulation of one seed again."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.events.simulation import simulate

TORTURE = "SERVERFULL_TORTURE" in os.environ
SEED = os.environ.get("SERVERFULL_SEED")


@pytest.mark.slow
@pytest.mark.timeout(7200 if TORTURE else 120)
def test_whatever_happens_each_event_ends_once_and_no_promise_is_broken(tmp_path: Path) -> None:
    seeds = [int(SEED)] if SEED else range(1000 if TORTURE else 12)
    hours, ends, hosts = 0.0, Counter[str](), 0
    for seed in seeds:
        world = simulate(seed, tmp_path)
        hours += world.seconds / 3600
        hosts += world.hosts
        ends.update(end.condition for end in world.ends.values())
        world.path.unlink()
    print(f"\n{len(seeds)} seeds, {hours:.0f} simulated hours, {hosts} hosts, {ends.total()} events: {dict(ends)}")
    if not SEED:
        assert hours >= len(seeds)
        assert set(ends) >= {"Success", "RetriesExhausted", "EventAgeExceeded"}
