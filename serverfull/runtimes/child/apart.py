"""Forks into namespaces of its own: what a process of the sandbox level ``strict`` begins in.

The first process of a namespace of processes is its *init*. It ignores signals that it does not handle, and all others
end with it, so no function may be it. Here it is a process of ours, that reaps what is orphaned and does nothing else;
the function's process is the second. A process between them and the zygote makes the namespaces and ends at once, so
that both are the zygote's own children, by adoption: it sees how they end and what they used. A process that is to join
another in its namespaces comes about in the same way.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys

from . import confine

TYPE_CHECKING = False  # the module typing is not needed to run
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_NAMES = 0x04000000
_SYSTEM_V = 0x08000000
_PROCESSES = 0x20000000
_NETWORK = 0x40000000
_ALL = confine.NEW_MOUNTS | _NAMES | _SYSTEM_V | _PROCESSES | _NETWORK

_NOBODY = 65534
_HOST_NAME = b"localhost"

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
_FLAGS_OF = "16sh22x"

_FAILED = b"-"


def fork(alive: int) -> tuple[int, int]:
    """Fork, into namespaces of mounts, processes, network, System V objects and names that are the child's alone.

    It has a loopback device and no other, and still sees all files of the machine. It does not end with its parent:
    its init ends it, when the other end of a pipe is closed.

    :param alive: the reading end of that pipe; nobody but the parent may keep the other end.
    :returns: the ids of the process and of its init; in the child 0 and -1.
    :raises OSError: something of it cannot be done; nothing is left then.
    """
    return _between(lambda: _part(alive))


def join(pid: int) -> tuple[int, int]:
    """Fork, into the namespaces of another process, but for that of its mounts.

    The child still sees all files of the machine, until it enters the other's mounts by a descriptor of them.

    :param pid: of that process, which has begun and not ended.
    :returns: the id of the process, and 0; in the child 0, and the descriptor.
    :raises OSError: something of it cannot be done; nothing is left then.
    """
    return _between(lambda: _follow(pid))


def reach(pid: int, channel: int) -> None:
    """Give away a TCP socket that is in the network of another process, where nothing else reaches.

    The calling process is of no other use after that.

    :param pid: of that process.
    :param channel: the descriptor of a socket whose other end gets it.
    :raises OSError: it has ended.
    """
    _enter(_open_spaces(pid, ("net",)))
    with socket.socket(fileno=os.dup(channel)) as line, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as given:
        give(line, given)


def give(line: socket.socket, given: socket.socket) -> None:
    """Send a socket over another."""
    rights = given.fileno().to_bytes(4, sys.byteorder)
    line.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def enter_mounts(descriptor: int) -> None:
    """Enter a namespace of mounts, and close what it was known by.

    :param descriptor: as `join` gives it.
    :raises OSError: that cannot be done.
    """
    _enter({"mnt": descriptor})


def _between(make: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """Have a process between this one and the new one make that, and end, so that the new one is this one's child.

    :param make: gives what is known by the new one's side, and its id, which is 0 in that process itself.
    """
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            known, pid = make()
            if pid == 0:
                os.close(reading)
                os.close(writing)
                return 0, known
            os.write(writing, b"%d %d" % (pid, known))
        except BaseException as error:
            why = getattr(error, "strerror", None) or str(error)
            os.write(writing, _FAILED + why.encode("utf-8", "replace")[:2000])
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 4096)
    os.close(reading)
    os.waitpid(middle, 0)
    if not said or said.startswith(_FAILED):
        raise OSError(said[1:].decode("utf-8", "replace") or "the namespaces cannot be made")
    pid, known = map(int, said.split())
    return pid, known


def _follow(pid: int) -> tuple[int, int]:
    """Enter the namespaces of another, and fork there; gives the descriptor of its mounts in the new process."""
    mounts = _open_space(pid, "mnt")
    _enter(_open_spaces(pid, ("net", "ipc", "uts", "pid")))
    made = os.fork()
    return (0, made) if made else (mounts, 0)


def _open_spaces(pid: int, kinds: Sequence[str]) -> dict[str, int]:
    """Open namespaces of a process, first of all that of users, where it has one."""
    return {kind: _open_space(pid, kind) for kind in (*(("user",) if os.geteuid() else ()), *kinds)}


def _open_space(pid: int, kind: str) -> int:
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)


def _enter(spaces: Mapping[str, int]) -> None:
    for kind, space in spaces.items():
        confine.check(confine.libc.setns(space, 0), f"the {kind} namespace of another process")
        os.close(space)


def _part(alive: int) -> tuple[int, int]:
    """Make the namespaces and the two processes in them."""
    user, group = os.geteuid(), os.getegid()
    confine.check(confine.libc.unshare(_ALL | (confine.NEW_USERS if user else 0)), "namespaces of its own")
    if user:
        confine.write("/proc/self/setgroups", "deny")
        confine.write("/proc/self/uid_map", f"{user} {user} 1")
        confine.write("/proc/self/gid_map", f"{group} {group} 1")
    confine.check(confine.libc.sethostname(_HOST_NAME, len(_HOST_NAME)), "the name of the machine")
    _raise_loopback()
    init = os.fork()
    if init == 0:
        try:
            _be_init(alive, is_root=not user)
        finally:
            os._exit(1)
    try:
        made = os.fork()
        return (init, made) if made else (-1, 0)
    except OSError:
        os.kill(init, signal.SIGKILL)
        raise


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack(_FLAGS_OF, b"lo", 0)
        name, flags = struct.unpack(_FLAGS_OF, fcntl.ioctl(any_socket, _GET_FLAGS, asked))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack(_FLAGS_OF, name, flags | _UP))


def _be_init(alive: int, *, is_root: bool) -> None:
    """Be there until the zygote is not, with no right at all: the function's processes see this one."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    os.setsid()
    confine.close_others((alive,))
    if is_root:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    confine.drop_capabilities()
    confine.control(confine.SET_NO_NEW_PRIVILEGES, 1, "no new privileges")
    confine.control(confine.SET_DUMPABLE, 0, "not to be looked at")
    os.read(alive, 1)
