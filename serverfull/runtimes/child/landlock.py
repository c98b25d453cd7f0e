"""Landlock: the kernel's rules on files that a process gives itself. A second wall of the sandbox level ``strict``.

Alone it is no sandbox: Unix sockets with a path, UDP and what else is no file are not its business.

Kernel: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct

from . import confine

TYPE_CHECKING = False  # the module typing is not needed to run
if TYPE_CHECKING:
    from collections.abc import Mapping

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on all architectures
_WHICH_VERSION = 1
_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_DEVICES = 1 << 6 | 1 << 11
_TRUNCATE, _DEVICE_CONTROL = 1 << 14, 1 << 15

# How many kinds of access to files a version knows, from version 1 on; the last one stays.
_KINDS = (13, 14, 15, 15, 16)
_SIZES = (8, 8, 8, 16, 16, 24)
_SCOPES = 0b11
"""Abstract sockets, and signals: both within the sandbox alone."""

_OLDEST = 2
"""Before it, nothing can be moved from one folder to another."""

READ = EXECUTE | READ_FILE | READ_FOLDER
USE_DEVICES = WRITE_FILE | READ_FILE | READ_FOLDER | _DEVICE_CONTROL | _TRUNCATE


def version() -> int:
    """Give the version that the kernel has; 0 where it has none that is of use."""
    found = int(confine.libc.syscall(_CREATE, None, ctypes.c_size_t(0), _WHICH_VERSION))
    return found if found >= _OLDEST else 0


def everything() -> int:
    """Give all that can be done with files, but for making devices."""
    return _handled(version()) & ~_MAKE_DEVICES


def restrict(rights: Mapping[str, int]) -> None:
    """Leave this process, and what it starts, these rights on files and no others. They cannot be got back.

    Nothing happens where the kernel has no Landlock.

    :param rights: by folder; those of the folders above count too.
    :raises OSError: it cannot be done; the process may gain rights yet, for example.
    """
    known = version()
    if not known:
        return
    handled = _handled(known)
    size = _SIZES[min(known, len(_SIZES)) - 1]
    rules = struct.pack("=QQQ", handled, 0, _SCOPES)
    made = int(confine.libc.syscall(_CREATE, rules, ctypes.c_size_t(size), 0))
    confine.check(min(made, 0), "Landlock's rules")
    try:
        for folder, allowed in rights.items():
            beneath = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", allowed & handled, beneath)
                confine.check(confine.libc.syscall(_ADD, made, _BENEATH, rule, 0), f"Landlock's rule of {folder}")
            finally:
                os.close(beneath)
        confine.check(confine.libc.syscall(_RESTRICT, made, 0), "Landlock")
    finally:
        os.close(made)


def _handled(known: int) -> int:
    return (1 << _KINDS[min(known, len(_KINDS)) - 1]) - 1
