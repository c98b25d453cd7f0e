"""The folder of a state: its files, who may read them, and the lock that keeps a second host out."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from serverfull.errors import StateInUse, StateUnusable

DATABASE = "state.db"
CODE = "code"
EVENTS = "events"
_LOCK = "lock"
_CREATED = f"{DATABASE} was made here"


class StateFolder:
    """A folder that this host has for itself, until `release` or the end of the process, however it ends.

    :param path: made, for its owner alone, where it does not exist.
    :raises StateInUse: another host has it.
    :raises StateUnusable: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / DATABASE
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as wrong:
            raise StateUnusable(f"{path} cannot keep the state: {wrong.strerror}") from wrong
        try:
            self._take()
        except BaseException:
            os.close(self._lock)
            raise

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as wrong:
            if wrong.errno not in (errno.EAGAIN, errno.EACCES):
                raise StateUnusable(f"{self.path / _LOCK} cannot be locked: {wrong.strerror}") from wrong
            raise StateInUse(
                f"{self.path} is used by another host{self._owner()}: stop that one, or give this one another folder"
            ) from wrong
        self.was_used = _CREATED in self._text()
        self._write()

    def _owner(self) -> str:
        process = self._text().partition("\n")[0]
        return f" ({process})" if process else ""

    def _text(self) -> str:
        return os.pread(self._lock, 200, 0).decode(errors="replace")

    def _write(self) -> None:
        text = f"process {os.getpid()}\n" + f"{_CREATED}\n" * self.was_used
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text.encode(), 0)

    def remember_use(self) -> None:
        """Note that there is a database from now on, so that one that vanishes is not taken for one never made."""
        if not self.was_used:
            self.was_used = True
            self._write()

    def keep_private(self) -> None:
        """Take the database from everybody but its owner: a restored one may have other rights.

        :raises StateUnusable: it is not ours.
        """
        try:
            if self.database.stat().st_mode & 0o077:
                self.database.chmod(0o600)
        except OSError as wrong:
            raise StateUnusable(f"{self.database} cannot be made private: {wrong.strerror}") from wrong

    def release(self) -> None:
        """Let others have it. Releasing twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk, as fsync has the contents of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
