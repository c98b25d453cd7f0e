"""What of a process a fork takes along: found before a snapshot is used, and put right in each process made of it.

On AWS a snapshot is one of a whole machine: threads run on, and each copy has files and memory of its own. A fork
copies the thread that calls it, and shares open files and shared memory. So a process that has more than can be copied
makes no snapshot (`hindrance`). What is left is put right: connections are closed, as AWS says that they may be
(`hang_up`), and files are opened again, so that no two processes read on from each other's place (`OpenFiles`).

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart-best-practices.html
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import os
import signal
import socket
import stat
import sys
from collections.abc import Collection, Iterator

_TMP = "/tmp"  # noqa: S108 - that is the place
_KEPT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC

_WORDS = {
    "anon_inode:[eventpoll]": "an event loop (epoll)",
    "anon_inode:[eventfd]": "an eventfd",
    "anon_inode:inotify": "an inotify instance",
    "anon_inode:[timerfd]": "a timerfd",
    "anon_inode:[signalfd]": "a signalfd",
}


def hindrance(kept: Collection[int]) -> str:
    """Say what this process has that a fork would not copy; empty: nothing.

    :param kept: descriptors that are not the function's.
    """
    found = [*_threads(), *_children(), *_descriptors(kept), *_shared_memory()]
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        found.append("a timer")
    return ", ".join(dict.fromkeys(found))


def _threads() -> Iterator[str]:
    if _thread._count():
        threading = sys.modules.get("threading")
        others = [] if threading is None else threading.enumerate()
        names = [each.name for each in others if each is not threading.main_thread()]  # type: ignore[union-attr]
        yield f"threads ({', '.join(names) or _thread._count()})"
    elif _tasks() > 1:
        trial = os.fork()  # a library may end its threads before a fork and begin with new ones after it
        if trial == 0:
            os._exit(0)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(trial, 0)
        if _tasks() > 1:
            yield "threads of a library"


def _tasks() -> int:
    return len(os.listdir("/proc/self/task"))


def _children() -> Iterator[str]:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        yield "a child process"


def _descriptors(kept: Collection[int]) -> Iterator[str]:
    for number, mode in _open(kept):
        if stat.S_ISSOCK(mode):
            with _socket(number) as found:
                if _listens(found):
                    yield "a socket that listens"
                elif found.family == socket.AF_UNIX and not _peer(found):
                    yield "a pair of sockets"
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode)):
            target = os.readlink(f"/proc/self/fd/{number}")
            yield "a pipe" if stat.S_ISFIFO(mode) else _WORDS.get(target, target)


def _shared_memory() -> Iterator[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            if line.split(" ", 2)[1] == "rw-s":
                yield "memory that it shares with other processes"


def _open(kept: Collection[int]) -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number not in kept:
            with contextlib.suppress(OSError):  # the directory itself
                yield number, os.fstat(number).st_mode


def _socket(number: int) -> socket.socket:
    return socket.socket(fileno=os.dup(number))


def _listens(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _peer(of: socket.socket) -> object:
    try:
        return of.getpeername()
    except OSError:
        return None


def hang_up(kept: Collection[int]) -> None:
    """Close the connections that this process has, under objects that go on: reading finds the end.

    :param kept: descriptors that are not the function's.
    """
    for number, mode in _open(kept):
        if stat.S_ISSOCK(mode):
            with _socket(number) as found:
                connected = found.type & 0xF == socket.SOCK_STREAM
            if connected:
                ours, theirs = socket.socketpair()
                theirs.close()
                _replace(number, ours.detach())


class OpenFiles:
    """The files and datagram sockets that a process has open before it is forked.

    :param kept: descriptors that are not the function's.
    """

    def __init__(self, kept: Collection[int]) -> None:
        found = list(_open(kept))
        self._files = {
            number: os.readlink(f"/proc/self/fd/{number}")
            for number, mode in found
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        }
        self._sockets = [number for number, mode in found if stat.S_ISSOCK(mode)]

    def separate(self) -> None:
        """Give the process that calls this places in its files, and sockets, that it shares with no other.

        What lay in ``/tmp`` is its own file in the ``/tmp`` that it has now.
        """
        for number, path in self._files.items():
            with contextlib.suppress(OSError):  # one that may not be opened again stays shared
                _replace(number, _again(number, path))
        for number in self._sockets:
            with _socket(number) as old:
                if old.type & 0xF == socket.SOCK_DGRAM:
                    with contextlib.suppress(OSError):
                        _replace(number, _datagrams(old))


def _again(number: int, path: str) -> int:
    flags = fcntl.fcntl(number, fcntl.F_GETFL) & _KEPT_FLAGS
    if os.fstat(number).st_nlink == 0:
        return _copied(number, flags)
    new = os.open(path if path.startswith(_TMP + os.sep) else f"/proc/self/fd/{number}", flags)
    os.lseek(new, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
    return new


def _copied(number: int, flags: int) -> int:
    """Copy a file that has no name any more."""
    new = os.open(_TMP, (flags & ~os.O_ACCMODE) | os.O_RDWR | os.O_TMPFILE, 0o600)
    at = 0
    while data := os.pread(number, 1 << 20, at):
        os.pwrite(new, data, at)
        at += len(data)
    os.lseek(new, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
    return new


def _datagrams(old: socket.socket) -> int:
    with socket.socket(old.family, old.type & 0xF, old.proto) as new:
        peer = _peer(old)
        if peer:
            new.connect(peer)  # type: ignore[arg-type]
        return new.detach()


def _replace(number: int, new: int) -> None:
    """Put a descriptor in the place of another, which keeps how it waits and who inherits it."""
    os.set_blocking(new, os.get_blocking(number))
    os.dup2(new, number, os.get_inheritable(number))
    os.close(new)
