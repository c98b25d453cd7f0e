"""Control groups, version 2 or 1: the kernel's limits on memory and on processes, and its list of who is in them.

A *place* is a directory of a hierarchy below which this host may make groups. There it has one directory named after
itself, and in that a group for each sandbox: both controllers share one directory in version 2, and have one each in
version 1. The process that is to be limited moves itself in (`serverfull.runtimes.child.confine`).

Everything here is plain file work of microseconds, but for `Group.close`, which waits for processes to be gone.

Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serverfull.runtimes.process.proc import read_figures
from serverfull.runtimes.sandboxes.leftovers import abandoned, kill_all, own_name

CLOSING = 5.0
"""Seconds within which killed processes must be gone: the kernel has to free their memory."""

_LOOK_AGAIN = 0.02
"""Seconds until a group that is not empty yet is looked at again."""

_HELD_1 = re.compile(rb"^(total_rss|total_cache) (\d+)$", re.MULTILINE)
_HELD_2 = re.compile(rb"^(anon|file|kernel_stack|pagetables) (\d+)$", re.MULTILINE)

_HOST = "host"
"""The group of version 2 that the host itself goes to: a group with limits for its children holds no process itself."""


class GroupRefused(Exception):
    """No group can be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups can be made.

    :param version: 1 or 2.
    :param path: the directory; the host's own one will be in it.
    """

    version: int
    path: Path

    @property
    def means(self) -> str:
        """What it is called where a host says what it uses."""
        return f"cgroup{self.version}"


@dataclass(frozen=True, slots=True)
class Held:
    """What is in memory now.

    :param processes: bytes of processes: no files, and nothing in /tmp.
    :param files: bytes of files, those in /tmp included.
    """

    processes: int
    files: int


class Group(ABC):
    """The groups of one sandbox, empty until a process writes itself into `entrances`.

    :param places: for each controller, where its group is made.
    :param name: of the sandbox, unique within this host.
    :ivar entrances: the files that a process writes ``0`` into to be in the groups.
    :raises GroupRefused: a group could not be made; none is left.
    """

    def __init__(self, places: Mapping[str, Place], name: str) -> None:
        self._folders: dict[str, Path] = {}
        self._peak_file = -1
        self.entrances: list[str] = []
        try:
            for controller, place in places.items():
                self._folders[controller] = _make(place, name, places)
        except OSError as error:
            self.close()
            raise GroupRefused(f"{error.filename}: {error.strerror}") from error
        self.entrances = [str(folder / "cgroup.procs") for folder in dict.fromkeys(self._folders.values())]

    @abstractmethod
    def limit_memory(self, limit: int) -> None:
        """Set the most memory in bytes; beyond it the kernel kills."""

    def limit_processes(self, limit: int) -> None:
        """Set the most processes and threads."""
        (self._folders["pids"] / "pids.max").write_text(str(limit))

    @abstractmethod
    def peak(self) -> int:
        """Give the most bytes that were ever in use at once, those of files that were read or are in /tmp included."""

    @abstractmethod
    def held(self) -> Held:
        """Give what is in memory now."""

    @property
    def controllers(self) -> frozenset[str]:
        """What it limits."""
        return frozenset(self._folders)

    def members(self) -> list[int]:
        """Give the processes in it; those that have ended are not."""
        found: set[int] = set()
        for entrance in self.entrances:
            with suppress(OSError):
                found.update(map(int, read_figures(entrance).split()))
        return sorted(found)

    def kill(self) -> None:
        """Kill every process in it. They may take a moment to be gone."""
        with suppress(OSError, KeyError):
            self.limit_processes(0)  # so that none can come while the list is read
        kill_all(self.members)

    def close(self) -> None:
        """Kill what is in it, wait for its end, and remove it. Closing twice is fine."""
        if self._peak_file >= 0:
            os.close(self._peak_file)
            self._peak_file = -1
        if self._folders:
            self.kill()
        for folder in dict.fromkeys(self._folders.values()):
            _remove(folder, self.kill)
            with suppress(OSError):
                folder.parent.rmdir()  # the last sandbox takes the host's directory with it
        self._folders.clear()

    def _read_peak(self, name: str) -> int:
        # Asked for at each invocation: reading again from an open file is a third of the time.
        if self._peak_file < 0:
            self._peak_file = os.open(self._folders["memory"] / name, os.O_RDONLY)
        return int(os.pread(self._peak_file, 32, 0))

    def _statistics(self, wanted: re.Pattern[bytes]) -> dict[bytes, int]:
        said = read_figures(f"{self._folders['memory']}/memory.stat")
        return {name: int(value) for name, value in wanted.findall(said)}


class Group2(Group):
    """Groups of version 2."""

    def limit_memory(self, limit: int) -> None:
        folder = self._folders["memory"]
        (folder / "memory.max").write_text(str(limit))
        (folder / "memory.oom.group").write_text("1")  # a function that lost one of its processes is no use
        with suppress(FileNotFoundError):  # a kernel without swap
            (folder / "memory.swap.max").write_text("0")

    def peak(self) -> int:
        try:
            return self._read_peak("memory.peak")
        except FileNotFoundError:  # before Linux 5.19
            return self._read_peak("memory.current")

    def held(self) -> Held:
        figures = self._statistics(_HELD_2)
        kernels = figures.get(b"kernel_stack", 0) + figures.get(b"pagetables", 0)
        return Held(figures[b"anon"] + kernels, figures[b"file"])

    def kill(self) -> None:
        with suppress(OSError):  # before Linux 5.14
            for folder in set(self._folders.values()):
                (folder / "cgroup.kill").write_text("1")
            return
        super().kill()


class Group1(Group):
    """Groups of version 1."""

    def limit_memory(self, limit: int) -> None:
        folder = self._folders["memory"]
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        with suppress(FileNotFoundError, PermissionError):  # a kernel that does not count swap
            (folder / "memory.memsw.limit_in_bytes").write_text(str(limit))

    def peak(self) -> int:
        return self._read_peak("memory.max_usage_in_bytes")

    def held(self) -> Held:
        figures = self._statistics(_HELD_1)
        return Held(figures[b"total_rss"], figures[b"total_cache"])


def make_group(places: Mapping[str, Place], name: str) -> Group:
    """Make the group of a sandbox.

    :raises GroupRefused: it cannot be made.
    """
    kind = Group2 if any(place.version == 2 for place in places.values()) else Group1
    return kind(places, name)


def sweep_groups(places: Sequence[Place]) -> list[Path]:
    """Kill and remove what hosts that are gone have left; gives the directories that were there."""
    found = [path for place in dict.fromkeys(places) for path in abandoned(place.path)]
    for path in found:
        for group in [entry for entry in _folders_in(path) if entry.name != _HOST]:
            kill = partial(kill_all, partial(_members_of, group))
            kill()
            with suppress(OSError):  # a process that the kernel cannot end now: the next host tries again
                _remove(group, kill)
        for last in (path / _HOST, path):
            with suppress(OSError):
                last.rmdir()
    return found


def _make(place: Place, name: str, controllers: Mapping[str, Place]) -> Path:
    own = place.path / own_name()
    for _ in range(8):
        with suppress(FileExistsError):
            own.mkdir()
        try:
            if place.version == 2:
                _hand_down(place, own, [each for each, where in controllers.items() if where == place])
            (own / name).mkdir(exist_ok=True)
        except FileNotFoundError:
            continue  # the last of the other sandboxes has just taken the host's directory with it
        return own / name
    raise FileNotFoundError(2, "removed again and again", str(own))


def _hand_down(place: Place, own: Path, controllers: Sequence[str]) -> None:
    """Let the groups in the host's directory have limits."""
    wanted = " ".join(f"+{controller}" for controller in controllers)
    if not set(controllers) <= set(_words(place.path / "cgroup.subtree_control")):
        if (place.path / "cgroup.type").exists():  # not the root of all, which may hold processes
            _move_aside(place.path, own / _HOST)
        (place.path / "cgroup.subtree_control").write_text(wanted)
    if not set(controllers) <= set(_words(own / "cgroup.subtree_control")):
        (own / "cgroup.subtree_control").write_text(wanted)


def _move_aside(group: Path, aside: Path) -> None:
    aside.mkdir(exist_ok=True)
    for pid in _members_of(group):
        with suppress(ProcessLookupError):
            (aside / "cgroup.procs").write_text(str(pid))


def _remove(group: Path, kill: Callable[[], None]) -> None:
    """Remove an empty group, or one that is about to be empty.

    :param kill: kills who has come since: a process may have been about to enter when all others were killed.
    """
    until, pause = time.monotonic() + CLOSING, 0.0002
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(pause)  # there is nothing in version 1 that says when a group is empty
        pause = min(pause * 2, _LOOK_AGAIN)
        if pause == _LOOK_AGAIN:
            kill()


def _members_of(group: Path) -> list[int]:
    try:
        return [int(word) for word in _words(group / "cgroup.procs")]
    except FileNotFoundError:
        return []


def _folders_in(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def _words(path: Path) -> list[str]:
    return path.read_text().split()
