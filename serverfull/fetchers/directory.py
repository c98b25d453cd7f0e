"""Functions that lie in a folder: one sub-folder or one ``.py`` file for each.

What is there is known from a look at all of it, on a thread. The next look begins when the host's watcher says that
something has changed; where nobody watches, with the first call a second after the last one. So no call looks at a disk
by itself, and all that come while one is due wait for the same.

A function is the same object until a look finds its files, its manifest or its layers otherwise than before. What was
loaded of the old one ends when nothing runs there any more. Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.manifests import function_of
from serverfull.errors import (
    CodeNotBuilt,
    ExtraMissing,
    FunctionNotReady,
    InternalFailure,
    NotFoundError,
    TargetNotFound,
)
from serverfull.fetchers.folders import Placed, is_as_seen, look
from serverfull.interfaces import Fetcher, Found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serverfull.domain.functions import Function
    from serverfull.fetchers.folders import Looked
    from serverfull.interfaces import Surroundings, Watch

AGE = 1.0
"""Seconds for which what was seen is taken as it was, where nobody watches."""

SHARE = 0.05
"""Of a thread's time, the most that looks take where nobody watches: a large folder is looked at less often."""

PATIENCE = 2.0
"""Seconds that a call waits for a look at a disk that does not answer, before it takes what was seen last."""

_NEWEST = (None, "$LATEST")

_BEING_BUILT = "it is being built for the first time"


