"""What all sandboxes of a host share: the folder that theirs are in, and what the machine can hold them with."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serverfull.runtimes.process.cgroups import Place
from serverfull.runtimes.process.means import Level, Means, check_strict, probe, sweep
from serverfull.runtimes.process.spares import Spares
from serverfull.runtimes.sandboxes.leftovers import make_own_folder, remove_tree
from serverfull.runtimes.sandboxes.watching import Watcher


class Machine:
    """Open it before the first sandbox, and close it after the last.

    :param level: how much sandboxes are held.
    :param hidden: folders of the host that no function is to see.
    :param shared: folders that all functions may write to, at the level ``strict`` too.
    """

    def __init__(self, level: Level, logger: Any, *, hidden: Sequence[Path] = (), shared: Sequence[Path] = ()) -> None:
        self.level = level
        self.shared = shared
        self._hidden = hidden
        self._logger = logger
        self._numbers = itertools.count(1)
        self._opening = asyncio.Lock()
        self._folder: Path | None = None
        self.watcher = Watcher()
        self.spares = Spares(self)
        self.means: Means

    async def open(self) -> None:
        """Look what the machine can do, and remove what a killed host has left. Opening twice is fine."""
        async with self._opening:
            if self._folder is None:
                await asyncio.to_thread(self._open)

    def _open(self) -> None:
        if self.is_strict:
            check_strict()
        self.means = probe()
        swept = sweep(self.means, Path(tempfile.gettempdir()))
        if swept:
            self._logger.warning("removed what a killed host had left", paths=[str(path) for path in swept])
        self._logger.info("sandboxes", sandbox=self.level.name.lower(), means=str(self.means), why=dict(self.means.why))
        self._folder = make_own_folder()

    @property
    def places(self) -> Mapping[str, Place]:
        """Where the groups of sandboxes are made, by controller; none where nothing is to hold them."""
        return {} if self.level is Level.NONE else self.means.places

    @property
    def is_strict(self) -> bool:
        """Whether processes are behind walls, and not within limits alone."""
        return self.level is Level.STRICT

    @property
    def mounts_opt(self) -> bool:
        """Whether a function can have an ``/opt`` of its own."""
        return self.is_strict or (self.level is not Level.NONE and self.means.opt == "mount")

    @property
    def hidden(self) -> Sequence[Path]:
        """What no function is to see, wherever it lies: what the host keeps, and its own files."""
        return [*self._hidden, *([] if self._folder is None else [self._folder])]

    @property
    def no_copies(self) -> str:
        """Why no process can be the copy of another and held as one that is started anew; empty: it can."""
        if self.is_strict:
            return "the sandbox level strict, whose walls a process cannot leave to have some of its own"
        if self.level is not Level.NONE and self.means.tmp != "tmpfs":
            return "no /tmp of its own on this machine"
        if self.level is not Level.NONE and self.means.as_user and os.geteuid() == 0:
            return "the user namespace that this machine makes for root, in which a copy can have none of its own"
        return ""

    @property
    def layers(self) -> Path:
        """The folder that merged layers are in."""
        assert self._folder is not None
        return self._folder / "layers"

    @property
    def profiles(self) -> Path:
        """The folder that copies of the operator's profile files are in."""
        assert self._folder is not None
        return self._folder / "aws-config"

    def new_folder(self) -> Path:
        """Make the folder of a sandbox. No other of this process has its name, also where that runs several hosts."""
        assert self._folder is not None
        folder = self._folder / f"sandbox-{next(self._numbers)}-{self._folder.name.rpartition('-')[2]}"
        folder.mkdir(mode=0o700)
        return folder

    async def aclose(self) -> None:
        """Remove the folder. Closing twice is fine."""
        folder, self._folder = self._folder, None
        if folder is not None:
            await asyncio.to_thread(remove_tree, folder)
