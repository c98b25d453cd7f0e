"""What attempts are made with: system calls by their numbers, and files."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
PARENT = os.getppid()

Probe = Callable[[Any], Any]

PROBES: dict[str, tuple[str, Probe]] = {}
"""Each attempt, by its name."""

# By name: the number on x86_64, and that on aarch64; -1: it has none there.
_NUMBERS = {
    "modify_ldt": (154, -1),
    "ioperm": (173, -1),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "clone": (56, 220),
    "setns": (308, 268),
    "unshare": (272, 97),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "move_pages": (279, 239),
    "adjtimex": (159, 171),
    "syslog": (103, 116),
    "acct": (163, 89),
    "msgrcv": (70, 188),
    "semctl": (66, 191),
    "ioprio_set": (251, 30),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
    "listmount": (458, 458),
}


class Kept(Exception):
    """There was nothing to get hold of."""


def probe(group: str) -> Callable[[Probe], Probe]:
    """Take a function as an attempt; its docstring says what it tries."""

    def register(function: Probe) -> Probe:
        PROBES[function.__name__] = (group, function)
        return function

    return register


def call(name: str, *arguments: Any) -> int:
    """Make a system call; gives its result.

    :raises OSError: the kernel refuses it.
    """
    number = _NUMBERS[name][ARM]
    if number < 0:
        raise OSError(errno.ENOSYS, "not on this architecture")
    libc.syscall.restype = ctypes.c_long
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return checked(done)


def checked(done: int) -> int:
    if done == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return done


def read(path: str, size: int = 200) -> bytes:
    with open(path, "rb") as file:
        return bytes(not_nothing(file.read(size)))


def not_nothing(found: Any) -> Any:
    if not found:
        raise Kept("nothing is there")
    return found


def create(folder: str) -> str:
    """Make a file in a folder, and remove it."""
    path = os.path.join(folder, f".serverfull-probe-{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(path)
    return folder


def opens(path: str, flags: int = os.O_WRONLY) -> str:
    os.close(os.open(path, flags))
    return path
