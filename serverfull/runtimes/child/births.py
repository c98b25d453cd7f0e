"""What a forked process does before it becomes a function's: everything of the zygote's is left behind here.

`begin` runs in the child and either replaces it by a command, or gives back what the runtime client needs. A function
gets a process of its own session, with the streams 0 (nothing), 1 and 2 (its log), the connection to its host and no
other descriptor, only its own environment variables, and the limits that the host asks for. It dies with the zygote.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import client, confine, folders, strict

MARK = 10
"""RLIMIT_LOCKS, which no kernel since 2.4.25 enforces. Children inherit it, so it says whose they are."""

_WARM_ONLY = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONNOUSERSITE"}
"""Variables of Python that a warm interpreter can still obey."""

_LARGEST = 1 << 16
"""Bytes of a message."""

_MOST_GIVEN = 4
"""Descriptors that come with a message."""

_HERE = os.path.dirname(os.path.abspath(__file__))


class NotExecutable(Exception):
    """The kernel does not execute the program; the message says why, as AWS words it."""


class Part(NamedTuple):
    """What the runtime client is started with."""

    line: socket.socket
    handler: str
    control: int = -1


def begin(
    order: dict[str, Any],
    given: Sequence[int],
    report: int,
    mark: int,
    zygote: int,
    extra: frozenset[str],
    mounts: int = -1,
) -> Part:
    """Become what is ordered.

    :param order: as `read` gives it.
    :param given: the other descriptors that came with it: what output goes to, and where the Runtime API is to be found
        in a network of one's own, a socket that the host gets the listener by.
    :param report: a descriptor that is closed when all is well; what goes wrong before is written to it.
    :param mark: the number of this launch.
    :param zygote: the process id of the zygote.
    :param extra: names of modules that are imported here, and would not be in an interpreter that has just started.
    :param mounts: the descriptor of those that it is to see, where it joins another process of the level ``strict``.
    :raises NotExecutable: what is to be executed cannot be.
    :raises OSError: something else cannot be done.
    """
    signal.set_wakeup_fd(-1)
    told = order.get("client")
    is_snapshot = bool(told and told.get("snapshot"))
    log, *channels = given
    control = channels.pop() if is_snapshot else -1
    _streams(log)
    _mark(mark, lasting=not is_snapshot)
    limits = order.get("limits") or {}
    walls = limits.get("strict")
    # Before anything is mounted: the socket may lie in a folder that the function is not to see.
    line = None if told is None else client.connect(told["socket"])
    for channel in channels:
        strict.listen(channel)
    kept = (0, 1, 2, report, control, mounts, -1 if line is None else line.fileno())
    visible = (order["cwd"], *(told or {}).get("path", ()))
    parent = zygote if walls is None else None  # else its init ends it
    confine.apply(limits, keep=kept, parent=parent, interpreter=told is not None, visible=visible)
    if walls is not None:
        strict.enclose(walls, mounts)
    os.chdir(order["cwd"])
    environment = order["environment"]
    if line is None or told is None:
        _execute(order["command"], environment)
    elif told.get("wrapper") or _needs_new_interpreter(environment, told.get("root"), extra):
        _execute_client(line, told, environment, control)
    else:
        _take_environment(environment)
        path = [*told.get("path", ()), *_entries(environment.get("PYTHONPATH", ""))]
        if told.get("virtualenvs") or told.get("live"):
            folders.use(path, told["virtualenvs"], told["live"])
        else:
            sys.path[:0] = path
        os.close(report)
        gc.enable()
        return Part(line, told["handler"], control)
    raise AssertionError("a command has replaced this process")


def read(descriptor: int, *, in_groups: bool = False) -> dict[str, Any]:
    """Read an order.

    :param descriptor: of what the host has written it into; it stays open, and nothing else gets its number.
    :param in_groups: whether this process has entered its groups already, so that they are left out.
    """
    order: dict[str, Any] = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    if in_groups:
        (order.get("limits") or {}).pop("groups", None)
    return order


def wait(line: int, groups: list[str], report: int, zygote: int | None) -> tuple[int, Sequence[int]]:
    """Stay ready for a launch, with what takes longest done; ends with the zygote.

    :param line: the descriptor that the zygote sends the order to.
    :param groups: as `confine.enter` takes them.
    :param report: a descriptor that stays open too.
    :param zygote: the process id of the zygote; None: something else ends this process with it.
    :returns: the mark of the launch, and the descriptors that came with it, that of the order first.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    confine.close_others((0, 1, 2, line, report))
    if zygote is not None:
        confine.die_with(zygote)
    confine.enter(groups)
    with socket.socket(fileno=line) as ordering:
        data, descriptors = receive(ordering)
    if not data:
        os._exit(0)
    return int(data), descriptors


def receive(line: socket.socket) -> tuple[bytes, array.array[int]]:
    """Give a message, and the descriptors that came with it; an empty one at the end."""
    try:
        data, ancillary, _, _ = line.recvmsg(_LARGEST, socket.CMSG_SPACE(4 * _MOST_GIVEN), socket.MSG_CMSG_CLOEXEC)
    except OSError:
        data, ancillary = b"", []
    descriptors = array.array("i")
    for _, _, packed in ancillary:
        descriptors.frombytes(packed[: len(packed) // 4 * 4])
    return data, descriptors


def _streams(log: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)


def _mark(mark: int, *, lasting: bool) -> None:
    """Let it be seen whose this process and all that it starts is.

    :param lasting: whether that may not be another's later, as that of a snapshot's forks.
    """
    # Where the zygote has a lower limit itself, orphans of this launch end at the next look, and not with it.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(MARK, (mark, mark if lasting else resource.getrlimit(MARK)[1]))


def _take_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))


def _entries(path: str) -> list[str]:
    return [entry for entry in path.split(os.pathsep) if entry]


def _needs_new_interpreter(environment: dict[str, str], root: str | None, extra: frozenset[str]) -> bool:
    """Say whether something is asked for that only an interpreter that starts anew can give."""
    if "LD_PRELOAD" in environment or any(n.startswith("PYTHON") and n not in _WARM_ONLY for n in environment):
        return True
    if any(_has_library(folder) for folder in _entries(environment.get("LD_LIBRARY_PATH", ""))):
        return True
    # A module of the function that has the name of one in the standard library comes first, unless it is loaded.
    return root is not None and any(name.partition(".")[0] in extra for name in _names(root))


def _has_library(folder: str) -> bool:
    return any(name.startswith("lib") and ".so" in name for name in _names(folder))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _execute_client(line: socket.socket, told: dict[str, Any], environment: dict[str, str], control: int) -> None:
    for number in (line.fileno(), control):
        if number >= 0:
            os.set_inheritable(number, True)
    part = {
        "line": line.fileno(),
        "handler": told["handler"],
        "path": list(told.get("path", ())),
        "control": control,
        "virtualenvs": told.get("virtualenvs", ()),
        "live": told.get("live", ""),
    }
    client = [sys.executable, "-s", os.path.join(_HERE, "__main__.py"), "client", json.dumps(part)]
    _execute([*told.get("wrapper", ()), *client], environment)


def _execute(command: list[str], environment: dict[str, str]) -> None:
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        raise NotExecutable(f"fork/exec {command[0]}: {os.strerror(error.errno or 0).lower()}") from None
