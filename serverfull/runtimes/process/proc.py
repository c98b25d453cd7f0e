"""What the kernel tells of processes in /proc: which there are, whose they are, and how much memory they have.

Hosts ask for memory many times a second, so files are read without what `pathlib` adds, which is most of the time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_HIGH_WATER = re.compile(rb"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
_PIECE = 16_384


def read_figures(path: str) -> bytes:
    """Give what is in a file of the kernel's.

    :raises OSError: it cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole = os.read(file, _PIECE)
        while more := os.read(file, _PIECE):  # the kernel gives long ones a page at a time
            whole += more
        return whole
    finally:
        os.close(file)


def tasks_of_user() -> int:
    """Count the processes and threads of this user."""
    tasks = 0
    for pid in _processes():
        with suppress(OSError):
            found = Path(f"/proc/{pid}/task").stat()
            if found.st_uid == os.getuid():
                tasks += found.st_nlink - 2
    return tasks


def mounts_of(pid: int | str) -> Path:
    """Give the file that stands for the mounts that a process sees; ``self``: this one."""
    return Path(f"/proc/{pid}/ns/mnt")


def processes_that_see(mounts: int) -> Iterator[int]:
    """Give the processes that see the same mounts.

    :param mounts: the number of the file that `mounts_of` gives.
    """
    for pid in _processes():
        with suppress(OSError):
            if mounts_of(pid).stat().st_ino == mounts:
                yield pid


def _processes() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return []


def had_children(pid: int) -> bool:
    """Whether a process has waited for a child, or is gone."""
    try:
        fields = read_figures(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return True
    return int(fields[8]) + int(fields[10]) > 0  # the faults of pages that these had


def family(pid: int) -> list[int]:
    """Give a process and those that it and they have started."""
    found = [pid]
    for member in found:
        with suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def resident(pid: int) -> int:
    """Give the bytes of memory that a process has; 0 if it is gone."""
    try:
        return int(read_figures(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def high_water(pid: int) -> int:
    """Give the most bytes of memory that a process ever had; 0 if it is gone."""
    with suppress(OSError):
        said = _HIGH_WATER.search(read_figures(f"/proc/{pid}/status"))
        return 0 if said is None else int(said[1]) * 1024
    return 0
