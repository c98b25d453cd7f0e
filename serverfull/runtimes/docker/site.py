"""What all containers of a host share: the engine, the folder that their lines are in, a copy of our own client.

It knows by their label which containers a host that is gone has left, and removes them when it is opened. Removing one
takes the engine 50 ms, so nobody waits for that but the end of the host; what could not be removed because the engine
was away is removed when it is back.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import stat
import tempfile
from collections import deque
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from serverfull.runtimes import child
from serverfull.runtimes.docker.engine import Engine, EngineGone
from serverfull.runtimes.docker.networks import network_of
from serverfull.runtimes.docker.options import INSTANCE, OWNER
from serverfull.runtimes.sandboxes.leftovers import abandoned, is_abandoned, own_name, remove_tree
from serverfull.runtimes.sandboxes.watching import Watcher

_CLOSING = 10.0
"""Seconds that the end of the host waits for its containers to be removed."""

_AT_ONCE = 6
"""Containers that are removed at once of those that a killed host has left: new ones are to be started meanwhile."""

MOST_WAITING = 64
"""Connections to one Runtime API that wait to be taken, before it is known whose they may be."""


class Site:
    """Open it before the first container, and close it after the last.

    :param keep: how many containers are kept that have ended, for who wants to look at them; older ones are removed.
    """

    def __init__(self, engine: Engine, keep: int, logger: Any) -> None:
        self.engine = engine
        self.watcher = Watcher()
        self.labels = {INSTANCE: own_name(), OWNER: str(os.geteuid())}
        self._keep = keep
        self._logger = logger
        self._numbers = itertools.count(1)
        self._opening = asyncio.Lock()
        self._folder: Path | None = None
        self._swept = False
        self._kept: deque[str] = deque()
        self._left: set[str] = set()  # could not be removed yet
        self._tasks: set[asyncio.Task[None]] = set()
        self._gateways: dict[str, str] = {}

    async def open(self) -> None:
        """Make the folder, and begin to remove what hosts that are gone have left. Opening twice is fine.

        :raises EngineGone: there is no engine; opening again tries again.
        """
        async with self._opening:
            if self._folder is None:
                self._folder = await asyncio.to_thread(_make_folder)
            if not self._swept:
                left = await self.engine.ask(_left_by_others)
                self._swept = True
                self.spawn(self._sweep(left))

    @property
    def client(self) -> Path:
        """The folder of our own runtime client, which anybody can read."""
        assert self._folder is not None
        return self._folder / "client"

    @property
    def profiles(self) -> Path:
        """The folder that copies of the operator's profile files are in."""
        assert self._folder is not None
        return self._folder / "aws-config"

    @property
    def layers(self) -> Path:
        """The folder that merged layers are in."""
        assert self._folder is not None
        return self._folder / "layers"

    def new_folder(self) -> Path:
        """Make the folder with the lines of a container: what is in it can be used by who sees it."""
        assert self._folder is not None
        folder = self._folder / f"container-{next(self._numbers)}"
        folder.mkdir()
        folder.chmod(0o755)
        return folder

    async def listener(self, network: str) -> socket.socket:
        """Listen where the containers of a network find this machine. Nobody is let in yet.

        :raises EngineGone: the network has no such address.
        :raises OSError: the address is not one of this machine.
        """
        known = self._gateways.get(network)
        if known is not None:
            with suppress(OSError):  # the engine may have started anew, with another one
                return _listening(known)
        found = await self.engine.ask(partial(network_of, name=network))
        self._gateways[network] = found.gateway
        return _listening(found.gateway)

    def tell(self, event: str, error: Exception) -> None:
        """Say in the host's log what the engine or the machine does not do."""
        self._logger.error(event, reason=str(error))

    def remove(self, container: str) -> None:
        """Remove a container that has ended, or is to end now; nobody waits."""
        self.spawn(self._remove(container))

    def retire(self, container: str) -> None:
        """Remove a container that has ended, unless it is among those that are kept."""
        if not self._keep:
            self.remove(container)
            return
        self._kept.append(container)
        while len(self._kept) > self._keep:
            self.remove(self._kept.popleft())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for but the end of the host."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, container: str) -> None:
        names, self._left = {container, *self._left}, set()
        for name in names:
            try:
                await self.engine.ask(partial(remove_container, name=name))
            except EngineGone:
                self._left.add(name)
            except Exception as error:  # a task's boundary
                self._logger.error("container not removed", container=name, exc_info=error)

    async def _sweep(self, left: Mapping[str, str]) -> None:
        """Remove the containers that hosts which are gone have left, and the ends of their lines."""
        some = asyncio.Semaphore(_AT_ONCE)

        async def remove(container: str) -> None:
            async with some:
                await self._remove(container)

        await asyncio.gather(*map(remove, left))
        await asyncio.to_thread(_sweep_folders)
        if left:
            removed = list(left.values())
            self._logger.warning("removed the containers that a killed host had left", containers=removed)

    async def aclose(self) -> None:
        """Wait until the containers are removed, and remove the folder. Closing twice is fine."""
        if self._left:
            self.remove(self._left.pop())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSING)
        self.engine.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            await asyncio.to_thread(remove_tree, folder)
            with suppress(OSError):  # there are others in it
                folder.parent.rmdir()


def _listening(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET)
    try:
        listener.bind((address, 0))
        listener.listen(MOST_WAITING)
    except BaseException:
        listener.close()
        raise
    return listener


def has_left_something() -> bool:
    """Say whether a host that is gone had containers here, so that an engine is worth asking for them."""
    return any(True for _ in abandoned(_parent()))


def _parent() -> Path:
    """Give the folder with the folders of all hosts of this user; apart from others', whose end leaves no container."""
    return Path(tempfile.gettempdir()) / f"serverfull-docker-{os.geteuid()}"


def _make_folder() -> Path:
    parent = _parent()
    parent.mkdir(mode=0o700, exist_ok=True)
    found = parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{parent} is not a folder that this user alone writes to: remove it")
    folder = Path(tempfile.mkdtemp(prefix=f"{own_name()}-", dir=parent))
    for source in child.__path__:
        shutil.copytree(source, folder / "client")
    for path in (folder / "client").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / "client").chmod(0o755)
    return folder


def _sweep_folders() -> None:
    for folder in abandoned(_parent()):
        remove_tree(folder)


def _left_by_others(client: Any) -> dict[str, str]:
    """Give the names of the containers of hosts of this user that are gone, by their ids; others' stay.

    Whether a host of another user is gone cannot be told where /proc hides it (``hidepid``).
    """
    ours = {"label": [INSTANCE, f"{OWNER}={os.geteuid()}"]}
    return {
        container["Id"]: container["Names"][0].lstrip("/")
        for container in client.containers(all=True, filters=ours)
        if is_abandoned(container["Labels"][INSTANCE])
    }


def remove_container(client: Any, name: str) -> None:
    """Kill a container, and remove it with what it has written. One that is not there is no error."""
    from docker.errors import APIError, NotFound

    try:
        client.remove_container(name, force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:  # somebody else removes it already
            raise
