"""Copies of the operator's profile files, for sandboxes whose code runs as another user.

The files are mostly their owner's alone. So such sandboxes see copies that anybody can read, in a folder that nobody
but the host's user can get to, and nothing else of what lies beside the files. They are made anew where the files have
changed, before a sandbox starts; those that run see them too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from serverfull.errors import InternalFailure
from serverfull.runtimes.aws_access import PROFILE_FILES

if TYPE_CHECKING:
    from collections.abc import Callable


class Profiles:
    """The copies of one host.

    :param source: the operator's folder; None: there are none.
    :param place: gives the folder that the copies are to be in, once there is one.
    """

    def __init__(self, source: Path | None, place: Callable[[], Path]) -> None:
        self._source = source
        self._place = place
        self._copied: dict[str, object] = {}
        self._copying = asyncio.Lock()

    @property
    def folder(self) -> Path | None:
        """The folder with the copies; None: there are none."""
        return None if self._source is None else self._place()

    async def refresh(self) -> None:
        """Copy what has changed.

        :raises InternalFailure: it cannot be copied.
        """
        if self._source is None:
            return
        async with self._copying:
            try:
                await asyncio.to_thread(self._copy, self._source, self._place())
            except OSError as wrong:
                raise InternalFailure from wrong

    def _copy(self, source: Path, place: Path) -> None:
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
        for name in PROFILE_FILES:
            try:
                found = (source / name).stat()
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    (place / name).unlink()
                self._copied.pop(name, None)
                continue
            version = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._copied.get(name) != version:
                fresh = place / f".{name}"
                fresh.write_bytes((source / name).read_bytes())
                fresh.chmod(0o644)
                fresh.replace(place / name)
                self._copied[name] = version
