"""Copies what a function has left in its ``/tmp`` into that of another environment."""

from __future__ import annotations

import os
import stat

_AT_ONCE = 1 << 24


def copy_folder(source: int, target: int) -> None:
    """Copy what is in a folder, with modes, times and owners; nothing of other file systems that are mounted in it.

    :param source: a descriptor of the folder.
    :param target: one of a folder that is there.
    :raises OSError: there is no room for it.
    """
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if found.st_dev != device:
            continue
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
            continue
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
        elif not stat.S_ISREG(found.st_mode):
            continue  # a socket or a named pipe: what it led to is not here
        flags = os.O_RDONLY if stat.S_ISDIR(found.st_mode) else os.O_RDWR | os.O_CREAT | os.O_EXCL
        _fill(os.open(name, os.O_RDONLY, dir_fd=source), os.open(name, flags, 0o600, dir_fd=target), found)


def _fill(source: int, target: int, found: os.stat_result) -> None:
    try:
        if stat.S_ISDIR(found.st_mode):
            copy_folder(source, target)
        else:
            while os.sendfile(target, source, None, _AT_ONCE):
                pass
        os.fchown(target, found.st_uid, found.st_gid)
        os.fchmod(target, stat.S_IMODE(found.st_mode))
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        os.close(source)
        os.close(target)
