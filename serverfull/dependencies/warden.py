"""Runs one command and lets nothing of it live on: a program of its own, started with a host's Python by path.

Its standard input is a line to the host, on which nothing is ever said: when that ends, because the host closes it or
is gone, the command and all that it has started are killed. The same happens to what the command leaves behind when it
ends by itself. The exit code is the command's, as a shell says it.

Uses the standard library alone. Linux has a parent adopt its orphans when it asks for that (prctl(2)); elsewhere a
process that has left its session stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_CHILD_SUBREAPER = 36
_NOT_EXECUTABLE = 126
_KILLED = 128 + signal.SIGKILL


def main() -> None:
    """Run what the only argument says: ``command``, and ``file_bytes`` that each of its files may have."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    _adopt_orphans()
    _set_limits(order["file_bytes"])
    awake, wake = os.pipe()
    os.set_blocking(awake, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    try:
        child = subprocess.Popen(order["command"], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    except OSError as wrong:
        os.write(1, f"{order['command'][0]}: {wrong.strerror}\n".encode())
        os._exit(_NOT_EXECUTABLE)
    code = _wait(child.pid, awake)
    _kill_all(child.pid)
    os._exit(code)


def _adopt_orphans() -> None:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)


def _set_limits(file_bytes: int) -> None:
    for kind, most in ((resource.RLIMIT_FSIZE, file_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY or hard > most:
            resource.setrlimit(kind, (most, most))
    os.nice(10)


def _wait(child: int, awake: int) -> int:
    """Wait until the command or the line ends; gives the code to exit with."""
    while True:
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
        if 0 in ready and not os.read(0, 1):
            return _KILLED


def _ended() -> list[tuple[int, int]]:
    """Give the children that have ended since this was asked last."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, status))


def _kill_all(session: int) -> None:
    """Kill until nobody is left: the children of whoever is killed become ours."""
    _kill(os.killpg, session)
    while True:
        for pid in _children():
            _kill(os.kill, pid)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _kill(how: Any, number: int) -> None:
    with contextlib.suppress(OSError):
        how(number, signal.SIGKILL)


def _children() -> list[int]:
    own, found = b"%d" % os.getpid(), []
    for name in _listed("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[1] == own:
                found.append(int(name))
    return found


def _listed(folder: str) -> list[str]:
    try:
        return [path.name for path in Path(folder).iterdir()]
    except OSError:
        return []


if __name__ == "__main__":
    main()
