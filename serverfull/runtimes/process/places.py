"""Looks where on this machine control groups can be made; changes nothing that lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serverfull.runtimes.process.cgroups import GroupRefused, Place


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy.

    :param version: 1 or 2.
    :param controllers: of version 1.
    :param root: the directory of the hierarchy that is mounted, such as ``/`` or that of a container.
    :param path: where.
    """

    version: int
    controllers: frozenset[str]
    root: str
    path: Path

    def directory_of(self, own: str) -> Path:
        """Find the directory of a process by what ``/proc/PID/cgroup`` says."""
        if self.root != "/" and (own == self.root or own.startswith(self.root + "/")):
            own = own[len(self.root) :]
        return self.path / own.strip("/")


def find_place(controller: str, beside: Sequence[str] = ()) -> Place:
    """Find where groups with a controller can be made: version 2 where it is there, else version 1.

    :param controller: such as ``memory``.
    :param beside: controllers that version 2 must have too, so that one directory serves for all.
    :raises GroupRefused: nowhere; the message says why.
    """
    reasons = []
    for look in (_find2, _find1):
        try:
            return look([controller, *beside])
        except GroupRefused as refused:
            reasons.append(str(refused))
        except OSError as error:
            reasons.append(f"{error.filename}: {error.strerror}")
    raise GroupRefused("; ".join(reasons))


def _find2(controllers: Sequence[str]) -> Place:
    mount = next((mount for mount in _mounts() if mount.version == 2), None)
    if mount is None:
        raise GroupRefused("cgroup v2 is not mounted")
    own = mount.directory_of(_own_paths().get("", "/"))
    if not own.is_dir():
        raise GroupRefused(f"cgroup v2: {own} is not visible here")
    missing = sorted(set(controllers) - set(_words(own / "cgroup.controllers")))
    if missing:
        raise GroupRefused(f"cgroup v2: {own} has no controller {' and no '.join(missing)}")
    above = [own, *(parent for parent in own.parents if parent.is_relative_to(mount.path))]
    if _is_delegated(own) or not (fit := [path for path in above if _hands_down(path, controllers)]):
        _check_own(own)
        return Place(2, own)
    return Place(2, fit[-1])


def _check_own(own: Path) -> None:
    """Check that a host may give the group that it is in a part of its own, which moves all processes of that group."""
    if not _may_write(own):
        raise GroupRefused(f"cgroup v2: {own} is not delegated to user {os.geteuid()}")
    if not (own / "cgroup.type").exists():
        return  # the root of all, which may hold processes and limit groups
    in_container = _own_paths().get("") == "/"
    strangers = set(map(int, _words(own / "cgroup.procs"))) - {os.getpid()}
    if strangers and not in_container and not _is_delegated(own):
        raise GroupRefused(f"cgroup v2: {own} holds other processes too; start it as a unit with Delegate=yes")


def _find1(controllers: Sequence[str]) -> Place:
    wanted = controllers[0]
    mount = next((mount for mount in _mounts() if mount.version == 1 and wanted in mount.controllers), None)
    if mount is None:
        raise GroupRefused(f"cgroup v1: {wanted} is not mounted")
    own = mount.directory_of(_own_paths().get(wanted, "/"))
    if not own.is_dir():
        raise GroupRefused(f"cgroup v1: {own} is not visible here")
    if not _may_write(own):
        raise GroupRefused(f"cgroup v1: {own} cannot be written by user {os.geteuid()}")
    return Place(1, own)


def _hands_down(path: Path, controllers: Sequence[str]) -> bool:
    control = path / "cgroup.subtree_control"
    return _may_write(path) and control.exists() and set(controllers) <= set(_words(control))


def _is_delegated(path: Path) -> bool:
    """Whether systemd has given the group away."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _may_write(path: Path) -> bool:
    """Whether groups can be made in it and processes moved into those, tried by making one."""
    trial = path / f"serverfull-trial-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError:
        return False
    trial.rmdir()
    return os.access(path / "cgroup.procs", os.W_OK)


def _mounts() -> Iterator[_Mount]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            fields = before.split(" ")
            yield _Mount(2 if kind == "cgroup2" else 1, frozenset(options.split(",")), fields[3], Path(fields[4]))


def group_of(pid: int, controller: str) -> Path | None:
    """Find the group that a process is in; None where it is gone, or its group cannot be seen here.

    :param controller: such as ``memory``; empty: that of version 2 whatever it limits.
    """
    try:
        paths = _own_paths(str(pid))
        for mount in _mounts():
            name = "" if mount.version == 2 else controller
            if name not in paths or (mount.version == 1 and controller not in mount.controllers):
                continue
            path = mount.directory_of(paths[name])
            limits = not controller or mount.version == 1 or controller in _words(path / "cgroup.controllers")
            if limits and (path / "cgroup.procs").exists():
                return path
    except OSError:
        pass
    return None


def _own_paths(process: str = "self") -> dict[str, str]:
    """Give for each controller the group of a process; that of version 2 has no name."""
    paths = {}
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _words(path: Path) -> list[str]:
    return path.read_text().split()