class DirectoryFetcher(Fetcher):
    """Serves the functions of a folder, and takes up what changes there. The management API cannot write them.

    Their code runs as that of deployed functions does, where the setting ``execution.mode`` says.

    :param root: the folder.
    :param region: where functions reach AWS by default; None: what the host's settings say.
    :param age: seconds for which what was seen is taken as it was, where nobody watches; 0: each call looks.
    :raises TargetNotFound: there is no such folder.
    """

    source = "directory"

    def __init__(self, root: Path | str, *, region: str | None = None, age: float = AGE) -> None:
        if not Path(root).is_dir():
            raise TargetNotFound(f"there is no folder {root}")
        self._root = Path(root).absolute()  # a link may be switched to another folder
        self._region = region
        self._age = age
        self._surroundings: Surroundings | None = None
        self._placed: dict[str, Placed] = {}
        self._functions: dict[str, Function] = {}
        self._failures: dict[str, str] = {}
        self._generations: dict[str, int] = {}
        self._seen = False
        self._due = 0.0  # when what was seen is too old
        self._looking: asyncio.Task[None] | None = None
        self._once_more = False  # something has changed since the look began
        self._watch: Watch | None = None
        self._watched = False  # no change is missed any more
        self._beginning: asyncio.Task[None] | None = None
        self._began = 0.0  # when the last look did
        self._to_build: dict[str, Placed] = {}
        self._builds: dict[str, asyncio.Task[None]] = {}

    async def open(self, surroundings: Surroundings) -> None:
        """Take what the host has for it, have the folder watched where the host can, and look what is there."""
        self._surroundings = surroundings
        if self._watch is None:
            with suppress(ExtraMissing):
                self._watch = surroundings.watching().watch(self._root, self._changed)
                self._beginning = asyncio.get_running_loop().create_task(self._begin(self._watch))
        for known in (self._placed, self._functions, self._failures, self._generations):
            known.clear()  # what was made without the host's settings
        await self._looked()

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function of that name; there are no versions and no aliases, only ``$LATEST``.

        :raises NotFoundError: there is none.
        :raises FunctionNotReady: it lies there and cannot be served; the message names the file and says why.
        """
        if time.monotonic() >= self._due:
            await self._looked()
        if qualifier in _NEWEST and (function := self._functions.get(name)) is not None:
            return function
        if name in self._failures:
            await self._built(name)
            if qualifier in _NEWEST and (function := self._functions.get(name)) is not None:
                return function
            if name in self._failures:
                raise FunctionNotReady(name, "Failed", self._failures[name])
        raise NotFoundError(name if qualifier in _NEWEST else f"{name}:{qualifier}")

    def lacks(self, name: str) -> bool:
        """Say whether there was no function of that name a moment ago."""
        return name not in self._functions and name not in self._failures and time.monotonic() < self._due

    async def list(self) -> Mapping[str, Function]:
        """Give every function that can be served, by name."""
        if time.monotonic() >= self._due:
            await self._looked()
        return dict(self._functions)

    async def survey(self) -> Sequence[Found]:
        """Say what there is, and why some of it cannot be served."""
        names = {*await self.list(), *self._failures}
        place = str(self._root)
        return [
            Found(name=name, source=self.source, place=place, failure=self._failures.get(name))
            for name in sorted(names)
        ]

    async def aclose(self) -> None:
        """End watching, and wait for a look that is under way. Calls look by themselves then, as before `open`."""
        if self._watch is not None:
            self._watch.close()
        self._watch, self._watched, self._due = None, False, 0.0
        if self._beginning is not None:
            self._beginning.cancel()
        self._to_build.clear()
        for build in self._builds.values():
            build.cancel()
        tasks = [task for task in (self._beginning, self._looking, *self._builds.values()) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _begin(self, watch: Watch) -> None:
        """Trust in being told of changes from when that is so; what there was until then is looked at."""
        await watch.active()
        self._watched = True
        self._changed()

    def _changed(self) -> None:
        self._due = 0.0
        self._once_more = True
        self._looking = self._look_soon()

    def _look_soon(self) -> asyncio.Task[None]:
        """Give the look that goes on, or one that begins now."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return self._looking

    async def _looked(self) -> None:
        """Wait for a look that begins now, or for one that others wait for.

        :raises InternalFailure: the disk has never answered.
        """
        await asyncio.wait([self._look_soon()], timeout=PATIENCE)
        if not self._seen:
            raise InternalFailure(f"The folder {self._root} does not answer.")

    async def _look(self) -> None:
        try:
            self._once_more = True
            while self._once_more:
                self._once_more = False
                await self._look_once()
        finally:
            self._looking = None

    async def _look_once(self) -> None:
        began = self._began = time.monotonic()
        failed = False
        try:
            self._take_up(await asyncio.to_thread(look, self._root))
        except OSError as error:
            gone = f"the folder {self._root} cannot be read: {error.strerror or error}"
            self._take_up(dict.fromkeys({*self._functions, *self._failures}, gone))
            failed = True
        except Exception as error:  # a task's boundary: what was seen last is served on
            self._log("error", "folder not looked at", folder=str(self._root), exc_info=error)
            failed = True
        if self._watched and not failed:
            self._due = 0.0 if self._once_more else math.inf
        else:
            now = time.monotonic()
            self._due = now + (max(self._age, (now - began) / SHARE) if self._age else 0.0)

    def _take_up(self, looked: Looked) -> None:
        self._seen = True
        known = {**self._placed, **self._failures}
        others = [name for name in {*known, *looked} if known.get(name) != looked.get(name)]
        for name in others:
            found = looked.get(name)
            if isinstance(found, Placed) and found.build is not None and self._surroundings is not None:
                self._build_soon(name, found)
            else:
                self._take(name, found)

    def _take(self, name: str, found: Placed | str | None) -> None:
        """Serve what was found; a text says why it cannot be."""
        for kept in (self._placed, self._functions, self._failures):
            kept.pop(name, None)
        if isinstance(found, Placed):
            function = self._function(name, found)
            self._placed[name], self._functions[name] = found, function
            if function.generation > 1:
                took = round((time.monotonic() - self._began) * 1000, 1)
                self._log("info", "code reloaded", function=name, generation=function.generation, milliseconds=took)
        elif found is not None:
            self._failures[name] = found
            self._log("warning", "function cannot be served", function=name, reason=found)
        if self._surroundings is not None:
            self._surroundings.changed(name)

    def _function(self, name: str, found: Placed) -> Function:
        settings = None if self._surroundings is None else self._surroundings.settings.functions
        region = self._region or (settings.region if settings is not None else "us-east-1")
        generation = self._generations[name] = self._generations.get(name, 0) + 1
        function = function_of(
            found.manifest, found.root, found.layers, region=region, source=found.place, in_place=True
        )
        return replace(function, generation=generation)

    def _build_soon(self, name: str, found: Placed) -> None:
        """Have code built before it is served; what was served before is, until then."""
        self._to_build[name] = found
        if name not in self._functions:
            self._failures.setdefault(name, _BEING_BUILT)
        if name not in self._builds:
            self._builds[name] = asyncio.get_running_loop().create_task(self._build(name))

    async def _build(self, name: str) -> None:
        try:
            while (found := self._to_build.pop(name, None)) is not None:
                await self._build_once(name, found)
        except Exception as error:  # a task's boundary
            self._log("error", "function not built", function=name, exc_info=error)
        finally:
            del self._builds[name]

    async def _build_once(self, name: str, found: Placed) -> None:
        assert self._surroundings is not None
        assert found.build is not None
        try:
            ran = await self._surroundings.building().build(name, found.place, found.build)
        except CodeNotBuilt as failure:
            if name not in self._functions:
                self._failures[name] = str(failure)
            return
        if self._placed.get(name) == found:
            return
        if ran or not await asyncio.to_thread(is_as_seen, found):
            self._changed()  # what was made is served as soon as a look finds nothing more to be built
        elif found.root.is_dir():
            self._take(name, found)
        else:
            self._take(name, f"{found.place}: there is no folder {found.root}, also after the build")

    async def _built(self, name: str) -> None:
        """Wait until a function that is being built for the first time can be served, or cannot."""
        while self._failures.get(name) == _BEING_BUILT:
            busy = [task for task in (self._builds.get(name), self._looking) if task is not None]
            if not busy:
                return
            await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)

    def _log(self, level: str, event: str, **fields: Any) -> None:
        if self._surroundings is not None:
            getattr(self._surroundings.logger, level)(event, **fields)
