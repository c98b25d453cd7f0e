"""How the benchmarks measure containers; nothing here depends on how fast it is."""

from __future__ import annotations

import pytest

from benchmarks.harness import containers
from benchmarks.harness.figures import Results
from benchmarks.harness.goals import goals
from benchmarks.harness.report import container_line
from benchmarks.harness.servers import BARE
from tests.benchmarks.samples import sample

pytestmark = pytest.mark.slow


def test_containers_are_started_counted_and_weighed(engine):
    with containers.serving(engine) as server:
        (cold,) = containers.cold_starts(server, 1)
        assert cold > 0
        stats, _ = containers.held(engine, server, 3)
        assert len(stats) == 3
        assert all(0 < used < 128 for used in stats)
        pids = containers.container_pids(engine)
        assert len(pids) >= 3 + 1 + 2  # one of each function that was called too
        assert set(pids) <= set(server.pids())
    assert containers.container_pids(engine) == []


def test_the_goals_of_containers_are_judged_by_cpu_and_by_cold_starts():
    measured = containers.Containers(
        samples=[sample(BARE, cpu_us=30), sample(containers.CONTAINER, cpu_us=100)],
        cold_ms=(100, 500, 390),
        stats_mb=(7.0, 8.0, 7.5),
    )
    results = Results(samples=[], together=[], workers=[], starts=[], memory=None, containers=measured, failures=[])
    warm, cold = (goal for goal in goals(results) if "container" in goal.what)
    assert (warm.figure, warm.verdict) == (pytest.approx(0.3), "PASS")
    assert (cold.figure, cold.verdict) == (390, "PASS")
    assert container_line(measured).startswith(
        "3 warm containers of one function: 7.5 MB each by docker stats, 22 in all"
    )
