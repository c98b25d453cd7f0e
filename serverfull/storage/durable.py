"""Puts files and folders in their places so that a crash at any point leaves them whole or absent.

What is written goes to a name of its own beside its place first, is flushed to the disk, and is renamed. Names that
begin with ``.new-`` or ``.old-`` are what a crash may leave. Whoever writes into a folder holds it (`held`), together
with others who do; whoever deletes what was left there holds it alone, also against other processes.

Everything here blocks; `Threads` is where the code stores do it.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_UNFINISHED, _ASIDE = LEFTOVERS = (".new-", ".old-")
LOCK = ".lock"


class Threads:
    """A few threads for what blocks, so that many packages at once do not keep the event loop's own threads busy.

    :param count: the most that there are; they start when they are needed.
    """

    def __init__(self, name: str, count: int = 4) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do work on a thread. Being cancelled does not stop it once it has begun."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def aclose(self) -> None:
        """Wait for the work that there is. Closing twice is fine."""
        await asyncio.to_thread(self._pool.shutdown)


@contextmanager
def held(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold a folder among all who write there, in any thread and process; ends with the process at the latest.

    :param alone: wait for the others, and keep them waiting.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def hold(folder: Path) -> int:
    """Take a folder for this process alone, without waiting; gives the descriptor whose end gives it back.

    :raises OSError: somebody else has it, or it is no folder, or a link.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_private(folder: Path) -> None:
    """Make a folder for its owner alone, and one that is there already such a folder: a restored one may not be.

    :raises OSError: it cannot be made, or is somebody else's.
    """
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        folder.chmod(stat.S_IRWXU)


def write_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file, or put it in the place of the one that is there; it is durable when this returns.

    :raises OSError: the disk is full or fails; what was there is still there.
    """
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def place(folder: Path, destination: Path) -> None:
    """Give a folder its name for good.

    :raises FileExistsError: something has the name.
    """
    try:
        folder.rename(destination)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(error.errno, "there is one already", str(destination)) from None
        raise
    flush_folder(destination.parent)


def put_aside(folder: Path, keep: set[str]) -> None:
    """Take from a folder all but what has these names, at once, for `delete_aside`; nobody may be writing there.

    No part of what goes is ever seen under its name without the rest. Names with a dot are left alone, other than
    those of what a crash has left.
    """
    for path in list(folder.iterdir()):
        unwanted = path.name.startswith(_UNFINISHED) if path.name.startswith(".") else path.name not in keep
        if unwanted:
            path.rename(path.with_name(f"{_ASIDE}{secrets.token_hex(8)}"))


def delete_aside(folder: Path) -> None:
    """Delete what was put aside in a folder, while others write there and delete the same."""
    for path in list(folder.glob(f"{_ASIDE}*")):
        with suppress(FileNotFoundError):
            _delete(path)


def delete_leftovers(folder: Path) -> None:
    """Delete what a crash has left in a folder; nobody may be writing there."""
    for path in list(folder.iterdir()):
        if path.name.startswith(LEFTOVERS):
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(root: Path) -> None:
    """Make all that is in a tree durable.

    On Linux the whole file system is flushed at once: a thousand new files take 30 ms so and 2 to 4 s one by one.

    :raises OSError: the disk fails.
    """
    if not _flush_file_system(root):
        for folder, _, files in os.walk(root):
            for name in files:
                _flush_file(os.path.join(folder, name))  # noqa: PTH118
            flush_folder(Path(folder))


def _flush_file(path: str) -> None:
    if os.path.islink(path):  # noqa: PTH114
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_file_system(root: Path) -> bool:
    """Flush the file system that a folder is on; says whether that could be asked for."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor) == 0:
            return True
        failure = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if failure == errno.ENOSYS:
        return False
    raise OSError(failure, os.strerror(failure), str(root))
