"""Unpacked packages: one folder for each, made when it is first asked for.

Every code store has a `Trees`. It is used on one event loop; packages are unpacked on the threads of its store, each
once however many ask for it at a time. Between processes whoever is done first wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from serverfull.storage.durable import Threads, delete_aside, held, put_aside
from serverfull.storage.packages import unpack


class Trees:
    """The folders below one folder, named by the SHA-256 of their packages.

    :param directory: what holds them; made where it is missing.
    :param threads: where packages are unpacked.
    """

    def __init__(self, directory: Path, threads: Threads) -> None:
        self._directory = directory
        self._threads = threads
        self._unpacking: dict[str, asyncio.Task[Path]] = {}

    async def get(self, sha256: str, read: Callable[[str], bytes]) -> Path:
        """Give the folder of a package. Being cancelled does not stop the work, for others may wait for it too.

        :param read: gives the package where it has to be unpacked; called on a thread.
        :raises InvalidParameterValue: it cannot be unpacked.
        """
        unpacking = self._unpacking.get(sha256)
        if unpacking is None:
            work = partial(self._provide, sha256, read)
            unpacking = self._unpacking[sha256] = asyncio.create_task(self._threads.run(work))
            unpacking.add_done_callback(partial(self._finish, sha256))
        return await asyncio.shield(unpacking)

    def _finish(self, sha256: str, unpacking: asyncio.Task[Path]) -> None:
        del self._unpacking[sha256]
        if not unpacking.cancelled():
            unpacking.exception()  # whoever asked may have gone

    def _provide(self, sha256: str, read: Callable[[str], bytes]) -> Path:
        path = self._directory / sha256
        if path.is_dir():
            return path
        package = read(sha256)
        with held(self._directory):
            try:
                unpack(package, path)
            except FileExistsError:  # another process was faster
                if not path.is_dir():
                    raise
        return path

    def keep_only(self, keep: set[str]) -> None:
        """Put aside all others, and what a crash has left; waits for those who are unpacking, also in other processes.

        They wait for this in turn, and so for renaming alone: `delete_rest` takes its time.
        """
        with held(self._directory, alone=True):
            put_aside(self._directory, keep)

    def delete_rest(self) -> None:
        """Delete what was put aside, in the way of nobody."""
        delete_aside(self._directory)
