"""The limits around one sandbox: what is prepared, measured and taken back.

`probe` has found the means once; each sandbox has a `Confinement`, whose orders the forked child carries out
(`serverfull.runtimes.child.confine`). What the machine cannot do is replaced by the next best:

- memory: a control group, else RLIMIT_DATA as a backstop and whoever asks `Confinement.over` ten times a second;
- processes: a control group, else RLIMIT_NPROC, else nothing;
- ``/tmp``: a file system in memory of the function's own with the size of its EphemeralStorage, else a folder that is
  named in ``TMPDIR``, without a limit;
- ``/opt``: the layers, mounted in the process's own view of the file system, else nothing.

A ``/tmp`` in memory is counted by control groups as memory of the function, which it is not on AWS. So groups get room
for it, and `Confinement.over` tells when the processes themselves use more than the function may.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from serverfull.runtimes.process.cgroups import Group, GroupRefused, Held, make_group
from serverfull.runtimes.process.means import Level, Means
from serverfull.runtimes.process.proc import (
    family,
    had_children,
    high_water,
    mounts_of,
    processes_that_see,
    resident,
    tasks_of_user,
)
from serverfull.runtimes.sandboxes.leftovers import kill_all, remove_tree

MEGABYTE = 1 << 20

DESCRIPTORS = 1024
"""Open files of a process, as on AWS."""

PROCESSES = 1024
"""Processes and threads of a sandbox, as on AWS."""

BACKSTOP = 1 << 30
"""Bytes of data that RLIMIT_DATA leaves a process at least: forty idle threads reserve more than most functions use."""

FIRST_TO_GO = 500
"""Added to what the kernel thinks of a function where the whole machine runs out of memory: functions before hosts."""


class Confinement:
    """The limits around one sandbox. Made by `prepare`, and closed once its process is gone or is to go."""

    def __init__(self, memory_mb: int) -> None:
        self.orders: dict[str, Any] = {}
        """Plain JSON that the child carries out before the code runs."""
        self.environment: dict[str, str] = {}
        """Variables that the function needs because of the limits."""
        self.watched = False
        """Whether somebody has to ask `over` again and again."""
        self._memory = memory_mb * MEGABYTE
        self._group: Group | None = None
        self._tmp: Path | None = None
        self._most = 0
        self._most_files = 0
        self._mounts = -1  # an open file, so that the kernel gives its number to no other

    @classmethod
    def prepare(
        cls,
        means: Means,
        level: Level,
        *,
        memory_mb: int,
        ephemeral_mb: int,
        folder: Path,
        opt: Path | None,
        visible: Sequence[Path] = (),
        exact: Sequence[Path] = (),
        hidden: Sequence[Path] = (),
        shared: Sequence[Path] = (),
        group: Group | None = None,
        hosts: str | None = None,
    ) -> Confinement:
        """Make what the limits of a sandbox need.

        :param memory_mb: the function's memory in megabytes.
        :param ephemeral_mb: the size of its ``/tmp`` in megabytes.
        :param folder: of the sandbox alone, made by the caller; its name is unique within the host.
        :param opt: what the function sees as ``/opt``; None: what the machine has there.
        :param visible: paths that the process needs although they lie below the machine's ``/tmp`` or ``/opt``, such
            as its code. Its interpreter is there anyway, and its folder is not. At the level ``strict``: that the
            process needs at all, beside what the system's programs are made of.
        :param exact: those of them that have to be what their paths say, without links, at the level ``strict``.
        :param hidden: folders that the level ``strict`` shows empty although they lie in one that it shows.
        :param shared: folders that it shows, and lets be written to.
        :param group: made for the sandbox already, with its process in it perhaps; None: one is made now, which may
            block for 20 ms.
        :param hosts: a line that the process finds in ``/etc/hosts`` too, where it has a ``/tmp`` of its own.
        :raises GroupRefused: a control group cannot be made although it could when the means were found.
        """
        made = cls(memory_mb)
        if level is Level.NONE:
            return made
        made.orders = {"oom_score": FIRST_TO_GO, "limits": _limits(means, memory_mb)}
        if level is Level.STRICT:
            means = replace(means, tmp="tmpfs")
            if "pids" not in means.places:
                made.orders["limits"]["NPROC"] = PROCESSES  # of a user of its own, or in a namespace of its own
        if means.places:
            made._hold(means, ephemeral_mb, group or make_group(means.places, folder.name))
        if level is Level.STRICT:
            made.watched = True
            made.orders["strict"] = {
                "tmp_mb": ephemeral_mb,
                "opt": None if opt is None else str(opt),
                "visible": [str(path) for path in visible],
                "exact": [str(path) for path in exact],
                "hidden": [str(path) for path in hidden],
                "shared": [str(path) for path in shared],
            }
            return made
        made.watched = means.memory == "rlimit" or means.tmp == "tmpfs"
        if means.tmp == "folder":
            made._tmp = folder / "tmp"
            made._tmp.mkdir(mode=0o700, exist_ok=True)
            made.environment["TMPDIR"] = str(made._tmp)
        needed = [*visible, made._tmp] if made._tmp is not None else visible
        made._cover(means, ephemeral_mb, opt if means.opt == "mount" else None, needed, hosts)
        return made

    def memory_mb(self, pid: int, ended: int = 0) -> int:
        """Give the most megabytes that the sandbox has used so far, rounded up, and never more than it may.

        What the kernel keeps of files, and what is in ``/tmp``, is not counted, as on AWS.

        :param pid: of the sandbox's first process; 0: it is gone.
        :param ended: the most bytes that it had, where it is gone.
        """
        self._note(high_water(pid) if pid else ended)
        if self._group is not None and "memory" in self._group.controllers:
            self._note(self._look(self._group).processes)
            if pid and (self._group.members() != [pid] or had_children(pid)):
                # Others may have come and gone between two looks. The kernel knows the most of all together, but with
                # files, of which it may have forgotten some since: what was seen of them at any time is left out.
                self._note(self._group.peak() - self._most_files)
        self._remember(pid)
        return -(-self._most // MEGABYTE)

    def joining(self, pid: int) -> dict[str, Any]:
        """Give the orders for one more process of the sandbox, which sees what the others see.

        :param pid: of one of them, which has begun and not ended.
        """
        if "strict" in self.orders:
            return {**self.orders, "strict": {**self.orders["strict"], "join": pid}}
        if "namespace" not in self.orders:
            return self.orders
        return {**self.orders, "namespace": None, "join": {"pid": pid, "user": self.orders["namespace"]["user"]}}

    def members(self, first: Sequence[int]) -> list[int]:
        """Give the processes in the sandbox.

        :param first: those that the host has started in it; without a control group, their descendants count.
        """
        if self._group is not None:
            return self._group.members()
        return [member for pid in first if pid for member in family(pid)]

    def over(self, pid: int, others: Sequence[int] = ()) -> bool:
        """Whether the sandbox uses more memory than it may now: then it has to be killed.

        :param pid: of the sandbox's first process; without a control group, its descendants are counted too.
        :param others: that were started beside it, counted in the same way.
        """
        self._remember(pid)
        try:
            if self._group is not None and "memory" in self._group.controllers:
                used = self._look(self._group).processes
            else:
                used = sum(resident(member) for each in (pid, *others) for member in family(each))
        except OSError:
            return False  # it has just ended
        self._note(used)
        return used > self._memory

    def _look(self, group: Group) -> Held:
        held = group.held()
        self._most_files = max(self._most_files, held.files)
        return held

    def _note(self, used: int) -> None:
        self._most = max(self._most, min(used, self._memory))

    def kill(self, pid: int | None = None) -> bool:
        """Kill everything in the sandbox, whatever it has done to get away from its parent.

        :param pid: of the sandbox's first process, which helps where there is no control group.
        :returns: False where what belongs to the sandbox cannot be found: there is neither a group nor, known from
            a living process, a mount namespace.
        """
        if self._group is not None:
            self._group.kill()
            return True
        self._remember(pid or 0)
        if self._mounts < 0:
            return False
        kill_all(partial(processes_that_see, os.fstat(self._mounts).st_ino))
        return True

    def close(self) -> None:
        """Kill what is left, wait until it is gone, and remove what was made. Closing twice is fine.

        Waits up to seconds where the kernel has much memory to free: call it on a thread of its own.

        :raises OSError: processes are not gone in time, or something cannot be removed.
        """
        self.kill()
        group, self._group = self._group, None
        tmp, self._tmp = self._tmp, None
        mounts, self._mounts = self._mounts, -1
        try:
            if mounts >= 0:
                os.close(mounts)
            if group is not None:
                group.close()
        finally:
            if tmp is not None:
                remove_tree(tmp)

    def _hold(self, means: Means, ephemeral_mb: int, group: Group) -> None:
        self._group = group
        try:
            if "memory" in group.controllers:
                in_tmp = ephemeral_mb * MEGABYTE if means.tmp == "tmpfs" else 0
                group.limit_memory(self._memory + in_tmp)
            if "pids" in group.controllers:
                group.limit_processes(PROCESSES)
        except OSError as error:
            group.close()
            raise GroupRefused(f"{error.filename}: {error.strerror}") from error
        self.orders["groups"] = group.entrances

    def _cover(
        self, means: Means, ephemeral_mb: int, opt: Path | None, visible: Sequence[Path], hosts: str | None
    ) -> None:
        namespace: dict[str, Any] = {}
        if means.tmp == "tmpfs":
            namespace["tmp_mb"] = ephemeral_mb
            if hosts is not None:
                namespace["hosts"] = hosts
        if opt is not None:
            namespace["opt"] = str(opt)
        if namespace:
            self.orders["namespace"] = namespace | {"user": means.as_user, "visible": [str(path) for path in visible]}

    def _remember(self, pid: int) -> None:
        """Keep hold of the mounts that what belongs to the sandbox sees, where that is the only mark of it."""
        if self._mounts < 0 and self._group is None and self.orders.keys() & {"namespace", "strict"}:
            with suppress(OSError):
                mounts = os.open(mounts_of(pid), os.O_RDONLY | os.O_CLOEXEC)
                if os.fstat(mounts).st_ino == mounts_of("self").stat().st_ino:
                    os.close(mounts)  # it has not begun yet
                else:
                    self._mounts = mounts


def _limits(means: Means, memory_mb: int) -> dict[str, int]:
    limits = {"NOFILE": DESCRIPTORS, "CORE": 0}
    if means.pids == "rlimit":
        # Outside a user namespace of its own, all processes of the user count, not the sandbox's alone.
        mounts_as_user = means.as_user and means.tmp == "tmpfs"
        limits["NPROC"] = PROCESSES if mounts_as_user else PROCESSES + tasks_of_user()
    if means.memory == "rlimit":
        limits["DATA"] = max(4 * memory_mb * MEGABYTE, BACKSTOP)
    return limits
