"""Names for what a host makes outside its memory, so that the next host knows what a killed one has left behind.

A name holds the process id and the moment of its start, which no two processes share until the machine starts anew, and
the namespace that the id is counted in: hosts in two containers may share a folder and both be process 1, and neither
can tell whether the other lives.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

_NAME = re.compile(r"serverfull-(\d+)-(\d+)-(\d+)(?:-\w+)?")

_PASSES = 100

_AT_ONCE = 256
"""Processes that are held at once while they are killed: each takes a descriptor."""


def own_name() -> str:
    """Name what belongs to this process."""
    return f"serverfull-{_namespace()}-{os.getpid()}-{_started(os.getpid())}"


def make_own_folder(parent: Path | None = None) -> Path:
    """Make a folder that the next host removes if this one is killed; nobody but this user can look into it.

    :param parent: where; None: where the machine keeps what is temporary.
    """
    return Path(tempfile.mkdtemp(prefix=f"{own_name()}-", dir=parent))


def abandoned(parent: Path) -> Iterator[Path]:
    """Give what hosts of this user that are gone have left in a folder; nothing where the folder is not there."""
    try:
        paths = list(parent.iterdir())
    except OSError:
        return
    for path in paths:
        if is_abandoned(path.name) and _is_own_folder(path):
            yield path


def is_abandoned(name: str) -> bool:
    """Tell whether a name is that of a host that is gone, as far as this one can know."""
    found = _NAME.fullmatch(name)
    if found is None or int(found[1]) != _namespace():
        return False
    try:
        return _started(int(found[2])) != int(found[3])
    except OSError:
        return False  # who cannot be asked may live


def sweep_folders(parent: Path) -> list[Path]:
    """Remove the folders that hosts of this user that are gone have left in a folder; gives those that were there.

    Processes in them must be gone: sweep groups first.
    """
    found = list(abandoned(parent))
    for folder in found:
        remove_tree(folder)
    return found


def kill_all(members: Callable[[], Iterable[int]]) -> None:
    """Kill processes, and those that they start meanwhile.

    :param members: gives those that are there; asked until it gives no new one, and not for ever: who starts processes
        faster than they are killed has to be held by a limit.
    """
    killed: set[int] = set()
    for _ in range(_PASSES):
        new = list(islice((pid for pid in members() if pid not in killed), _AT_ONCE))
        if not new:
            return
        _kill(new, members)
        killed.update(new)


def _kill(pids: Sequence[int], members: Callable[[], Iterable[int]]) -> None:
    """Kill processes, and nobody who has got the id of one that has just ended."""
    held: dict[int, int] = {}
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or no descriptor is left
        pass
    try:
        still = set(members())  # who is a member now was one when it was opened, or has ended since
        for pid in still.intersection(pids):
            with suppress(ProcessLookupError, PermissionError):
                if pid in held:
                    signal.pidfd_send_signal(held[pid], signal.SIGKILL)
                else:
                    os.kill(pid, signal.SIGKILL)
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder whatever permissions a function has put on what is in it. What is not there is no error."""
    with suppress(FileNotFoundError):
        try:
            shutil.rmtree(folder)
        except PermissionError:
            _open_folders(folder)
            shutil.rmtree(folder)


def _open_folders(folder: Path) -> None:
    """Give back to all folders the permissions that it takes to remove what is in them."""
    folder.chmod(0o700)
    for path, folders, _ in os.walk(folder):
        for inner in [Path(path, name) for name in folders]:
            if not inner.is_symlink():
                inner.chmod(0o700)


def _is_own_folder(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _started(pid: int) -> int | None:
    """Give the clock tick at which a process started; None: there is no such process.

    :raises OSError: it cannot be told, for want of a descriptor perhaps.
    """
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = line.rpartition(b")")[2].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])
