"""Cells in one process, and in real processes that die."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serverfull.observability.cells import CellsFull, LocalCells, SharedCells
from serverfull.observability.exposition import exposition
from serverfull.observability.metrics import Metrics, columns_for
from serverfull.observability.user_metrics import UserMetrics

WORKER = """
import sys
from serverfull.observability.cells import SharedCells
from serverfull.observability.metrics import Metrics
from serverfull.observability.user_metrics import UserMetrics

metrics = Metrics(SharedCells(sys.argv[1], int(sys.argv[2])), ["a", "b"])
user = UserMetrics(metrics.cells)
function = metrics.function("a")
for _ in range(100):
    function.started()
    function.finished(0.02, False)
function.started()
function.thread_lost()
function.throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
user.count("orders", 5, shop="north")
user.count("only." + sys.argv[2], 1)
user.gauge("queue", 10 + int(sys.argv[2]))
user.timing("step", 0.2)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "figures"


def start_worker(path: Path, row: int) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), str(row)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "done\n"
    return worker


def end_worker(worker: subprocess.Popen[str]) -> None:
    with worker:
        worker.kill()
    assert worker.returncode == -signal.SIGKILL


def text_of(metrics: Metrics) -> list[str]:
    return exposition(metrics)[0].decode().splitlines()


def test_a_block_is_the_same_at_every_allocation() -> None:
    cells = LocalCells()
    cells.allocate("a", 2)[1] = 5.0
    assert list(cells.allocate("a", 2)) == [0.0, 5.0]
    assert cells.sums("a") == [0.0, 5.0]


def test_gauges_of_a_row_are_cleared_and_counters_stay(path: Path) -> None:
    parent = SharedCells.create(path, rows=2, columns=10)
    first, second = SharedCells(path, 0), SharedCells(path, 1)
    for cells in (first, second):
        block = cells.allocate("a", 2, gauges=[1])
        block[0], block[1] = 3.0, 4.0
    parent.clear_gauges(0)
    assert parent.values("a") == [[3.0, 0.0], [3.0, 4.0]]


def test_shared_cells_that_are_full_refuse_and_name_what_has_no_room(path: Path) -> None:
    SharedCells.create(path, rows=1, columns=10)
    cells = SharedCells(path, 0)
    cells.allocate("a", 8)
    with pytest.raises(CellsFull, match=r"function b: .* 10 columns, 8 are used and 3 more"):
        cells.allocate("function\0b", 3)
    assert len(cells.allocate("c", 2)) == 2


def test_workers_that_allocate_in_another_order_find_the_same_blocks(path: Path) -> None:
    SharedCells.create(path, rows=2, columns=10)
    first, second = SharedCells(path, 0), SharedCells(path, 1)
    first.allocate("a", 2)[0] = 1.0
    second.allocate("b", 3)[0] = 10.0
    second.allocate("a", 2)[0] = 2.0
    first.allocate("b", 3)[0] = 20.0
    assert first.keys() == second.keys() == ["a", "b"]
    assert first.sums("a") == [3.0, 0.0]
    assert second.sums("b") == [30.0, 0.0, 0.0]


def test_a_row_that_is_not_there_is_refused(path: Path) -> None:
    SharedCells.create(path, rows=2, columns=10)
    with pytest.raises(Exception, match="rows 0 to 1"):
        SharedCells(path, 2)


def test_figures_of_all_workers_add_up_and_outlive_a_killed_one(path: Path) -> None:
    parent = SharedCells.create(path, rows=3, columns=columns_for(2))
    mine = Metrics(SharedCells(path, 0), ["a", "b"])
    UserMetrics(mine.cells).count("orders", 1, shop="north")
    workers = [start_worker(path, row) for row in (1, 2)]
    try:
        lines = text_of(mine)
        assert 'serverfull_invocations_total{function="a"} 200.0' in lines
        assert 'serverfull_concurrent_executions{function="a"} 2.0' in lines
        assert 'orders_total{shop="north"} 11.0' in lines
        assert "queue 12.0" in lines  # the last word counts
        assert "step_seconds_count 2.0" in lines
        assert "only_1_total 1.0" in lines
        assert "only_2_total 1.0" in lines

        end_worker(workers[1])
        parent.clear_gauges(2)
        lines = text_of(mine)
        assert 'serverfull_invocations_total{function="a"} 200.0' in lines
        assert 'serverfull_concurrent_executions{function="a"} 1.0' in lines
        assert 'serverfull_lost_threads{function="a"} 1.0' in lines
        assert 'serverfull_lost_threads_total{function="a"} 2.0' in lines
        assert 'orders_total{shop="north"} 11.0' in lines
        assert "queue 11.0" in lines

        workers[1] = start_worker(path, 2)
        lines = text_of(mine)
        assert 'serverfull_invocations_total{function="a"} 300.0' in lines
        assert 'serverfull_concurrent_executions{function="a"} 2.0' in lines
        assert 'orders_total{shop="north"} 16.0' in lines
    finally:
        for worker in workers:
            end_worker(worker)


def test_a_name_means_the_same_in_all_workers(path: Path) -> None:
    SharedCells.create(path, rows=2, columns=1000)
    UserMetrics(SharedCells(path, 0)).count("orders", shop="north")
    with pytest.raises(ValueError, match="orders"):
        UserMetrics(SharedCells(path, 1)).count("orders", town="north")
