"""What a machine can hold processes with, found once by doing it, and what killed hosts have left there.

What it cannot do is replaced by the next best and said, never left out in silence. The level ``strict`` is the limits
with walls around them, and for those there is no next best: `probe_strict` says why a machine cannot have them, and a
host that is asked for them does not start there.
"""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from serverfull.domain.json_functions import loads
from serverfull.errors import ConfigurationError, SandboxImpossible
from serverfull.runtimes import child
from serverfull.runtimes.process.cgroups import GroupRefused, Place, sweep_groups
from serverfull.runtimes.process.places import find_place
from serverfull.runtimes.sandboxes.leftovers import sweep_folders

_PROBING = 10.0
"""Seconds for the attempts of a probe, which take a fifth of one."""

Memory = Literal["cgroup2", "cgroup1", "rlimit"]
Pids = Literal["cgroup2", "cgroup1", "rlimit", "none"]


class Level(enum.Enum):
    """How much a sandbox is held."""

    NONE = "none"
    """A process and nothing else: only what kills it at its deadline."""

    LIMITS = "limits"
    """AWS's limits, and a ``/tmp`` and ``/opt`` of its own. Not a wall against code that wants out."""

    STRICT = "strict"
    """The same limits, and walls: files, processes, network and a user of its own, and few of the kernel's calls."""

    @classmethod
    def of(cls, name: str) -> Level:
        """Find a level by its name.

        :raises ConfigurationError: there is none of that name.
        """
        for level in cls:
            if level.value == name:
                return level
        known = " and ".join(repr(level.value) for level in cls)
        raise ConfigurationError(f"there is no sandbox level {name!r}; there are {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What this machine can hold a process with.

    :param memory: what limits memory; ``rlimit`` needs somebody who watches.
    :param pids: what limits processes and threads.
    :param tmp: what ``/tmp`` is; ``folder``: a folder without a limit that only ``TMPDIR`` names.
    :param opt: whether layers can be mounted on ``/opt``.
    :param why: for each of the four that is not the best: why not.
    :param as_user: whether a process becomes root of a user namespace for a moment, to mount.
    :param places: for each controller, where its groups are made.
    """

    memory: Memory
    pids: Pids
    tmp: Literal["tmpfs", "folder"]
    opt: Literal["mount", "none"]
    why: Mapping[str, str] = field(default_factory=dict)
    as_user: bool = False
    places: Mapping[str, Place] = field(default_factory=dict)

    def __str__(self) -> str:
        words = {"memory": self.memory, "processes": self.pids, "/tmp": self.tmp, "/opt": self.opt}  # noqa: S108
        return ", ".join(f"{what} {how}" for what, how in words.items())


@cache
def probe() -> Means:
    """Find what this machine can do, by doing it in a process of its own. Takes 0.2 s the first time."""
    why: dict[str, str] = {}
    places = _find_places(why)
    tried = _attempts()
    why |= {what: tried[what] for what in ("tmp", "opt") if tried[what]}
    as_user = bool(why.keys() & {"tmp", "opt"}) and not (
        tried.get("tmp as user", "-") and tried.get("opt as user", "-")
    )
    if as_user:
        why = {what: text for what, text in why.items() if what not in {"tmp", "opt"}}
        why |= {what: tried[f"{what} as user"] for what in ("tmp", "opt") if tried[f"{what} as user"]}
    pids: Pids = "none" if tried["limit"] else "rlimit"
    if "pids" in places:
        pids = "cgroup2" if places["pids"].version == 2 else "cgroup1"
    elif tried["limit"]:
        why["pids"] = f"{why['pids']}; {tried['limit']}"
    memory: Memory = "rlimit"
    if "memory" in places:
        memory = "cgroup2" if places["memory"].version == 2 else "cgroup1"
    return Means(
        memory=memory,
        pids=pids,
        tmp="folder" if "tmp" in why else "tmpfs",
        opt="none" if "opt" in why else "mount",
        why=why,
        as_user=as_user,
        places=places,
    )


@dataclass(frozen=True, slots=True)
class Walls:
    """Whether this machine can hold a process at the level ``strict``.

    :param why: why not; empty: it can.
    :param landlock: the version of Landlock that helps; 0: the kernel has none.
    """

    why: str
    landlock: int


@cache
def probe_strict() -> Walls:
    """Find whether the level ``strict`` can be had, by having a process enclosed. Takes 0.1 s the first time."""
    try:
        found = _ask("__main__.py", "strict")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Walls(f"the attempt failed: {error}", 0)
    return Walls(found["why"], found["landlock"])


def check_strict() -> None:
    """Refuse to go on where the level ``strict`` cannot be had.

    :raises SandboxImpossible: the message says why.
    """
    why = probe_strict().why
    if why:
        raise SandboxImpossible(
            f"execution.sandbox is 'strict', which this machine does not allow: {why}. Choose 'limits', or let the "
            "host make namespaces: as root with all of root's capabilities, or where users may make user namespaces."
        )


def sweep(means: Means, parent: Path | None = None) -> list[Path]:
    """Remove what hosts that were killed have left: their groups with the processes in them, then their folders.

    :param parent: where hosts of this kind make their folders with `make_own_folder`.
    :returns: the directories that were found.
    """
    found = sweep_groups(list(means.places.values()))
    return found if parent is None else found + sweep_folders(parent)


def _find_places(why: dict[str, str]) -> dict[str, Place]:
    places = {}
    try:  # version 2 serves only where one directory has both
        places["memory"] = find_place("memory", ["pids"])
    except GroupRefused as refused:
        why["memory"] = str(refused)
    try:
        places["pids"] = find_place("pids", ["memory"])
    except GroupRefused as refused:
        why["pids"] = str(refused)
    return places


def _attempts() -> dict[str, str]:
    try:
        return _ask("confine.py")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        text = f"the attempt failed: {error}"
        return {"limit": text, "tmp": text, "opt": text}


def _ask(script: str, *arguments: str) -> dict[str, Any]:
    """Run one of the child's scripts, and give what it prints."""
    path = Path(next(iter(child.__path__))) / script
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-I", "-S", str(path), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=_PROBING,
    )
    told: dict[str, Any] = loads(done.stdout)
    return told
