"""Permits and lost threads are counted over all processes that share the memory, whatever becomes of one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import accumulate

import pytest

from serverfull.errors import TooManyRequests
from serverfull.observability.exposition import exposition
from serverfull.observability.metrics import Metrics
from serverfull.workers.shared import SharedMemory
from serverfull.workers.shared_admission import LostElsewhere, SharedAdmission

HOST = "ConcurrentInvocationLimitExceeded"
FUNCTION = "ReservedFunctionConcurrentInvocationLimitExceeded"


@pytest.fixture
def memory():
    memory = SharedMemory.create(3)
    yield memory
    memory.close()


def admissions(memory: SharedMemory, limit: int = 100) -> list[SharedAdmission]:
    return [SharedAdmission(limit, memory.permit_cells(row), memory.lock) for row in (0, 1)]


def refused(admission: SharedAdmission, name: str, limit: int | None) -> str | None:
    try:
        admission.take(name, limit)
    except TooManyRequests as refusal:
        return refusal.reason
    return None


def test_the_hosts_limit_holds_for_all_workers_together(memory) -> None:
    first, second = admissions(memory, limit=2)
    first.take("a", None)
    second.take("b", None)
    assert refused(first, "a", None) == refused(second, "a", None) == HOST
    second.release("b", None)
    assert refused(first, "a", None) is None
    assert first.running == second.running == 2


def test_a_functions_limit_holds_for_all_workers_together_and_for_that_function_alone(memory) -> None:
    first, second = admissions(memory)
    first.take("a", 2)
    second.take("a", 2)
    assert refused(first, "a", 2) == refused(second, "a", 2) == FUNCTION
    assert refused(second, "b", 2) is None
    first.release("a", 2)
    assert refused(second, "a", 2) is None


def test_a_refused_call_takes_nothing(memory) -> None:
    first, second = admissions(memory, limit=2)
    first.take("a", 1)
    assert refused(second, "a", 1) == FUNCTION
    assert first.running == 1
    second.take("b", None)
    assert refused(second, "c", 1) == HOST
    first.release("a", 1)
    assert refused(second, "c", 1) is None


def test_the_permits_of_a_dead_worker_come_back_and_those_of_others_stay(memory) -> None:
    first, second = admissions(memory)
    first.take("a", 2)
    second.take("a", 2)
    memory.clear(0)
    assert second.running == 1
    assert refused(second, "a", 2) is None
    assert refused(second, "a", 2) == FUNCTION


def test_a_replacement_starts_without_permits(memory) -> None:
    first, second = admissions(memory)
    first.take("a", 1)
    SharedAdmission(100, memory.permit_cells(0), memory.lock)
    assert refused(second, "a", 1) is None


RACER = """
import os, sys
from serverfull.errors import TooManyRequests
from serverfull.workers.shared import SharedMemory
from serverfull.workers.shared_admission import SharedAdmission
row, limit, log, *descriptors = map(int, sys.argv[1:])
memory = SharedMemory(*descriptors)
admission = SharedAdmission(1000, memory.permit_cells(row), memory.lock)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(8_000):
    held = 0
    try:
        for held in range(3):
            admission.take("a", limit)
            os.write(log, b"+")
        held = 3
    except TooManyRequests:
        pass
    for _ in range(held):
        os.write(log, b"-")
        admission.release("a", limit)
"""

DIE_WITH_THE_LOCK = """
import fcntl, os, signal, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def python(source: str, *arguments: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=arguments[-4:],
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7])
def test_processes_that_race_never_hold_more_permits_than_the_limit(memory, tmp_path, limit) -> None:
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    shared = (log, memory.figures, memory.permits, memory.lock)
    racers = [python(RACER, row, limit, *shared) for row in range(3)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:  # all at once
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=40)
    os.close(log)
    held = list(accumulate(1 if sign == "+" else -1 for sign in (tmp_path / "log").read_text()))
    assert held[-1] == 0
    assert max(held) <= limit


def test_a_lock_ends_with_the_process_that_holds_it(memory) -> None:
    admission = admissions(memory)[0]
    with python(DIE_WITH_THE_LOCK, memory.lock) as holder:
        assert holder.stdout.readline() == "locked\n"
        holder.stdin.write("die\n")
        holder.stdin.flush()
        assert refused(admission, "a", None) is None  # waits until the holder is dead
        holder.wait(10)


def test_lost_threads_of_the_other_workers_count(memory) -> None:
    metrics = [Metrics(memory.figure_cells(row), ["a", "b"]) for row in (0, 1)]
    elsewhere = [LostElsewhere(memory.figure_cells(None), row) for row in (0, 1)]
    metrics[0].function("a").thread_lost()
    metrics[0].function("a").thread_lost()
    metrics[1].function("a").thread_lost()
    assert [ask("a") for ask in elsewhere] == [1, 2]
    assert [ask("b") for ask in elsewhere] == [0, 0]
    metrics[0].function("a").thread_recovered()
    assert elsewhere[1]("a") == 1
    memory.clear(0)
    assert elsewhere[1]("a") == 0


def test_events_that_wait_on_the_disk_are_shown_while_their_worker_is_being_replaced(memory) -> None:
    metrics = [Metrics(memory.figure_cells(row), ["a"]) for row in (0, 1)]
    for count, one in enumerate(metrics, 3):
        one.watch_events(lambda count=count: count)
        one.sample()
    memory.clear(0)
    assert b"serverfull_async_events_waiting 7.0" in exposition(metrics[1])[0]
    replacement = Metrics(memory.figure_cells(0), ["a"])
    replacement.watch_events(lambda: 1)
    replacement.sample()
    assert b"serverfull_async_events_waiting 5.0" in exposition(metrics[1])[0]
