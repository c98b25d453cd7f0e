"""What the kernel says about processes and the machine: core pinning, CPU time, memory, noise. Linux only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds of one tick of the kernel's process accounting, commonly 0.01."""

PROC = Path("/proc")


def cores() -> tuple[int, int]:
    """Give the core for the server and the core for the load generator; the same one where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Run the block on one core, so that a process started in it inherits that; None leaves all cores."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _stat(pid: int) -> list[str]:
    """Give the fields of ``/proc/<pid>/stat`` that follow the command name, which may hold spaces."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


@dataclass(frozen=True, slots=True)
class Relation:
    """Where a process belongs: its parent and its session."""

    parent: int
    session: int


def relations() -> dict[int, Relation]:
    """Give every process of the machine."""
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):  # ended while we looked
            fields = _stat(int(entry.name))
            found[int(entry.name)] = Relation(parent=int(fields[1]), session=int(fields[3]))
    return found


def family(leader: int) -> list[int]:
    """List the live processes that a server consists of: its session, orphans included, and all that descend from it.

    Both are needed. A forked worker process of a server may lose its parent and keep the session; a sandbox of a
    deployed function leads a session of its own and keeps its parent.
    """
    known = relations()
    members = {pid for pid, one in known.items() if one.session == leader}
    found = set(members)
    while members:
        members = {pid for pid, one in known.items() if one.parent in members} - found
        found |= members
    return sorted(found)


def sandboxes(host: int) -> list[int]:
    """List the sandboxes of a host: the children of its zygotes which lead sessions of their own.

    Others are spares: no function's, and not counted as one's.
    """
    known = relations()
    zygotes = {pid for pid, one in known.items() if one.parent == host}
    return sorted(pid for pid, one in known.items() if one.parent in zygotes and one.session == pid)


def cpu_seconds(pids: list[int]) -> float:
    """Sum the user and system time of live processes, all their threads included, to the nanosecond."""
    seconds = 0.0
    for pid in pids:
        with suppress(OSError):  # it has ended
            seconds += time.clock_gettime(_cpu_clock(pid))
    return seconds


def _cpu_clock(pid: int) -> int:
    """Give the clock that runs while the process does, as clock_getcpuclockid(3) makes it on Linux."""
    return ~pid << 3 | 2


def ended_children_seconds() -> float:
    """Give the user and system time of our own children that have ended and been waited for."""
    times = os.times()
    return times.children_user + times.children_system


def pss_kilobytes(pids: list[int]) -> int:
    """Sum the proportional set size: private pages, and shared pages divided by how many processes share them."""
    total = 0
    for pid in pids:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


@dataclass(frozen=True, slots=True)
class Ticks:
    """The machine's own accounts since boot, in seconds over all cores.

    Interrupt time is left out of ``busy``: while we measure it is mostly the loopback traffic of the test itself.
    """

    busy: float
    total: float

    @classmethod
    def now(cls) -> Ticks:
        first = (PROC / "stat").read_text().partition("\n")[0]
        user, nice, system, idle, iowait, irq, softirq, steal = (int(field) * TICK for field in first.split()[1:9])
        busy = user + nice + system + steal
        return cls(busy, busy + idle + iowait + irq + softirq)


def noise(before: Ticks, after: Ticks, own: float) -> float:
    """Give the share of the machine that was busy with other things than ``own`` seconds of CPU, 0 to 1."""
    total = after.total - before.total
    return max(0.0, after.busy - before.busy - own) / total if total else 0.0
