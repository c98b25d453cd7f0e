"""Deployed code that runs from folders of the machine in place: who runs from which, and how often it has changed.

`DeployedFetcher` asks here for the folders of a version before it makes a handler of them. From then on they are
watched, and a change is published as one of the function: the fetcher forgets it, and the next call gets a new handler
of a higher generation, with environments of its own. Nothing is watched that nobody has called.

All on the event loop; folders are looked at elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from serverfull.domain.changes import FunctionChanged
from serverfull.errors import CodeNotBuilt, FunctionNotReady, InvalidParameterValue, ManifestInvalid
from serverfull.fetchers.folders import build_command

if TYPE_CHECKING:
    from serverfull.domain.changes import Changes
    from serverfull.domain.hot_paths import FolderIdentity
    from serverfull.domain.records import Partition
    from serverfull.interfaces import Building, Watch, Watching

Name: TypeAlias = "tuple[Partition, str]"
"""A function."""


class Folders(Protocol):
    """What looks at folders; everything blocks, and raises InvalidParameterValue where one may not be used."""

    def find(self, path: str) -> Path:
        """Give a folder without symbolic links."""

    def identity(self, path: str) -> FolderIdentity:
        """Say which folder it is."""

    def copy(self, path: str) -> Path:
        """Give a new folder with what is in one now."""

    def remove(self, copied: Path) -> None:
        """Delete such a folder; raises nothing."""


PATIENCE = 10.0
"""Seconds until a folder has to be watched: one of 100,000 files takes two."""


@dataclass(slots=True)
class _Followed:
    """A folder that is watched.

    :ivar users: the versions that run from it.
    """

    watch: Watch
    users: set[tuple[Name, int]] = field(default_factory=set)


class HotCode:
    """Gives folders to those who run from them, and says when they have changed.

    :param folders: looks at them.
    :param watching: makes what watches them, when the first one is to be.
    :param changes: is told.
    :param logger: hears of each change.
    :param building: gives what runs build commands, which folders may have as served ones do; None: none is run.
    :ivar on_change: called for each function after everybody has been told, and its calls get the new code.
    """

    def __init__(
        self,
        folders: Folders,
        watching: Callable[[], Watching],
        changes: Changes,
        logger: Any,
        building: Callable[[], Building] | None = None,
    ) -> None:
        self._folders = folders
        self._loop = asyncio.get_running_loop()
        self._watching = watching
        self._changes = changes
        self._logger = logger
        self.on_change: Callable[[Partition, str], None] = lambda _partition, _name: None
        self._building = building
        self._builds: dict[Path, asyncio.Task[None]] = {}
        self._to_build: set[Path] = set()
        self._followed: dict[Path, _Followed] = {}
        self._generations: dict[Name, int] = {}
        changes.subscribe(self._forget)

    def generation(self, name: Name) -> int:
        """Give a number that is higher after each change of what a function runs from; 0: there was none."""
        return self._generations.get(name, 0)

    async def use(self, name: Name, version: int, paths: Sequence[str]) -> Sequence[Path]:
        """Give the folders that a version runs from, watched from now on; those it ran from before no longer are.

        :raises FunctionNotReady: one may not be used, or is gone, or cannot be watched in time.
        """
        found = await asyncio.to_thread(self._find, name[1], paths) if paths else ()
        user = name, version
        fresh = []
        for folder in found:
            if folder not in self._followed:
                watch = self._watching().watch(folder, partial(self._changed, folder))
                self._followed[folder] = _Followed(watch)
            self._followed[folder].users.add(user)
            fresh.append(self._followed[folder].watch)
        self._leave(user, keep=found)
        try:
            async with asyncio.timeout(PATIENCE):
                for watch in fresh:
                    await watch.active()  # before anything is loaded: no change is missed
        except TimeoutError:
            raise FunctionNotReady(name[1], "Pending", f"Its folders are not watched yet: {', '.join(paths)}") from None
        for folder in found if self._building is not None else ():
            await self._is_another(name[1], folder)
        return found

    async def copy(self, name: Name, path: str) -> Path:
        """Give a new folder with what is now in one; whoever gets it has it removed.

        :raises FunctionNotReady: it may not be used, or is gone.
        """
        return await asyncio.to_thread(self._copy, name[1], path)

    def remove(self, copies: Sequence[Path]) -> None:
        """Have such folders deleted; called from any thread."""
        with suppress(RuntimeError):  # the host has ended, and all copies with it
            self._loop.call_soon_threadsafe(self._loop.run_in_executor, None, self._remove, copies)

    def _remove(self, copies: Sequence[Path]) -> None:
        for copied in copies:
            self._folders.remove(copied)

    def check(self, name: str, paths: Sequence[str]) -> Sequence[FolderIdentity]:
        """Look again whether a function may run from folders, and say which they are. Blocks; called from any thread.

        :raises FunctionNotReady: it may not, or one is gone.
        """
        with _refusals_of(name):
            return [self._folders.identity(path) for path in paths]

    async def aclose(self) -> None:
        """Watch nothing any more, and end what is being built. Closing twice is fine."""
        for followed in self._followed.values():
            followed.watch.close()
        self._followed.clear()
        builds = list(self._builds.values())
        for build in builds:
            build.cancel()
        if builds:
            await asyncio.wait(builds)

    def _find(self, function: str, paths: Sequence[str]) -> Sequence[Path]:
        with _refusals_of(function):
            return [self._folders.find(path) for path in paths]

    def _copy(self, function: str, path: str) -> Path:
        with _refusals_of(function):
            return self._folders.copy(path)

    def _changed(self, folder: Path) -> None:
        if self._building is None:
            self._tell(folder)
            return
        self._to_build.add(folder)
        if folder not in self._builds:
            self._builds[folder] = asyncio.get_running_loop().create_task(self._build(folder))

    async def _build(self, folder: Path) -> None:
        """Have what has changed built, and tell of what is another then."""
        try:
            while folder in self._to_build and folder in self._followed:
                self._to_build.discard(folder)
                if await self._is_another(next(iter(self._followed[folder].users))[0][1], folder):
                    self._tell(folder)
        except Exception as error:  # a task's boundary
            self._logger.error("folder not built", folder=str(folder), exc_info=error)
        finally:
            del self._builds[folder]

    async def _is_another(self, function: str, folder: Path) -> bool:
        """Have a folder built, where it says how; gives whether its code may be another than before."""
        assert self._building is not None
        try:
            command = await asyncio.to_thread(build_command, folder)
            return command is None or await self._building().build(function, folder, command)
        except CodeNotBuilt:  # it is in the log, and the old code serves
            return False
        except (ManifestInvalid, OSError) as error:
            self._logger.error("not built", function=function, folder=str(folder), reason=str(error))
            return True

    def _tell(self, folder: Path) -> None:
        if folder not in self._followed:
            return
        for name in {name for name, _ in self._followed[folder].users}:
            self._generations[name] = self.generation(name) + 1
            self._logger.info(
                "code changed", function=name[1], folder=str(folder), generation=1 + self.generation(name)
            )
            self._changes.publish(FunctionChanged(*name))
            self.on_change(*name)

    def _forget(self, change: FunctionChanged) -> None:
        """Let go of what a function that is gone has run from."""
        name = change.partition, change.name
        if change.deleted:
            self._generations.pop(name, None)
        if change.deleted or change.version is not None:
            gone = {user for followed in self._followed.values() for user in followed.users if user[0] == name}
            for user in gone:
                if change.deleted or user[1] == change.version:
                    self._leave(user)

    def _leave(self, user: tuple[Name, int], keep: Sequence[Path] = ()) -> None:
        left = [path for path, followed in self._followed.items() if user in followed.users and path not in keep]
        for path in left:
            self._followed[path].users.discard(user)
            if not self._followed[path].users:
                self._followed.pop(path).watch.close()


@contextmanager
def _refusals_of(function: str) -> Iterator[None]:
    """Word a refusal of a folder as what is wrong with a function."""
    try:
        yield
    except InvalidParameterValue as refusal:
        raise FunctionNotReady(function, "Failed", refusal.message) from None
